//! The runs to make next: what can be built and planned, of which those are chosen that tell most about a target, as a
//! sweep file.

mod candidates;
mod error;
mod fitted;
mod frontier;
mod proposal;
mod template;
mod warnings;

pub use error::ProposeError;
pub use fitted::{FittedRuns, of_fit};
pub use proposal::{Outlook, Proposal, ProposedRun, Request, propose};
pub use template::Template;

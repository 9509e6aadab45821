//! What the compiler makes of a set of models, as data that can be kept, and the difference of two such.
//!
//! A [`Dump`] holds every different kernel once, and for each program how often it runs which. Equal input gives equal
//! bytes, and nothing in a dump says which compiler made it: two compilers that generate the same code give the same dump.

mod body;
#[cfg(feature = "mlir")]
mod code;
mod difference;
mod dump;
mod matching;
mod rename;
mod totals;

pub use difference::{CallChange, Change, Difference, KernelChange, ProgramChange, Side, Uses, difference};
pub use dump::{CallUse, Code, Dump, DumpError, FORMAT, Kernel, KernelUse, MadeWith, ProgramDump};
pub use totals::Totals;

//! What fusion decided and why, as data: the log, `--explain fusion`, tests and reports all print this.

use serde::{Deserialize, Serialize};

/// Why two kernels stay two. Library calls, views and operations that move data in a pattern of their own are no
/// candidates: nothing is decided about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Something outside depends on the producer and the consumer depends on that.
    Cycle,
    /// Their rows and columns are not the same.
    DomainMismatch,
    /// The consumer needs a result that is complete only after the producer's last row.
    NeedsWholeReduction,
    /// The producer would be computed again for every row.
    RepeatsWork,
    /// Scalars are computed once, in a kernel of their own.
    ScalarApart,
    /// An operand is read in an order that neither rows nor columns follow.
    Strided,
    /// The kernel would take too many arguments.
    TooManyArguments,
    /// A value would live longer, and the program need more memory than without fusion.
    RaisesPeak,
    /// A seed of the options keeps the pair apart.
    Shuffled,
}

impl Reason {
    pub const ALL: [Reason; 9] = [
        Reason::Cycle,
        Reason::DomainMismatch,
        Reason::NeedsWholeReduction,
        Reason::RepeatsWork,
        Reason::ScalarApart,
        Reason::Strided,
        Reason::TooManyArguments,
        Reason::RaisesPeak,
        Reason::Shuffled,
    ];

    pub fn sentence(self) -> &'static str {
        match self {
            Reason::Cycle => "something in between needs the producer and feeds the consumer",
            Reason::DomainMismatch => "rows and columns differ",
            Reason::NeedsWholeReduction => "the consumer needs the reduction over all rows",
            Reason::RepeatsWork => "the producer would be computed again for every row",
            Reason::ScalarApart => "scalars are computed once, apart",
            Reason::Strided => "an operand is read in an order no loop follows",
            Reason::TooManyArguments => "too many arguments for one kernel",
            Reason::RaisesPeak => "a value would live longer and raise the memory peak",
            Reason::Shuffled => "a seed of the options keeps the two apart",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Into the kernel of the `fused` node with this id.
    Fused {
        kernel: u32,
    },
    Refused(Reason),
}

/// One pair the queue looked at. Ids are node ids of the graph before fusion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub producer: u32,
    pub consumer: u32,
    /// Operation and scope of the two, such as `mul layers.0.gelu`.
    pub producer_name: String,
    pub consumer_name: String,
    /// The two only read the same value; neither feeds the other.
    pub siblings: bool,
    pub outcome: Outcome,
    pub bytes_saved: u64,
    pub launches_saved: u32,
    /// Time the cost model expects to save, microseconds.
    pub estimated_us: f64,
}

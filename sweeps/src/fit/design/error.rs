//! Why no design can be made on a fit.

use thiserror::Error;

/// Why a fit says nothing about which runs to make next.
#[derive(Debug, Error)]
pub enum DesignError {
    #[error("--target: found `{found}`, expected nstar@FLOPs or loss@FLOPs, such as nstar@1e23")]
    BadTarget { found: String },
    #[error("{0}")]
    Runs(#[from] crate::fit::FitError),
    #[error(
        "the fit is of {fitted} runs, but {found} of those given can be fitted: give the study or table that was fitted"
    )]
    OtherRuns { fitted: usize, found: usize },
    #[error(
        "approach 3 was fitted by the law `{law}`: a design needs L = E + A / N^alpha + B / D^beta; fit again with \
         --form chinchilla, --fix-e or --tie-exponents"
    )]
    OtherLaw { law: String },
    #[error(
        "the runs do not determine the law: {what}. It has no covariance that could say which runs tell most; fit with \
         --fix-e or --tie-exponents, or add runs of other sizes and lengths by hand"
    )]
    Undetermined { what: String },
    #[error("the runs lie on the law without any noise: there is no interval to shrink")]
    NoNoise,
}

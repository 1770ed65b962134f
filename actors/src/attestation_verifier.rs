//! Whether a host may be trusted: policies, appraisal of quotes, verdicts.

#[cfg(feature = "shell")]
mod actor;
pub mod appraisal;
pub mod core;

pub use appraisal::{Expected, Policy, PolicyError, Reason, ReferenceValues, Verdict, appraise};

//! Whether a host may be trusted: policies, appraisal of quotes, verdicts.

pub mod appraisal;
#[cfg(feature = "shell")]
mod actor;
pub mod core;

pub use appraisal::{Expected, Policy, PolicyError, Reason, ReferenceValues, Verdict, appraise};

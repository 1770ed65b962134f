//! Whether a host may be trusted: policies, appraisal of quotes, verdicts.

pub mod appraisal;
pub mod core;

pub use appraisal::{Expected, Policy, PolicyError, Reason, ReferenceValues, Verdict, appraise};

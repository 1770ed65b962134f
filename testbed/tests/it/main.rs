//! Tests of the whole: the repository's own rules, and the programs as real processes.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod e2e;
mod printing;
mod tidy;

//! The agent's parts against the real thing.

#![allow(clippy::unwrap_used)]

mod tpm;

//! The domain: pure cores that decide, and thin shells that obey.
//!
//! A **machine** keeps its small state in memory: `step(event, now) -> effects`. A **ledger** keeps none:
//! `decide(command, rows) -> Batch | Refusal` runs inside the writer's transaction. Both are functions of their
//! arguments: no clock, no randomness, no I/O. The feature `shell` adds what touches the world: the LMDB engine,
//! the ractor actors and the ports.

pub mod access_control;
pub mod attestation_verifier;
pub mod audit_log;
pub mod barrier;
pub mod distribute;
pub mod distribution;
pub mod key_store;
pub mod keyring;
pub mod ports;
pub mod rows;
pub mod seal_keeper;
pub mod secret_store;
pub mod shamir;
#[cfg(feature = "shell")]
pub mod shell;
pub mod site_registry;
pub mod store;
pub mod tally;

#[cfg(test)]
mod testing;

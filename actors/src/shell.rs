//! The ractor machinery that every actor shares: a bounded way in, one shell for any machine, supervision with a
//! budget of restarts, and the adapters of the operating system's clock and randomness. Nothing here decides anything.
//!
//! A node's actors are spawned without names (the registry is global to the process) and are reached by
//! [`mailbox::Mailbox`], which outlives restarts.

pub mod bound;
pub mod looping;
pub mod machine;
pub mod mailbox;
pub mod os;
pub mod replies;
pub mod restart_budget;
#[cfg(debug_assertions)]
pub mod strike;
pub mod supervisor;

pub use bound::{Bounded, Load};
pub use looping::caught;
pub use machine::{Failed, Machine, MachineParts, Perform};
pub use mailbox::{CallError, Mailbox};
pub use os::{OsClock, OsEntropy};
pub use replies::Replies;
pub use restart_budget::RestartBudget;
pub use supervisor::{Child, Supervision};

#[cfg(test)]
mod tests;

//! What needs more than one module: engines against their contract, shells against the world.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod rows;
mod store;

//! Central: composes the store, the actors and the fronts. It decides nothing itself.

pub mod config;
pub mod fleet;
pub mod keys;
pub mod node;
pub mod quic;

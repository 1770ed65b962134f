//! Central's end of the hosts' connections, open while central is unsealed.
//!
//! One QUIC endpoint, two application protocols: [`enrol`] for joining, [`session`] for everything after. Sessions are
//! dumb pipes: what arrives becomes an event of the attestation verifier or of distribution, and what those want sent
//! goes out through [`connections`], which asks before each frame whether the host is still to have it.

mod connections;
mod control;
mod enrol;
mod fleet;
mod frames;
mod listener;
mod session;
mod verifying;

mod distributing;

pub use fleet::{Fleet, FleetParts};

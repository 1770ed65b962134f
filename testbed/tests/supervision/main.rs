//! Every actor of both nodes is killed, made to panic and made to fail while the nodes are at work, in one process with
//! real stores, sockets and a software TPM.
//!
//! A program of its own: the TPM libraries would hand their connections down to whatever other tests start.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod bounds;
mod faults;
mod flight;
mod load;
mod stage;
mod taken;

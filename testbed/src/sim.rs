//! A whole deployment on one thread by a seed: the pure cores over the memory engine, with a network, disks, clocks and
//! operators that do their worst, and checkers of the invariants that look on.
//!
//! | file | what |
//! |---|---|
//! | [`world`] | all of it, and the order of events |
//! | [`central`], [`speaking`], [`deciding`] | central: its process, its sessions, its operators' decisions |
//! | [`host`], [`enrolling`] | a site host: its process, its sessions, its enrolments |
//! | [`network`], [`disk`], [`clock`], [`chip`], [`chance`] | what the nodes stand on |
//! | [`operators`] | what people and misfortune do, at random |
//! | [`model`] | what ought to be |
//! | [`checkers`] | the invariants: what is, against what ought to be |
//! | [`sabotage`] | deliberately broken cores, which the checkers must catch |
//! | [`runs`] | many seeds, over all processors |
//!
//! The decisions are the product's own: cores, rows, the replica, the seal, the uplink and the dialogue of a session. What
//! moves them at central is a mirror by hand of its glue, the `quic` folder: [`speaking`] is its connections, their writers
//! and the fence, [`deciding`] an operator's call. A mistake in the real glue is therefore not seen here: the real fence is
//! tested over a simulated network (`tests/glue/quarantine.rs`) and between processes (`tests/it/e2e`, `tests/crash`).
//!
//! Not simulated: duplicates and reordering within a connection, which QUIC takes out (`tests/glue` has them among packets;
//! here only whole bundles come twice, by a hostile relay); torn writes, since a commit of the memory engine is made or is
//! not (`tests/crash` kills real processes in the middle of theirs); a network for enrolments and for fetching notices,
//! which reach central whole or not at all.
//!
//! Two runs of one seed are the same, event by event: [`world::Outcome::digest`] tells.

pub mod central;
pub mod chance;
pub mod checkers;
pub mod chip;
pub mod clock;
pub mod deciding;
pub mod disk;
pub mod enrolling;
pub mod host;
pub mod model;
pub mod network;
pub mod operators;
pub mod runs;
pub mod sabotage;
pub mod speaking;
pub mod world;

use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// The value of a future that waits for nobody: over the memory engine every call of the product is done when it is
/// polled once.
///
/// # Panics
/// It waits for somebody, which nothing here may.
pub fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("something waits that nothing here could ever wake"),
    }
}

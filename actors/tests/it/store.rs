//! Every engine against the contract, and what is peculiar to each.

mod conformance;
#[cfg(feature = "shell")]
mod lmdb;
mod memory;

use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use holdfast_actors::store::{Decide, Engine, Fault, Op, View};
use holdfast_protocol::ids::Revision;

type Outcome = Result<Revision, Fault>;

/// A decision made of a closure, answering into a channel.
struct Closure<F> {
    decide: F,
    outcome: Sender<Outcome>,
}

impl<F: FnMut(&dyn View) -> Option<Vec<Op>> + Send> Decide for Closure<F> {
    fn decide(&mut self, view: &dyn View) -> Option<Vec<Op>> {
        (self.decide)(view)
    }

    fn done(self: Box<Self>, outcome: Outcome) {
        // Who only submits may have left.
        let _ = self.outcome.send(outcome);
    }
}

fn submit(engine: &dyn Engine, decide: impl FnMut(&dyn View) -> Option<Vec<Op>> + Send + 'static) -> Receiver<Outcome> {
    let (outcome, answer) = mpsc::channel();
    engine.submit(Box::new(Closure { decide, outcome }));
    answer
}

/// Submits ops and waits for the outcome.
fn write(engine: &dyn Engine, ops: Vec<Op>) -> Outcome {
    soon(&submit(engine, move |_| Some(ops.clone())))
}

/// What arrives within any patience.
fn soon<T>(receiver: &Receiver<T>) -> T {
    receiver.recv_timeout(Duration::from_secs(60)).expect("an answer")
}

fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Op {
    Op::Put { key: key.as_ref().to_vec(), value: value.as_ref().to_vec() }
}

fn delete(key: impl AsRef<[u8]>) -> Op {
    Op::Delete { key: key.as_ref().to_vec() }
}

/// A key's newest value.
fn value(engine: &dyn Engine, key: &str) -> Option<Vec<u8>> {
    engine.snapshot().unwrap().get(key.as_bytes()).unwrap().map(|entry| entry.value)
}

//! Disks that fill up and machines that die at a commit, before it or after it.

use std::sync::{Arc, Mutex};

use holdfast_actors::store::Fault;
use holdfast_actors::store::memory::{Faults, Injected, MemoryEngine};

use crate::sim::chance::Dice;

/// What a disk is up to.
#[derive(Debug)]
struct Plan {
    dice: Dice,
    crash_per_mille: u32,
    full: bool,
}

/// A machine's disk, which outlives the processes on it.
#[derive(Debug, Clone)]
pub struct Disk(Arc<Mutex<Plan>>);

impl Disk {
    /// A disk that does what it should.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Plan { dice: Dice::new(seed), crash_per_mille: 0, full: false })))
    }

    /// How many of a thousand commits the machine does not survive.
    pub fn set_crashes(&self, per_mille: u32) {
        self.lock().crash_per_mille = per_mille;
    }

    /// It is full, or has room again.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Whether it is full.
    pub fn is_full(&self) -> bool {
        self.lock().full
    }

    /// Has an engine live on this disk.
    pub fn carry(&self, engine: &MemoryEngine) {
        let plan = self.0.clone();
        let judge: Faults = Box::new(move |_| plan.lock().expect("nobody panics with it").judge());
        engine.inject(judge);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.0.lock().expect("nobody panics with it")
    }
}

impl Plan {
    fn judge(&mut self) -> Injected {
        if self.dice.per_mille(self.crash_per_mille) {
            return if self.dice.per_mille(500) { Injected::CrashBefore } else { Injected::CrashAfter };
        }
        if self.full { Injected::Refuse(Fault::Full) } else { Injected::Pass }
    }
}

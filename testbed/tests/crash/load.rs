//! The load: writers at central, each with its own secrets, and readers at every node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::ledger::{Placement, Secret, Seen};
use super::nodes::{Asker, Heard};
use super::schedule::Dice;

/// Between two requests of a writer, and of a reader.
const PACE: Duration = Duration::from_millis(60);

/// Said to everybody.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// It is enough.
    pub(crate) stop: AtomicBool,
    /// Raised when a host may begin anew, with a store that has no content yet.
    pub(crate) beginnings: AtomicU64,
    /// Acknowledged writes and deletions, for the figures.
    pub(crate) acknowledged: AtomicU64,
    /// Those whose answer never came.
    pub(crate) open: AtomicU64,
}

/// The secrets of one writer.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    /// Written one after the other with the same number, never deleted: nowhere may the second be ahead of the first.
    pub(crate) pairs: Vec<[Arc<Secret>; 2]>,
    /// Written and deleted as it comes.
    pub(crate) singles: Vec<Arc<Secret>>,
}

impl Shelf {
    /// In a box of the same placement.
    pub(crate) fn of(name: &str, placement: Placement) -> Self {
        let secret = |kind: String, bytes| Secret::new(format!("{name}/{kind}"), placement, bytes);
        let pair = |pair: usize| [secret(format!("pair-{pair}/first"), 64), secret(format!("pair-{pair}/second"), 64)];
        Self {
            pairs: (0..2).map(pair).collect(),
            singles: (0..3).map(|at| secret(format!("single-{at}"), 4096)).collect(),
        }
    }

    /// All of them.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Arc<Secret>> {
        self.pairs.iter().flatten().chain(&self.singles)
    }
}

/// Writes to its own secrets.
pub(crate) struct Writer {
    asker: Asker,
    shelf: Shelf,
    dice: Dice,
    shared: Arc<Shared>,
    number: u64,
}

impl Writer {
    /// Through `asker`, which is at central.
    pub(crate) fn new(asker: Asker, shelf: Shelf, dice: Dice, shared: Arc<Shared>) -> Self {
        Self { asker, shelf, dice, shared, number: 0 }
    }

    /// Until it is told to stop; then every open question has its answer.
    pub(crate) async fn run(mut self) {
        let mut ticks = interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.shared.stop.load(Ordering::SeqCst) {
            ticks.tick().await;
            self.settle().await;
            match self.dice.below(10) {
                0..6 => {
                    let pair = self.dice.one_of(&self.shelf.pairs).clone();
                    self.number += 1;
                    if self.write(&pair[0]).await {
                        self.write(&pair[1]).await;
                    }
                }
                kind => {
                    let single = self.dice.one_of(&self.shelf.singles).clone();
                    self.number += 1;
                    match kind < 8 || !single.is_there() {
                        true => drop(self.write(&single).await),
                        false => self.delete(&single).await,
                    }
                }
            }
        }
        self.settle().await;
    }

    /// What became of a write without an answer is asked before the next one.
    async fn settle(&self) {
        for secret in self.shelf.secrets().filter(|secret| secret.is_open()) {
            loop {
                match self.asker.read(&secret.path).await {
                    Heard::Found(data) => break secret.settle(Some(&data)),
                    Heard::Absent => break secret.settle(None),
                    Heard::NotNow | Heard::Nothing => tokio::time::sleep(PACE).await,
                }
            }
        }
    }

    async fn write(&self, secret: &Secret) -> bool {
        let value = secret.will_write(self.number);
        let done = self.asker.write(&secret.path, &value).await;
        self.note(secret, done);
        done
    }

    async fn delete(&self, secret: &Secret) {
        secret.will_delete(self.number);
        let done = self.asker.delete(&secret.path).await;
        self.note(secret, done);
    }

    fn note(&self, secret: &Secret, done: bool) {
        if done {
            secret.acknowledged();
            self.shared.acknowledged.fetch_add(1, Ordering::SeqCst);
        } else {
            self.shared.open.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Reads a tenant's secrets at one node.
pub(crate) struct Reader {
    asker: Asker,
    shelves: Vec<Shelf>,
    dice: Dice,
    shared: Arc<Shared>,
    seen: Seen,
}

impl Reader {
    /// Of all these.
    pub(crate) fn new(asker: Asker, shelves: Vec<Shelf>, dice: Dice, shared: Arc<Shared>) -> Self {
        Self { asker, shelves, dice, shared, seen: Seen::default() }
    }

    /// Until it is told to stop.
    pub(crate) async fn run(mut self) {
        let mut ticks = interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.shared.stop.load(Ordering::SeqCst) {
            ticks.tick().await;
            let shelf = self.dice.one_of(&self.shelves).clone();
            if self.dice.below(2) == 0 {
                let [first, second] = self.dice.one_of(&shelf.pairs);
                self.pair(first, second).await;
            } else {
                let single = self.dice.one_of(&shelf.singles).clone();
                self.look(&single).await;
            }
        }
    }

    async fn pair(&mut self, first: &Secret, second: &Secret) {
        let Some(Some(second_seen)) = self.look(second).await else { return };
        match self.look(first).await {
            Some(Some(first_seen)) => {
                let (node, path) = (self.asker.node.name, &first.path);
                assert!(second_seen <= first_seen, "{node}: {path} is {first_seen}, what followed it is {second_seen}");
            }
            Some(None) => panic!("{}: {} is not there, but what followed it", self.asker.node.name, first.path),
            None => {}
        }
    }

    /// The number it has there; `None`: the node does not say.
    async fn look(&mut self, secret: &Secret) -> Option<Option<u64>> {
        let (node, before) = (self.asker.node.name, secret.known());
        let heard = self.asker.read(&secret.path).await;
        let found = match &heard {
            Heard::Found(data) => Some(data),
            Heard::Absent => None,
            Heard::NotNow | Heard::Nothing => return None,
        };
        assert!(found.is_none() || secret.placement.is_at(node), "{node}: {} is not for this site", secret.path);
        let number = secret.is_possible(node, found, &before);
        // Also at a host that began anew: it serves nothing of a tenant before it has all of it.
        self.seen.goes_on(node, secret, number);
        Some(number)
    }
}

//! What was written, as its writers know it: what was acknowledged, and what was tried without an answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use holdfast_protocol::crypto::hash::sha256;
use serde_json::{Value, json};

/// Where a secret is placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// At all sites.
    All,
    /// At `udc1`.
    First,
    /// At none.
    None,
}

impl Placement {
    /// As a request says it.
    pub(crate) fn json(self) -> Value {
        match self {
            Self::All => json!({"to": "all"}),
            Self::First => json!({"sites": ["udc1"]}),
            Self::None => json!({"to": "none"}),
        }
    }

    /// Whether a node should have it; central has everything.
    pub(crate) fn is_at(self, node: &str) -> bool {
        node == super::nodes::CENTRAL || self == Self::All || self == Self::First && node.starts_with("udc1")
    }
}

/// The number of a write, or that it was a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Write {
    number: u64,
    deletes: bool,
}

impl Write {
    /// What is read after it.
    fn leaves(self) -> Option<u64> {
        (!self.deletes).then_some(self.number)
    }
}

/// What its writer knows of a secret.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// The last write that was acknowledged.
    acknowledged: Write,
    /// One after it, whose answer never came.
    tried: Option<Write>,
    /// The last deletion that was tried.
    last_deletion: u64,
}

impl Known {
    fn newest(&self) -> u64 {
        self.tried.map_or(self.acknowledged.number, |tried| tried.number)
    }
}

/// A secret with one writer.
#[derive(Debug)]
pub(crate) struct Secret {
    /// `box/secret`.
    pub(crate) path: String,
    /// Where it should be.
    pub(crate) placement: Placement,
    /// Bytes of its values.
    bytes: usize,
    known: Mutex<Known>,
}

impl Secret {
    /// One that was never written.
    pub(crate) fn new(path: String, placement: Placement, bytes: usize) -> Arc<Self> {
        let never = Write { number: 0, deletes: true };
        let known = Mutex::new(Known { acknowledged: never, tried: None, last_deletion: 0 });
        Arc::new(Self { path, placement, bytes, known })
    }

    /// What is known now.
    pub(crate) fn known(&self) -> Known {
        *self.known.lock().expect("nobody panics holding it")
    }

    /// The value of a write: each has its own, and a half of it is none.
    pub(crate) fn value(&self, number: u64) -> Value {
        let seed = hex::encode(sha256(&[self.path.as_bytes(), &number.to_be_bytes()]));
        json!({"number": number, "text": seed.repeat(self.bytes.div_ceil(seed.len()))})
    }

    /// A write is about to be asked for.
    pub(crate) fn will_write(&self, number: u64) -> Value {
        self.will(Write { number, deletes: false });
        self.value(number)
    }

    /// A deletion is about to be asked for.
    pub(crate) fn will_delete(&self, number: u64) {
        self.will(Write { number, deletes: true });
    }

    fn will(&self, write: Write) {
        let mut known = self.known.lock().expect("nobody panics holding it");
        assert!(known.tried.is_none(), "an open question is answered before the next");
        known.tried = Some(write);
        if write.deletes {
            known.last_deletion = write.number;
        }
    }

    /// It was acknowledged.
    pub(crate) fn acknowledged(&self) {
        let mut known = self.known.lock().expect("nobody panics holding it");
        known.acknowledged = known.tried.take().expect("something was tried");
    }

    /// Whether an answer never came.
    pub(crate) fn is_open(&self) -> bool {
        self.known().tried.is_some()
    }

    /// The number to be read when nobody writes any more.
    pub(crate) fn last(&self) -> Option<u64> {
        self.known().acknowledged.leaves()
    }

    /// Whether there is something to delete.
    pub(crate) fn is_there(&self) -> bool {
        !self.known().acknowledged.deletes
    }

    /// What central holds, read while nobody writes: the acknowledged write, or the one whose answer never came, whole.
    pub(crate) fn settle(&self, found: Option<&Value>) {
        let number = found.map(|data| self.number_of(data));
        let mut known = self.known.lock().expect("nobody panics holding it");
        let candidates = [Some(known.acknowledged), known.tried].into_iter().flatten();
        match candidates.rev().find(|write| write.leaves() == number) {
            Some(write) => (known.acknowledged, known.tried) = (write, None),
            None => panic!("{}: central holds {number:?}, but {known:?}: an acknowledged write is lost", self.path),
        }
    }

    /// The number of a value; it must be exactly one that was written.
    fn number_of(&self, data: &Value) -> u64 {
        let number = data["number"].as_u64().unwrap_or_default();
        assert!(*data == self.value(number), "{}: half a value, or another's: {data:.200}", self.path);
        number
    }

    /// What was read at a node where it may be a while behind; gives the number.
    pub(crate) fn is_possible(&self, node: &str, found: Option<&Value>, before: &Known) -> Option<u64> {
        let number = found.map(|data| self.number_of(data));
        let now = self.known();
        assert!(number.is_none_or(|number| number <= now.newest()), "{node}: {}: from the future", self.path);
        if node == super::nodes::CENTRAL {
            // Whoever was told that a write is done reads it.
            match number {
                Some(number) => assert!(
                    before.acknowledged.number <= number,
                    "{}: read {number} after {before:?}: an acknowledged write is lost",
                    self.path
                ),
                None => assert!(
                    before.acknowledged.deletes || before.acknowledged.number < now.last_deletion,
                    "{}: nothing after {before:?}: an acknowledged write is lost",
                    self.path
                ),
            }
        }
        number
    }
}

/// The newest that one reader has seen of each secret at one node.
#[derive(Debug, Default)]
pub(crate) struct Seen(BTreeMap<String, u64>);

impl Seen {
    /// Nothing goes back, but for a deletion after what was seen.
    pub(crate) fn goes_on(&mut self, node: &str, secret: &Secret, number: Option<u64>) {
        let before = self.0.get(&secret.path).copied().unwrap_or_default();
        match number {
            Some(number) => {
                assert!(before <= number, "{node}: {} went back from {before} to {number}", secret.path);
                self.0.insert(secret.path.clone(), number);
            }
            None => {
                let deleted = secret.known().last_deletion;
                assert!(before == 0 || before < deleted, "{node}: {} is gone after {before}", secret.path);
            }
        }
    }
}

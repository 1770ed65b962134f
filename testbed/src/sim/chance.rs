//! Chance by a seed: what happens next, and the random bytes of every node. Nothing else in a simulation is random.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use holdfast_actors::ports::Entropy;
use holdfast_protocol::crypto::hash::sha256;

/// The dice of a world (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The dice of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x5DEE_CE66_D1CE_4E5B)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 of nothing.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.next_u64() % n as u64) as usize }
    }

    /// From `low` up to and without `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next_u64() % (high - low).max(1)
    }

    /// Whether something that happens so many times in a thousand happens now.
    pub fn per_mille(&mut self, chance: u32) -> bool {
        self.next_u64() % 1000 < u64::from(chance)
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { of.get(self.below(of.len())) }
    }
}

/// Every nonce that any node drew, for INV-10.
#[derive(Debug, Default)]
pub struct Nonces {
    seen: HashSet<[u8; 24]>,
    last: Option<[u8; 24]>,
    /// How many were drawn.
    pub drawn: u64,
    /// One that was drawn twice.
    pub repeated: Option<[u8; 24]>,
    /// Sabotage: every hundredth nonce is the one before.
    pub repeat: bool,
}

/// A node's random bytes.
pub struct SeededEntropy {
    state: Mutex<([u8; 32], u64)>,
    nonces: Arc<Mutex<Nonces>>,
}

impl SeededEntropy {
    /// The bytes that a seed and a name stand for.
    pub fn new(seed: u64, name: &str, nonces: Arc<Mutex<Nonces>>) -> Self {
        Self { state: Mutex::new((sha256(&[&seed.to_be_bytes(), name.as_bytes()]), 0)), nonces }
    }

    fn draw(&self, into: &mut [u8]) {
        let mut state = self.state.lock().expect("nobody panics with it");
        for chunk in into.chunks_mut(32) {
            state.1 += 1;
            let block = sha256(&[&state.0, &state.1.to_be_bytes()]);
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, into: &mut [u8]) {
        self.draw(into);
        if let Ok(nonce) = <&mut [u8; 24]>::try_from(into) {
            self.nonces.lock().expect("nobody panics with it").take(nonce);
        }
    }
}

impl Nonces {
    /// Only nonces have 24 bytes.
    fn take(&mut self, nonce: &mut [u8; 24]) {
        self.drawn += 1;
        if self.repeat && self.drawn.is_multiple_of(100) {
            *nonce = self.last.unwrap_or(*nonce);
        }
        self.last = Some(*nonce);
        if !self.seen.insert(*nonce) {
            self.repeated = Some(*nonce);
        }
    }
}

//! What the benchmarks stand on: a whole node in process, and the raw LMDB that it is compared with.
//!
//! Every group of benchmarks has one whose name begins with `raw`: the same work by the library below, without this
//! product. The ratio to it is what can be compared between machines; `holdfast-bench-table` prints it.

pub mod raw;
pub mod world;

/// How much to do: `full` when measuring, `little` when a test only wants to see it work.
pub fn amount(full: usize, little: usize) -> usize {
    if std::env::args().any(|argument| argument == "--bench") { full } else { little }
}

/// Numbers that look random and are the same each time.
#[derive(Debug, Clone)]
pub struct Numbers(u64);

impl Numbers {
    /// The sequence of a seed.
    pub fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (splitmix64).
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).expect("a usize fits");
        usize::try_from(self.draw() % end).expect("below a usize")
    }

    /// A key of 37 bytes, as long as that of a row two levels deep.
    pub fn key(&mut self) -> Vec<u8> {
        let mut key = vec![0x32, 0, 0, 0, 2];
        (0..4).for_each(|_| key.extend_from_slice(&self.draw().to_be_bytes()));
        key
    }
}

//! Mutations that depend on nothing but their seed, for the ordinary tests. libFuzzer has better ones; these run
//! everywhere and always the same.

/// A stream of numbers (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The stream that `seed` stands for.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if there is none.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % (end.max(1) as u64)).unwrap_or_default()
    }

    fn byte(&mut self) -> u8 {
        // Edges are where decoders go wrong.
        const EDGES: [u8; 10] = [0x00, 0x01, 0x7f, 0x80, 0xff, b'/', b'\n', b'"', b'%', b'-'];
        match self.below(2) {
            0 => EDGES[self.below(EDGES.len())],
            _ => self.roll().to_le_bytes()[0],
        }
    }
}

/// `of` with one to four changes: bits flipped, bytes set, cut, put in, repeated, or taken from `other`.
pub fn mutated(of: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = of.to_vec();
    for _ in 0..=dice.below(4) {
        change(&mut bytes, other, dice);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = dice.below(bytes.len());
    match dice.below(8) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
        1 if !bytes.is_empty() => bytes[at] = dice.byte(),
        2 => bytes.truncate(at),
        3 => bytes.insert(at, dice.byte()),
        4 if !bytes.is_empty() => drop(bytes.remove(at)),
        5 => bytes.push(dice.byte()),
        6 => {
            let end = (at + dice.below(16)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        _ => {
            let from = dice.below(other.len());
            let end = (from + dice.below(32)).min(other.len());
            let over = (at + dice.below(32)).min(bytes.len());
            bytes.splice(at..over, other[from..end].iter().copied());
        }
    }
}

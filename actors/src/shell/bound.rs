//! What a bound tells of itself: how much of it is used, how much there is, and how often it said no.

/// A bound at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Taken now.
    pub used: u64,
    /// There are so many.
    pub limit: u64,
    /// Turned away since it was made.
    pub refused: u64,
}

impl Load {
    /// From counts of things in memory.
    pub fn of(used: usize, limit: usize, refused: u64) -> Self {
        let wide = |count| u64::try_from(count).unwrap_or(u64::MAX);
        Self { used: wide(used), limit: wide(limit), refused }
    }
}

/// Anything with a bound.
pub trait Bounded: Send + Sync {
    /// Now; must not wait.
    fn load(&self) -> Load;
}

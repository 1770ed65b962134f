//! Erasing what a computation with a key left on the stack.
//!
//! A destructor erases a value where it lies last. Each move before left a copy of it behind, of which nobody knows:
//! key schedules and scalars that a library returns by value are found in the stacks of threads long after.

use std::hint::black_box;

/// More than any of the computations here goes down, also where nothing is optimised.
const DEPTH: usize = 12 << 10;

/// Does `work`, and erases the part of the stack that it used. What it gives back should hold keys on the heap only.
pub(crate) fn swept<T>(work: impl FnOnce() -> T) -> T {
    let done = below(work);
    sweep();
    done
}

/// A frame of its own, at the place where [`sweep`] has its own.
#[inline(never)]
fn below<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn sweep() {
    let area = [0u8; DEPTH];
    black_box(&area);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_given_back() {
        assert_eq!(swept(|| black_box([7u8; 100]).iter().map(|byte| u32::from(*byte)).sum::<u32>()), 700);
    }
}

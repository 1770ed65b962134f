//! The memory of another process, as whoever may trace it reads it, and what is found in it.
//!
//! An image is taken first and searched later, when the keys are known that may not be in it: so the process is not
//! held up, and the searching process never knows a key before.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use aho_corasick::AhoCorasick;

pub mod keys;

const PAGE: usize = 4096;
/// Read at once.
const CHUNK: usize = 1 << 20;
/// A shorter one would be found by chance.
const NEEDLE_BYTES_MIN: usize = 16;

/// In the environment of a node's program built for tests, leaves its memory open to its own user. Not even root of a
/// container can read it otherwise.
pub const READABLE: &str = "HOLDFAST_TEST_READABLE_MEMORY";

/// All that a process could write to, as it was: heaps, stacks, statics. Pages of nothing but zeros are left out.
pub struct Image {
    runs: Vec<Run>,
}

/// Neighbouring pages.
struct Run {
    from: usize,
    /// The mapping's name, for reports.
    of: String,
    bytes: Vec<u8>,
}

/// What is looked for: keys, each by a name.
#[derive(Default)]
pub struct Needles {
    names: Vec<String>,
    needles: Vec<Vec<u8>>,
}

impl Image {
    /// The memory of `pid` now. The process goes on meanwhile.
    ///
    /// # Errors
    /// There is no such process, or this one may not trace it.
    pub fn of(pid: u32) -> io::Result<Self> {
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        let mut runs = Vec::new();
        for line in fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
            if let Some((from, until, of)) = writable(line) {
                read_runs(&memory, (from, until), &of, &mut runs);
            }
        }
        Ok(Self { runs })
    }

    /// Bytes searched.
    pub fn bytes(&self) -> usize {
        self.runs.iter().map(|run| run.bytes.len()).sum()
    }

    /// Each place where a needle lies: which, and where.
    pub fn find(&self, needles: &Needles) -> Vec<String> {
        let search = needles.search();
        let mut found = Vec::new();
        for run in &self.runs {
            for place in search.find_overlapping_iter(&run.bytes) {
                let name = &needles.names[place.pattern().as_usize()];
                found.push(format!("{name} at {:#x} in {}", run.from + place.start(), run.of));
            }
        }
        found
    }
}

/// Bounds and name of a line of `maps`, if the process may write there.
fn writable(line: &str) -> Option<(usize, usize, String)> {
    let mut parts = line.split_ascii_whitespace();
    let (from, until) = parts.next()?.split_once('-')?;
    let may = parts.next()?;
    let name = parts.nth(3).unwrap_or("anonymous memory");
    let bound = |text| usize::from_str_radix(text, 16).ok();
    may.starts_with("rw").then_some((bound(from)?, bound(until)?, name.to_owned()))
}

/// Appends what is not zero. A mapping that is gone by now has nothing to tell.
fn read_runs(memory: &File, (from, until): (usize, usize), of: &str, runs: &mut Vec<Run>) {
    let mut chunk = vec![0; CHUNK];
    let mut is_run_open = false;
    for start in (from..until).step_by(CHUNK) {
        let chunk = &mut chunk[..CHUNK.min(until - start)];
        if memory.read_exact_at(chunk, start as u64).is_err() {
            is_run_open = false;
            continue;
        }
        for (number, page) in chunk.chunks(PAGE).enumerate() {
            if page == &[0; PAGE][..page.len()] {
                is_run_open = false;
                continue;
            }
            match runs.last_mut().filter(|_| is_run_open) {
                Some(run) => run.bytes.extend_from_slice(page),
                None => runs.push(Run { from: start + number * PAGE, of: of.to_owned(), bytes: page.to_vec() }),
            }
            is_run_open = true;
        }
    }
}

impl Needles {
    /// Adds a key by a name to report it by, as it is and backwards, which is how numbers lie in memory.
    ///
    /// # Panics
    /// It is too short to be looked for.
    pub fn add(&mut self, name: &str, key: &[u8]) {
        let mut backwards = key.to_vec();
        backwards.reverse();
        self.add_as_is(name, key);
        self.add_as_is(&format!("{name}, backwards"), &backwards);
    }

    /// Adds a text.
    ///
    /// # Panics
    /// As [`Needles::add`].
    pub fn add_as_is(&mut self, name: &str, bytes: &[u8]) {
        assert!(bytes.len() >= NEEDLE_BYTES_MIN, "{name} is too short a needle");
        self.names.push(name.to_owned());
        self.needles.push(bytes.to_vec());
    }

    /// All of them, backwards ones included.
    pub fn all(&self) -> impl Iterator<Item = &[u8]> {
        self.needles.iter().map(Vec::as_slice)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.needles.len()
    }

    fn search(&self) -> AhoCorasick {
        AhoCorasick::new(&self.needles).expect("a few hundred needles are no large automaton")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_holds_is_found_and_what_it_erased_is_not() {
        let key: Vec<u8> = (0..32).map(|at| 0xA0 ^ at).collect();
        let mut needles = Needles::default();
        // Never two copies in this process but for the needle itself, of which one is known.
        needles.add_as_is("key", &key);
        let image = Image::of(std::process::id()).unwrap();
        assert!(image.bytes() > PAGE);
        let found = image.find(&needles);
        assert!(found.len() >= 2, "the key and the needle: {found:?}");
        assert!(found.iter().all(|place| place.starts_with("key at 0x")));
        drop(key);
    }

    #[test]
    fn a_key_is_found_over_the_edge_of_a_page_and_backwards() {
        let key: Vec<u8> = (1..=32).collect();
        let backwards: Vec<u8> = (1..=32).rev().collect();
        let mut needles = Needles::default();
        needles.add("key", &key);
        assert_eq!(needles.count(), 2);
        let mut bytes = vec![9; PAGE - 7];
        bytes.extend_from_slice(&key);
        bytes.extend_from_slice(&backwards);
        let run = Run { from: 0x1000, of: "heap".to_owned(), bytes };
        let image = Image { runs: vec![run] };
        assert_eq!(image.find(&needles), ["key at 0x1ff9 in heap", "key, backwards at 0x2019 in heap"]);
    }

    #[test]
    fn only_what_can_be_written_is_looked_at() {
        let heap = "55d0c0000000-55d0c0021000 rw-p 00000000 00:00 0    [heap]";
        assert_eq!(writable(heap), Some((0x55d0_c000_0000, 0x55d0_c002_1000, "[heap]".to_owned())));
        assert_eq!(writable("55d0c0000000-55d0c0021000 rw-p 00000000 00:00 0").unwrap().2, "anonymous memory");
        assert_eq!(writable("7f0000000000-7f0000001000 r--s 00000000 fe:00 12 /data/store/data.mdb"), None);
    }
}

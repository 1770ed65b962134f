//! Hostile bytes: for every decoder that sees bytes from outside or from disk a function that takes any bytes and panics
//! when something does not hold that must hold for all of them. `docs/fuzzing.md` tells which and what.
//!
//! libFuzzer drives them for as long as asked (`make fuzz`); the ordinary tests run what it found, and mutations of it.

use allocation_counter::AllocationInfo;

pub mod audit;
pub mod body;
pub mod config;
pub mod corpus;
pub mod frames;
pub mod kes;
pub mod mutation;
pub mod records;
pub mod request;
mod reread;
pub mod sealed;
pub mod texts;
pub mod tpm;
pub mod wire;
mod world;
pub mod x509;

/// One target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: of the libFuzzer program, and of the folder of its corpus.
    pub name: &'static str,
    /// Takes any bytes; panics if a property does not hold.
    pub run: fn(&[u8]),
    /// Good inputs to start from, made of the golden files and of what the product itself writes.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What it may have allocated at once.
    pub memory: Memory,
}

/// A bound on memory: `fixed + each * length of the input`, bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// For no input at all.
    pub fixed: u64,
    /// For each byte of it.
    pub each: u64,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "frames", run: frames::target, seeds: frames::seeds, memory: frames::MEMORY },
    Target { name: "wire", run: wire::target, seeds: wire::seeds, memory: wire::MEMORY },
    Target { name: "sealed", run: sealed::target, seeds: sealed::seeds, memory: sealed::MEMORY },
    Target { name: "request", run: request::target, seeds: request::seeds, memory: request::MEMORY },
    Target { name: "texts", run: texts::target, seeds: texts::seeds, memory: texts::MEMORY },
    Target { name: "body", run: body::target, seeds: body::seeds, memory: body::MEMORY },
    Target { name: "config", run: config::target, seeds: config::seeds, memory: config::MEMORY },
    Target { name: "records", run: records::target, seeds: records::seeds, memory: records::MEMORY },
    Target { name: "audit", run: audit::target, seeds: audit::seeds, memory: audit::MEMORY },
    Target { name: "tpm", run: tpm::target, seeds: tpm::seeds, memory: tpm::MEMORY },
    Target { name: "kes", run: kes::target, seeds: kes::seeds, memory: kes::MEMORY },
    Target { name: "x509", run: x509::target, seeds: x509::seeds, memory: x509::MEMORY },
];

impl Target {
    /// Runs it on `data`, and checks what it allocated.
    pub fn check(&self, data: &[u8]) -> AllocationInfo {
        let used = allocation_counter::measure(|| (self.run)(data));
        let allowed = self.memory.fixed + self.memory.each * data.len() as u64;
        assert!(used.bytes_max <= allowed, "{} bytes of input took {} of memory", data.len(), used.bytes_max);
        used
    }
}

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// What a libFuzzer program calls.
pub fn run(name: &str, data: &[u8]) {
    target(name).expect("every program is named after a target").check(data);
}

/// The first byte says what the rest is to be read as: one target has several decoders.
fn choose(data: &[u8]) -> Option<(u8, &[u8])> {
    data.split_first().map(|(which, rest)| (*which, rest))
}

/// The input that [`choose`] takes apart.
fn chosen(which: u8, rest: &[u8]) -> Vec<u8> {
    [&[which], rest].concat()
}

//! The glue under simulation: the real fleet of central and the real agents, real QUIC and TLS between them, on a
//! simulated network with paused time. Everything follows from a seed, but for the bytes of TLS keys and signatures.
//!
//! Below [`world::World`] stand the two nodes ([`central`], [`agent`]) on their ports: network ([`air`]), TPM
//! ([`chip`]), clock and randomness ([`dice`]), and the memory engine. Each other module tells stories.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod agent;
mod air;
mod central;
mod chip;
mod count;
mod dice;
mod puppet;
mod trace;
mod world;

mod appraisal;
mod joining;
mod migration;
mod partition;
mod quarantine;
mod refusal;
mod restart;
mod same_seed;
mod slow;
mod storm;
mod weather;

/// Tells a story once for each seed.
fn for_seeds(name: &'static str, seeds: std::ops::RangeInclusive<u64>, story: impl Fn(u64)) {
    for seed in seeds {
        count::story(name);
        story(seed);
    }
}

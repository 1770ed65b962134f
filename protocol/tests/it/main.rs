//! What the nodes rely on between releases: the bytes of every released format.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod golden;
mod kes;

//! Central in-process and as a program: real store, real TLS, loopback sockets on free ports.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod audit;
mod client;
mod ends;
mod following;
mod guessing;
mod isolation;
mod kes;
mod memory;
mod neighbours;
mod process;
mod quic;
mod renewal;
mod seal;
mod secrecy;
mod supervision;
mod validation;
mod world;

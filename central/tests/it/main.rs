//! Central in-process and as a program: real store, real TLS, loopback sockets on free ports.

mod audit;
mod client;
mod process;
mod quic;
mod seal;
mod secrecy;
mod world;

//! The front and the server as a client meets them: real sockets, real TLS.

#![allow(clippy::unwrap_used)]

mod cerberus;
mod client;
mod front;
mod kes;
mod node;
mod openapi;
mod strongbox;
mod tls;

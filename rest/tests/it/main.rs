//! The front and the server as a client meets them: real sockets, real TLS.

mod client;
mod front;
mod tls;

//! What dialling needs of a machine: names become addresses, and a socket to go out from.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use quinn::Endpoint;

use crate::chip::BoxFuture;

/// The network as the agent sees it. QUIC runs above it, whatever it is.
pub trait Network: fmt::Debug + Send + Sync {
    /// The addresses behind `host:port`.
    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;

    /// A fresh way out, to peers of the same family as `to`.
    ///
    /// # Errors
    /// No socket can be had.
    fn endpoint(&self, to: SocketAddr) -> io::Result<Endpoint>;
}

/// The operating system's.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsNetwork;

impl Network for OsNetwork {
    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host(address).await?.collect()) })
    }

    fn endpoint(&self, to: SocketAddr) -> io::Result<Endpoint> {
        Endpoint::client(match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        })
    }
}

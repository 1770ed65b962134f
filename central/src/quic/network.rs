//! What the listener needs of a machine: a socket with QUIC above it.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use quinn::{Endpoint, EndpointConfig, ServerConfig};

/// Bytes the kernel may hold of what all hosts sent.
const SOCKET_BUFFER: usize = 4 << 20;

/// The network as central sees it. QUIC runs above it, whatever it is.
pub trait Network: Send + Sync {
    /// Listens there.
    ///
    /// # Errors
    /// The address can't be had.
    fn listen(&self, at: SocketAddr, config: ServerConfig) -> io::Result<Endpoint>;

    /// Listens there with an endpoint that resets what it has forgotten in a way that hosts believe. Where a network
    /// does not care, its hosts notice a restart of central by the silence.
    ///
    /// # Errors
    /// The address can't be had.
    fn listen_again(&self, at: SocketAddr, config: ServerConfig, resets: EndpointConfig) -> io::Result<Endpoint> {
        drop(resets);
        self.listen(at, config)
    }
}

/// The operating system's.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsNetwork;

impl Network for OsNetwork {
    fn listen(&self, at: SocketAddr, config: ServerConfig) -> io::Result<Endpoint> {
        self.listen_again(at, config, EndpointConfig::default())
    }

    fn listen_again(&self, at: SocketAddr, config: ServerConfig, resets: EndpointConfig) -> io::Result<Endpoint> {
        let socket = UdpSocket::bind(at)?;
        // Less than asked for is normal where the system's limit is lower.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER);
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER);
        let runtime = quinn::default_runtime().ok_or_else(|| io::Error::other("no runtime"))?;
        Endpoint::new(resets, Some(config), socket, runtime)
    }
}

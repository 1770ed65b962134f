//! Messages between a host and central, version by version. A released version never changes; a new one is a new file,
//! and this module names the current one.
//!
//! Two application protocols on one QUIC port: [`ALPN_ENROL`] (no client certificate) and [`ALPN_SYNC`] (client
//! certificate demanded). Each connection carries one bidirectional stream opened by the host; each message is a frame
//! `length u32 BE | postcard`.

pub mod unseal;
pub mod v1;

pub use unseal::*;
pub use v1::*;

/// Join, re-enrol, and the signed standing notice.
pub const ALPN_ENROL: &[u8] = b"holdfast-enrol/1";
/// Everything after joining.
pub const ALPN_SYNC: &[u8] = b"holdfast/1";
/// Oldest version of [`ALPN_SYNC`]'s messages that this build speaks.
pub const VERSION_MIN: u16 = 1;
/// Newest version of [`ALPN_SYNC`]'s messages that this build speaks.
pub const VERSION_MAX: u16 = 1;
/// TLS exporter label that binds a join to its connection (RFC 5705, RFC 8446 section 7.5).
pub const EXPORTER_ENROL: &[u8] = b"EXPORTER-holdfast-enrol-v1";
/// TLS exporter label that binds a quote to its connection.
pub const EXPORTER_QUOTE: &[u8] = b"EXPORTER-holdfast-quote-v1";

//! What both nodes are configured with: `[store]`, `[audit]`, `[log]` and `[tls]`, and settings of more than one key.

use std::time::Duration;

use holdfast_actors::audit_log::journal;
use holdfast_actors::store::lmdb;
use holdfast_protocol::pki::pem;
use toml::Value;
use tracing_subscriber::EnvFilter;

use super::{Checker, Setting};

/// Requests in work at once.
const REQUESTS_MAX: u64 = 1024;
/// Connections open at once.
const CONNECTIONS_MAX: u64 = 4096;
/// A connection ends after this long, so that no client certificate is taken as proven for ever.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(3600);
/// For a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// What is logged.
const LOG_LEVEL: &str = "info";
/// A page of memory: the map is a multiple of it.
const PAGE: u64 = 4096;

/// Bounds of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Store {
    /// Writes are refused when the disk has fewer bytes left.
    pub reserve_bytes: u64,
    /// Its greatest size.
    pub map_bytes: usize,
}

/// Bounds of the read journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audit {
    /// Size of one of its files.
    pub segment_bytes: u64,
    /// Reads are refused when all its files together have grown to this.
    pub total_bytes: u64,
    /// Reads are refused when the disk has fewer bytes left.
    pub reserve_bytes: u64,
}

/// How the log is written to standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// One JSON object a line, for machines.
    pub json: bool,
    /// A level, or directives like `info,holdfast_rest=debug`.
    pub level: String,
}

/// Bounds of REST connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tls {
    /// For a handshake.
    pub handshake_timeout: Duration,
    /// A connection is closed after this long.
    pub connection_age_max: Duration,
    /// Connections at once.
    pub connections_max: usize,
    /// Those of one address.
    pub connections_per_address: usize,
    /// Requests at once.
    pub requests_max: usize,
}

impl Store {
    /// What the engine is opened with.
    pub fn settings(self) -> lmdb::Settings {
        lmdb::Settings { reserve_bytes: self.reserve_bytes, map_bytes: self.map_bytes, ..lmdb::Settings::default() }
    }

    /// Reads `[store]`.
    pub fn read(of: &Checker) -> Self {
        let usual = lmdb::Settings::default();
        let map = of.bytes("store.map", usual.map_bytes as u64);
        of.check("store.map", map > 0 && map.is_multiple_of(PAGE), "must be a multiple of 4 KiB");
        Store {
            reserve_bytes: of.bytes("store.reserve", usual.reserve_bytes),
            map_bytes: usize::try_from(map).unwrap_or(usual.map_bytes),
        }
    }
}

impl Audit {
    /// What the journal is opened with.
    pub fn limits(self) -> journal::Limits {
        let Self { segment_bytes, total_bytes, reserve_bytes } = self;
        journal::Limits { segment_bytes, total_bytes, reserve_bytes }
    }

    /// Reads `[audit]`.
    pub fn read(of: &Checker) -> Self {
        let usual = journal::Limits::default();
        let audit = Audit {
            segment_bytes: of.bytes("audit.segment", usual.segment_bytes),
            total_bytes: of.bytes("audit.total", usual.total_bytes),
            reserve_bytes: of.bytes("audit.reserve", usual.reserve_bytes),
        };
        of.check("audit.segment", (1..=audit.total_bytes).contains(&audit.segment_bytes), "must be 1 to audit.total");
        audit
    }
}

impl Log {
    /// Reads `[log]`.
    pub fn read(of: &Checker) -> Self {
        let format = of.or("log.format", "text".to_owned());
        of.check("log.format", matches!(format.as_str(), "text" | "json"), "expected \"text\" or \"json\"");
        let level = of.or("log.level", LOG_LEVEL.to_owned());
        let known = EnvFilter::builder().parse(&level).is_ok();
        of.check("log.level", known, "expected a level like \"info\", or directives like \"info,holdfast_rest=debug\"");
        Log { json: format == "json", level }
    }
}

impl Tls {
    /// Reads `[tls]`.
    pub fn read(of: &Checker) -> Self {
        let count = |key: &str, usual| {
            let count = of.or::<u64>(key, usual);
            of.check(key, count > 0, "must be more than nothing");
            usize::try_from(count).unwrap_or(usize::MAX).min(tokio::sync::Semaphore::MAX_PERMITS)
        };
        let connections_max = count("tls.connections_max", CONNECTIONS_MAX);
        Tls {
            handshake_timeout: of.duration("tls.handshake_timeout", HANDSHAKE_TIMEOUT),
            connection_age_max: of.duration("tls.connection_age_max", CONNECTION_AGE_MAX),
            connections_max,
            connections_per_address: count("tls.connections_per_address", (connections_max as u64 / 4).max(1))
                .min(connections_max),
            requests_max: count("tls.requests_max", REQUESTS_MAX),
        }
    }
}

/// SHA-256 of an operator's public key, lower-case hex.
pub struct Identity(pub String);

impl Setting for Identity {
    const EXPECTED: &'static str = "the SHA-256 of a public key, 64 hex digits";
    fn parse(value: &Value) -> Option<Self> {
        let mut hash = [0; 32];
        hex::decode_to_slice(value.as_str()?, &mut hash).ok()?;
        Some(Self(hex::encode(hash)))
    }
}

/// Reads `operator.admin_identities`.
pub fn admin_identities(of: &Checker) -> Vec<String> {
    of.or("operator.admin_identities", Vec::<Identity>::new()).into_iter().map(|identity| identity.0).collect()
}

/// A file of certificates, read: each as DER.
pub struct Certificates(pub Vec<Vec<u8>>);

impl Setting for Certificates {
    const EXPECTED: &'static str = "a readable file with certificates in PEM form";
    fn parse(value: &Value) -> Option<Self> {
        let text = std::fs::read_to_string(value.as_str()?).ok()?;
        pem::decode_certificates(&text).ok().filter(|certificates| !certificates.is_empty()).map(Self)
    }
}

/// Where central's QUIC listener is dialled.
pub struct HostAndPort(pub String);

impl Setting for HostAndPort {
    const EXPECTED: &'static str = "where hosts dial, like \"central.example:7443\"";
    fn parse(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        let (host, port) = text.rsplit_once(':')?;
        let port: u16 = port.parse().ok()?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        (port != 0 && !bare.is_empty() && !host.contains(char::is_whitespace)).then(|| Self(text.to_owned()))
    }
}

//! The agent's configuration file: read whole, checked whole, every mistake reported at once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_actors::audit_log::journal;
use holdfast_actors::store::lmdb;
use holdfast_rest::config::{Checker, ConfigErrors, Setting};
use toml::Value;
use tracing_subscriber::EnvFilter;

use crate::tpm::{Address, TpmConfig};

/// Where REST listens unless told otherwise.
const REST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4646);
/// The TPM that Linux offers to more than one program.
const TCTI: &str = "device:/dev/tpmrm0";
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

/// All that an agent is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The REST listener.
    pub rest: SocketAddr,
    /// Where central's QUIC listener is, `host:port`, instead of where the site bundle says.
    pub central: Option<String>,
    /// SHA-256 of the public keys of operators' client certificates, lower-case hex: who may seal this host.
    pub admin_identities: Vec<String>,
    /// The TPM.
    pub tpm: TpmConfig,
    /// The store.
    pub store: Store,
    /// The read journal.
    pub audit: Audit,
    /// The log.
    pub log: Log,
    /// TLS and the connections under it.
    pub tls: Tls,
}

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
    /// Requests at once.
    pub requests_max: usize,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// All mistakes, each with its key.
    pub fn read(path: &Path) -> Result<Self, ConfigErrors> {
        Self::checked(Checker::read(path)?)
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// All mistakes, each with its key.
    pub fn parse(text: &str) -> Result<Self, ConfigErrors> {
        Self::checked(Checker::parse(text)?)
    }

    fn checked(checker: Checker) -> Result<Self, ConfigErrors> {
        let of = &checker;
        let config = Self {
            data_dir: of.required("data_dir", PathBuf::new()),
            rest: of.addr("listen.rest", REST),
            central: of.optional::<HostAndPort>("central.quic").map(|address| address.0),
            admin_identities: identities(of),
            tpm: tpm(of),
            store: store(of),
            audit: audit(of),
            log: log(of),
            tls: tls(of),
        };
        checker.finish(config)
    }
}

fn identities(of: &Checker) -> Vec<String> {
    let identities = of.or("operator.admin_identities", Vec::<Identity>::new());
    identities.into_iter().map(|identity| identity.0).collect()
}

fn tpm(of: &Checker) -> TpmConfig {
    let usual = || TCTI.parse().expect("the default is an address");
    let address = of.optional::<Tcti>("tpm.tcti").map_or_else(usual, |tcti| tcti.0);
    let host_secret_index = of.or("tpm.host_secret_index", TpmConfig::HOST_SECRET_INDEX);
    let of_owner = (0x0180_0000..=0x01bf_ffff).contains(&host_secret_index);
    of.check("tpm.host_secret_index", of_owner, "must be in the owner's range, 0x01800000 to 0x01bfffff");
    TpmConfig { address, host_secret_index }
}

fn store(of: &Checker) -> Store {
    let usual = lmdb::Settings::default();
    let map = of.bytes("store.map", usual.map_bytes as u64);
    of.check("store.map", map > 0 && map.is_multiple_of(PAGE), "must be a multiple of 4 KiB");
    Store {
        reserve_bytes: of.bytes("store.reserve", usual.reserve_bytes),
        map_bytes: usize::try_from(map).unwrap_or(usual.map_bytes),
    }
}

fn audit(of: &Checker) -> Audit {
    let usual = journal::Limits::default();
    let audit = Audit {
        segment_bytes: of.bytes("audit.segment", usual.segment_bytes),
        total_bytes: of.bytes("audit.total", usual.total_bytes),
        reserve_bytes: of.bytes("audit.reserve", usual.reserve_bytes),
    };
    of.check("audit.segment", (1..=audit.total_bytes).contains(&audit.segment_bytes), "must be 1 to audit.total");
    audit
}

fn log(of: &Checker) -> Log {
    let format = of.or("log.format", "text".to_owned());
    of.check("log.format", matches!(format.as_str(), "text" | "json"), "expected \"text\" or \"json\"");
    let level = of.or("log.level", LOG_LEVEL.to_owned());
    let known = EnvFilter::builder().parse(&level).is_ok();
    of.check("log.level", known, "expected a level like \"info\", or directives like \"info,holdfast_rest=debug\"");
    Log { json: format == "json", level }
}

fn tls(of: &Checker) -> Tls {
    let count = |key: &str, usual| {
        let count = of.or::<u64>(key, usual);
        of.check(key, count > 0, "must be more than nothing");
        usize::try_from(count).unwrap_or(usize::MAX).min(tokio::sync::Semaphore::MAX_PERMITS)
    };
    Tls {
        handshake_timeout: of.duration("tls.handshake_timeout", HANDSHAKE_TIMEOUT),
        connection_age_max: of.duration("tls.connection_age_max", CONNECTION_AGE_MAX),
        connections_max: count("tls.connections_max", CONNECTIONS_MAX),
        requests_max: count("tls.requests_max", REQUESTS_MAX),
    }
}

/// Hash of an operator's public key.
struct Identity(String);
/// Where to dial.
struct HostAndPort(String);
/// Where a TPM is.
struct Tcti(Address);

impl Setting for Identity {
    const EXPECTED: &'static str = "the SHA-256 of a public key, 64 hex digits";
    fn parse(value: &Value) -> Option<Self> {
        let mut hash = [0; 32];
        hex::decode_to_slice(value.as_str()?, &mut hash).ok()?;
        Some(Self(hex::encode(hash)))
    }
}

impl Setting for HostAndPort {
    const EXPECTED: &'static str = "where central is, like \"central.example:7443\"";
    fn parse(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        let (host, port) = text.rsplit_once(':')?;
        let port: u16 = port.parse().ok()?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        (port != 0 && !bare.is_empty() && !host.contains(char::is_whitespace)).then(|| Self(text.to_owned()))
    }
}

impl Setting for Tcti {
    const EXPECTED: &'static str = "a TPM: \"device:PATH\" or \"swtpm:host=HOST,port=PORT\"";
    fn parse(value: &Value) -> Option<Self> {
        value.as_str()?.parse().ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../config.example.toml");

    #[test]
    fn the_example_is_a_configuration_with_the_defaults() {
        let example = Config::parse(EXAMPLE).unwrap();
        let least = Config::parse(&format!("data_dir = {:?}", example.data_dir)).unwrap();
        assert_eq!(example.admin_identities.len(), 1);
        let admin_identities = example.admin_identities.clone();
        assert_eq!(example, Config { admin_identities, ..least });
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let text = r#"
            [listen]
            rest = "nowhere"
            [central]
            quic = "central"
            [operator]
            admin_identities = ["beef"]
            [tpm]
            tcti = "mssim"
            host_secret_index = 5
            [store]
            map = 5
            [log]
            format = "xml"
            [tls]
            requests_max = 0
            [more]
        "#;
        let errors = Config::parse(text).unwrap_err();
        let keys: Vec<&str> = errors.0.iter().map(|error| error.key.as_str()).collect();
        let expected = [
            "central.quic",
            "data_dir",
            "listen.rest",
            "log.format",
            "more",
            "operator.admin_identities",
            "store.map",
            "tls.requests_max",
            "tpm.host_secret_index",
            "tpm.tcti",
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn what_dev_writes_is_taken() {
        let text = "data_dir = \"d\"\n[listen]\nrest = \"127.0.0.1:0\"\n[central]\nquic = \"127.0.0.1:7443\"\n\
                    [tpm]\ntcti = \"swtpm:host=127.0.0.1,port=2321\"\n[log]\nformat = \"text\"\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.central.as_deref(), Some("127.0.0.1:7443"));
        assert_eq!(config.tpm.address.to_string(), "swtpm:host=127.0.0.1,port=2321");
    }
}

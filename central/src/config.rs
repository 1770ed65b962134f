//! Central's configuration file: read whole, checked whole, every mistake reported at once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_actors::audit_log::journal;
use holdfast_actors::store::lmdb;
use holdfast_protocol::ids::TenantName;
use holdfast_protocol::pki::pem;
use holdfast_rest::config::{Checker, ConfigErrors, Name, Setting};
use toml::Value;
use tracing_subscriber::EnvFilter;

/// Where REST listens unless told otherwise.
const REST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7373);
/// Where hosts' agents connect to unless told otherwise.
const QUIC: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7443);
/// A TPM needs its time for a quote.
const QUOTE_INTERVAL_MIN: Duration = Duration::from_millis(100);
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

/// All that central is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The REST listener.
    pub rest: SocketAddr,
    /// The QUIC listener.
    pub quic: SocketAddr,
    /// SHA-256 of the public keys of operators' client certificates, lower-case hex.
    pub admin_identities: Vec<String>,
    /// DNS names for the REST certificate.
    pub names: Vec<String>,
    /// Addresses for the REST certificate.
    pub addresses: Vec<IpAddr>,
    /// Where hosts dial, as site bundles say; `None`: the QUIC listener's own address.
    pub advertise: Option<String>,
    /// Tenants that are made as soon as central is unsealed, if they are not there.
    pub tenants: Vec<TenantName>,
    /// Between two quotes of a host, at sites whose policy does not say; `None`: the registry's default.
    pub quote_interval: Option<Duration>,
    /// Certificates (DER) of the manufacturers whose endorsement keys may join sites with `ek-trust: ca`.
    pub ek_authorities: Vec<Vec<u8>>,
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
            quic: of.addr("listen.quic", QUIC),
            admin_identities: texts::<Identity>(of, "operator.admin_identities"),
            names: texts::<DnsName>(of, "names.dns"),
            addresses: of.or("names.addresses", Vec::<Address>::new()).into_iter().map(|address| address.0).collect(),
            advertise: of.optional::<HostAndPort>("names.advertise").map(|address| address.0),
            tenants: tenants(of),
            quote_interval: quote_interval(of),
            ek_authorities: of
                .or("attestation.ek_authorities", Vec::<Certificates>::new())
                .into_iter()
                .flat_map(|file| file.0)
                .collect(),
            store: store(of),
            audit: audit(of),
            log: log(of),
            tls: tls(of),
        };
        checker.finish(config)
    }
}

fn tenants(of: &Checker) -> Vec<TenantName> {
    let names = of.or("tenants", Vec::<Name>::new());
    names.into_iter().map(|Name(name)| name.parse().expect("checked to be a name")).collect()
}

fn quote_interval(of: &Checker) -> Option<Duration> {
    let interval = of.optional::<Duration>("attestation.interval");
    let long_enough = interval.is_none_or(|interval| interval >= QUOTE_INTERVAL_MIN);
    of.check("attestation.interval", long_enough, "must be 100ms or more");
    interval
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

fn texts<T: Setting + Into<String>>(of: &Checker, key: &str) -> Vec<String> {
    of.or(key, Vec::<T>::new()).into_iter().map(Into::into).collect()
}

/// Hash of an operator's public key.
struct Identity(String);
/// A name for a certificate.
struct DnsName(String);
/// An address for a certificate.
struct Address(IpAddr);
/// Where to dial.
struct HostAndPort(String);
/// A file of certificates, read.
struct Certificates(Vec<Vec<u8>>);

impl From<Identity> for String {
    fn from(identity: Identity) -> Self {
        identity.0
    }
}

impl From<DnsName> for String {
    fn from(name: DnsName) -> Self {
        name.0
    }
}

impl Setting for Identity {
    const EXPECTED: &'static str = "the SHA-256 of a public key, 64 hex digits";
    fn parse(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).ok()?;
        Some(Self(hex::encode(hash)))
    }
}

impl Setting for DnsName {
    const EXPECTED: &'static str = "a DNS name";
    fn parse(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'*');
        let is_name = !text.is_empty() && text.len() <= 253 && text.bytes().all(plain);
        is_name.then(|| Self(text.to_owned()))
    }
}

impl Setting for Address {
    const EXPECTED: &'static str = "an IP address";
    fn parse(value: &Value) -> Option<Self> {
        value.as_str()?.parse().ok().map(Self)
    }
}

impl Setting for Certificates {
    const EXPECTED: &'static str = "a readable file with certificates in PEM form";
    fn parse(value: &Value) -> Option<Self> {
        let text = std::fs::read_to_string(value.as_str()?).ok()?;
        pem::decode_certificates(&text).ok().filter(|certificates| !certificates.is_empty()).map(Self)
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../config.example.toml");

    #[test]
    fn the_example_is_a_configuration_with_the_defaults() {
        let example = Config::parse(EXAMPLE).unwrap();
        let least = Config::parse(&format!("data_dir = {:?}", example.data_dir)).unwrap();
        let admin_identities = example.admin_identities.clone();
        assert_eq!(admin_identities.len(), 1);
        let (names, addresses) = (example.names.clone(), example.addresses.clone());
        assert_eq!(
            example,
            Config { admin_identities, names, addresses, advertise: example.advertise.clone(), ..least }
        );
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let text = r#"
            [listen]
            rest = "nowhere"
            [operator]
            admin_identities = ["beef"]
            [names]
            dns = ["with blank"]
            addresses = ["1.2.3"]
            advertise = "central"
            [attestation]
            interval = "1ms"
            [store]
            map = 5
            [audit]
            segment = "1 GiB"
            total = "1 MiB"
            [log]
            format = "xml"
            level = "loud=ly"
            [tls]
            requests_max = 0
            [tls2]
        "#;
        let errors = Config::parse(text).unwrap_err();
        let keys: Vec<&str> = errors.0.iter().map(|error| error.key.as_str()).collect();
        let expected = [
            "attestation.interval",
            "audit.segment",
            "data_dir",
            "listen.rest",
            "log.format",
            "log.level",
            "names.addresses",
            "names.advertise",
            "names.dns",
            "operator.admin_identities",
            "store.map",
            "tls.requests_max",
            "tls2",
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn what_dev_writes_is_taken() {
        let text = format!(
            "data_dir = \"d\"\ntenants = [\"acme\"]\n[listen]\nrest = \"127.0.0.1:0\"\nquic = \"127.0.0.1:0\"\n\
             [operator]\nadmin_identities = [{:?}]\n[attestation]\ninterval = \"2s\"\n[log]\nformat = \"text\"\n",
            "AB".repeat(32)
        );
        let config = Config::parse(&text).unwrap();
        assert_eq!(config.admin_identities, ["ab".repeat(32)]);
        assert_eq!(config.quote_interval, Some(Duration::from_secs(2)));
        assert_eq!(config.tenants[0].as_str(), "acme");
    }
}

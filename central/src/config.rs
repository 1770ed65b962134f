//! Central's configuration file: read whole, checked whole, every mistake reported at once.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_actors::access_control::configured::Configured;
use holdfast_protocol::ids::TenantName;
use holdfast_rest::config::node::{Audit, Certificates, HostAndPort, Log, Store, Tls, admin_identities};
use holdfast_rest::config::{Checker, ConfigErrors, Name, Setting};
use holdfast_rest::kes;
use toml::Value;

/// Where REST listens unless told otherwise.
const REST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7373);
/// Where hosts' agents connect to unless told otherwise.
const QUIC: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7443);
/// A TPM needs its time for a quote.
const QUOTE_INTERVAL_MIN: Duration = Duration::from_millis(100);
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
    /// How long a host may be helped by its siblings after it was last trusted; `None`: the registry's default.
    pub unseal_permit: Option<Duration>,
    /// Certificates (DER) of the manufacturers whose endorsement keys may join sites with `ek-trust: ca`.
    pub ek_authorities: Vec<Vec<u8>>,
    /// How KES' clients are served.
    pub kes: kes::Section,
    /// Further listeners for them.
    pub kes_listeners: Vec<kes::Listener>,
    /// What all of that says of each tenant that is served.
    pub kes_tenants: BTreeMap<TenantName, Configured>,
    /// The store.
    pub store: Store,
    /// The read journal.
    pub audit: Audit,
    /// The log.
    pub log: Log,
    /// TLS and the connections under it.
    pub tls: Tls,
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
        let admin_identities = admin_identities(of);
        let rest = of.addr("listen.rest", REST);
        let kes = kes::Section::read(of, "kes", &admin_identities);
        let kes_listeners = kes::Listener::read_all(of, &[("listen.rest", rest)], &admin_identities);
        let config = Self {
            data_dir: of.required("data_dir", PathBuf::new()),
            rest,
            quic: of.addr("listen.quic", QUIC),
            kes_tenants: kes::of_tenants(of, &kes, &kes_listeners),
            kes,
            kes_listeners,
            admin_identities,
            names: of.or("names.dns", Vec::<DnsName>::new()).into_iter().map(|name| name.0).collect(),
            addresses: of.or("names.addresses", Vec::<Address>::new()).into_iter().map(|address| address.0).collect(),
            advertise: of.optional::<HostAndPort>("names.advertise").map(|address| address.0),
            tenants: tenants(of),
            quote_interval: quote_interval(of),
            unseal_permit: unseal_permit(of),
            ek_authorities: of
                .or("attestation.ek_authorities", Vec::<Certificates>::new())
                .into_iter()
                .flat_map(|file| file.0)
                .collect(),
            store: Store::read(of),
            audit: Audit::read(of),
            log: Log::read(of),
            tls: Tls::read(of),
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

fn unseal_permit(of: &Checker) -> Option<Duration> {
    let valid = of.optional::<Duration>("attestation.unseal_permit");
    let long_enough = valid.is_none_or(|valid| valid >= Duration::from_secs(1));
    of.check("attestation.unseal_permit", long_enough, "must be 1s or more");
    valid
}

/// A name for a certificate.
struct DnsName(String);
/// An address for a certificate.
struct Address(IpAddr);

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

#[cfg(test)]
mod tests {
    use holdfast_protocol::kes::Identity;

    use super::*;

    const EXAMPLE: &str = include_str!("../config.example.toml");

    #[test]
    fn the_example_is_a_configuration_with_the_defaults() {
        let example = Config::parse(EXAMPLE).unwrap();
        let mut least = Config::parse(&format!("data_dir = {:?}", example.data_dir)).unwrap();
        let admin_identities = example.admin_identities.clone();
        assert_eq!(admin_identities.len(), 1);
        // Operators are administrators of keys.
        let admins = admin_identities.iter().map(|identity| identity.parse::<Identity>().unwrap());
        least.kes.configured.admins.extend(admins);
        least.kes_tenants.insert(least.kes.tenant.clone(), least.kes.configured.clone());
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

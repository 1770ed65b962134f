//! The agent's configuration file: read whole, checked whole, every mistake reported at once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use holdfast_rest::config::node::{Audit, HostAndPort, Log, Store, Tls, admin_identities};
use holdfast_rest::config::{Checker, ConfigErrors, Setting};
use toml::Value;

use crate::tpm::{Address, TpmConfig};

/// Where REST listens unless told otherwise.
const REST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4646);
/// The TPM that Linux offers to more than one program.
const TCTI: &str = "device:/dev/tpmrm0";
/// All that an agent is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The REST listener.
    pub rest: SocketAddr,
    /// Where siblings are answered (UDP); `None`: at the address of the REST listener.
    pub siblings: Option<SocketAddr>,
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
            siblings: of.optional::<SocketAddr>("listen.siblings"),
            central: of.optional::<HostAndPort>("central.quic").map(|address| address.0),
            admin_identities: admin_identities(of),
            tpm: tpm(of),
            store: Store::read(of),
            audit: Audit::read(of),
            log: Log::read(of),
            tls: Tls::read(of),
        };
        checker.finish(config)
    }
}

fn tpm(of: &Checker) -> TpmConfig {
    let usual = || TCTI.parse().expect("the default is an address");
    let address = of.optional::<Tcti>("tpm.tcti").map_or_else(usual, |tcti| tcti.0);
    let host_secret_index = of.or("tpm.host_secret_index", TpmConfig::HOST_SECRET_INDEX);
    let of_owner = (0x0180_0000..=0x01bf_ffff).contains(&host_secret_index);
    of.check("tpm.host_secret_index", of_owner, "must be in the owner's range, 0x01800000 to 0x01bfffff");
    TpmConfig { address, host_secret_index }
}

/// Where a TPM is.
struct Tcti(Address);

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

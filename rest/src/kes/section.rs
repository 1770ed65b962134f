//! What central is told of KES in `[kes]`, and of each further listener in `[[kes.listener]]`, in the words of KES' own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_actors::access_control::configured::{Configured, ConfiguredPolicy};
use holdfast_actors::access_control::globs::Globbing;
use holdfast_actors::access_control::policies::Rules;
use holdfast_actors::access_control::serving::{ServedApi, Serving};
use holdfast_actors::access_control::tenants::SYSTEM_NAME;
use holdfast_protocol::ids::TenantName;
use holdfast_protocol::kes::{Identity, KeyName, PolicyName};
use toml::Value;

use super::api::{self, Api};
use super::profile::Profile;
use super::proxy::Proxy;
use crate::config::{Checker, Name, Setting};

/// What central is told of KES.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Of which years clients are.
    pub profile: Profile,
    /// Whose keys are served, unless a client says.
    pub tenant: TenantName,
    /// Whether a certificate that has ended is as good as another.
    pub accept_expired_certificates: bool,
    /// Who may do what there, and what keys there have to be.
    pub configured: Configured,
    /// Who may say who its client is.
    pub proxy: Option<Proxy>,
    /// Paths that are called in another way than usual.
    apis: BTreeMap<&'static str, ApiSettings>,
}

/// How a path is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ApiSettings {
    skip_auth: bool,
    timeout: Option<Duration>,
}

impl Default for Section {
    fn default() -> Self {
        Self {
            profile: Profile::default(),
            tenant: SYSTEM_NAME.parse().expect("a name"),
            accept_expired_certificates: false,
            configured: Configured::default(),
            proxy: None,
            apis: BTreeMap::new(),
        }
    }
}

/// Where the section of the main listener is.
const MAIN: &str = "kes";
/// Longest timeout of a path: the front's own comes then.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);

impl Section {
    /// Reads the one at `prefix`, such as `kes`. `operators` are administrators of its tenant's keys, too: SHA-256 of
    /// their public keys, in hex.
    pub fn read(of: &Checker, prefix: &str, operators: &[String]) -> Self {
        let at = |member: &str| format!("{prefix}.{member}");
        let profile = of.or(&at("profile"), Profile::default());
        let tenant = of.or(&at("tenant"), Name(SYSTEM_NAME.to_owned())).0.parse().expect("checked to be a name");
        let admin = of.optional::<Identity>(&at("admin_identity"));
        let operators = operators.iter().filter_map(|identity| identity.parse().ok());
        let configured = Configured {
            admins: operators.chain(admin).collect(),
            policies: policies(of, &at("policy"), profile),
            keys: of.or(&at("keys"), Vec::<KeyName>::new()).into_iter().collect(),
            serving: None,
        };
        if let Err(refusal) = configured.check() {
            of.check(&at("policy"), false, &refusal.to_string());
        }
        let accept_expired_certificates = of.or(&at("accept_expired_certificates"), false);
        let (proxy, apis) = (Proxy::read(of, &at("proxy")), apis(of, &at("api")));
        let mut section = Self { profile, tenant, accept_expired_certificates, configured, proxy, apis };
        section.configured.serving = Some(section.serving(prefix == MAIN));
        section
    }

    /// Whether anything may be called without a certificate.
    pub fn skips_any_auth(&self) -> bool {
        self.apis.values().any(|settings| settings.skip_auth)
    }

    /// What of it holds wherever its tenant's clients are served.
    fn serving(&self, is_first: bool) -> Serving {
        let served = |(path, settings): (&&'static str, &ApiSettings)| ServedApi {
            path: (*path).to_owned(),
            skip_auth: settings.skip_auth,
            timeout: settings.timeout,
        };
        Serving {
            profile: self.profile.name().to_owned(),
            is_first,
            accept_expired_certificates: self.accept_expired_certificates,
            apis: self.apis.iter().map(served).collect(),
        }
    }

    /// The same of a host, where it came from central. Of what this version does not know the usual holds.
    pub(super) fn of(serving: &Serving) -> Self {
        let settings = serving.apis.iter().filter_map(|served| {
            let api = api::ALL.iter().find(|api| api.path == served.path)?;
            Some((api.path, ApiSettings { skip_auth: served.skip_auth, timeout: served.timeout }))
        });
        Self {
            profile: Profile::named(&serving.profile).unwrap_or_default(),
            accept_expired_certificates: serving.accept_expired_certificates,
            apis: settings.collect(),
            ..Self::default()
        }
    }

    /// Whether anybody may call it.
    pub(super) fn skips_auth(&self, api: &Api) -> bool {
        self.apis.get(api.path).is_some_and(|settings| settings.skip_auth)
    }

    /// Until it is answered.
    pub(super) fn timeout(&self, api: &Api) -> Duration {
        self.apis.get(api.path).and_then(|settings| settings.timeout).unwrap_or(api.timeout)
    }
}

/// Patterns mean what they mean to clients of the profile.
fn policies(of: &Checker, prefix: &str, profile: Profile) -> BTreeMap<PolicyName, ConfiguredPolicy> {
    let globbing = match profile {
        Profile::Seed => Globbing::Segments,
        Profile::Current => Globbing::Prefixes,
    };
    let mut found = BTreeMap::new();
    for name in of.keys(prefix) {
        let at = |member: &str| format!("{prefix}.{name}.{member}");
        let list = |member: &str| of.or(&at(member), Vec::<String>::new());
        let rules = Rules { allow: list("allow"), deny: list("deny"), globbing };
        let identities: BTreeSet<Identity> = of.or(&at("identities"), Vec::new()).into_iter().collect();
        match name.parse::<PolicyName>() {
            Ok(name) => drop(found.insert(name, ConfiguredPolicy { rules, identities })),
            Err(error) => of.check(&format!("{prefix}.{name}"), false, &error.to_string()),
        }
    }
    found
}

fn apis(of: &Checker, prefix: &str) -> BTreeMap<&'static str, ApiSettings> {
    let mut found = BTreeMap::new();
    for path in of.keys(prefix) {
        let at = |member: &str| format!("{prefix}.{path}.{member}");
        let skip_auth = of.or(&at("skip_auth"), false);
        let timeout = of.optional::<Duration>(&at("timeout"));
        let in_bounds = timeout.is_none_or(|timeout| !timeout.is_zero() && timeout <= TIMEOUT_MAX);
        of.check(&at("timeout"), in_bounds, "must be between 1ms and 30s");
        let Some(api) = api::ALL.iter().find(|api| api.path.trim_end_matches('/') == path.trim_end_matches('/')) else {
            of.check(&format!("{prefix}.{path}"), false, "is no path of this API");
            continue;
        };
        let may_skip = !skip_auth || api.may_skip_auth();
        of.check(&at("skip_auth"), may_skip, "is for /v1/api, /v1/ready and /v1/status only");
        found.insert(api.path, ApiSettings { skip_auth, timeout });
    }
    found
}

impl Setting for Profile {
    const EXPECTED: &'static str = "\"seed\" or \"current\"";
    fn parse(value: &Value) -> Option<Self> {
        Self::named(value.as_str()?)
    }
}

impl Setting for Identity {
    const EXPECTED: &'static str = "the SHA-256 of a public key, 64 hexadecimal digits in lower case";
    fn parse(value: &Value) -> Option<Self> {
        value.as_str()?.parse().ok()
    }
}

impl Setting for KeyName {
    const EXPECTED: &'static str = "a name of 1 to 80 of 0-9A-Za-z_-, without - at either end, and not _ alone";
    fn parse(value: &Value) -> Option<Self> {
        value.as_str()?.parse().ok()
    }
}

//! Files that an operator writes or carries: both nodes' configuration, and site bundles.

use holdfast_central::Config as CentralConfig;
use holdfast_protocol::site_bundle::SiteBundle;
use holdfast_rest::config::ConfigErrors;
use holdfast_site_agent::Config as AgentConfig;

use crate::wire::is_sound;
use crate::{Memory, choose, chosen, corpus};

/// TOML becomes a tree, and each mistake a sentence.
pub const MEMORY: Memory = Memory { fixed: 512 << 10, each: 1024 };

/// Name files, which are read: no bytes of ours may choose which, nor spell one of these otherwise.
const READ_FILES: [&str; 2] = ["ek_authorities", "ca_file"];

/// Reads `data` as the file that its first byte says.
pub fn target(data: &[u8]) {
    let Some((which, bytes)) = choose(data) else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let names_files = text.contains('\\') || READ_FILES.iter().any(|key| text.contains(key));
    match which % 3 {
        0 | 1 if names_files => {}
        0 => central(text),
        1 => agent(text),
        _ => site_bundle(bytes),
    }
}

fn central(text: &str) {
    match CentralConfig::parse(text) {
        Ok(config) => {
            assert_eq!(CentralConfig::parse(text).ok().as_ref(), Some(&config));
            config.tenants.iter().for_each(|tenant| is_sound(tenant.as_str()));
            assert!(config.store.map_bytes > 0 && config.audit.segment_bytes <= config.audit.total_bytes);
            assert!(config.tls.requests_max > 0 && config.tls.connections_max > 0);
            assert!(config.admin_identities.iter().all(|identity| identity.len() == 64));
            clients_are_served(&config);
        }
        Err(errors) => are_told(&errors),
    }
}

/// What is taken of KES' sections can be done: each by itself, and all of a tenant together.
fn clients_are_served(config: &CentralConfig) {
    assert!(config.kes_listeners.len() <= 64);
    for section in config.kes_listeners.iter().map(|listener| &listener.section).chain([&config.kes]) {
        is_sound(section.tenant.as_str());
        let whole = config.kes_tenants.get(&section.tenant).expect("every tenant that is served is among them");
        assert!(
            whole.keys.is_superset(&section.configured.keys) && whole.admins.is_superset(&section.configured.admins)
        );
        assert!(whole.check().is_ok() && section.configured.check().is_ok());
        assert!(section.configured.policies.keys().all(|name| whole.policies.contains_key(name)));
        assert!(section.proxy.as_ref().is_none_or(|proxy| proxy.identities.len() <= 64));
    }
    for listener in &config.kes_listeners {
        let verifier = listener.verifier().expect("what was taken asks for certificates");
        assert!(
            !(verifier.client_auth_mandatory() && listener.section.skips_any_auth()),
            "nobody could call it without"
        );
    }
}

fn agent(text: &str) {
    match AgentConfig::parse(text) {
        Ok(config) => {
            assert!((0x0180_0000..=0x01bf_ffff).contains(&config.tpm.host_secret_index));
            assert_eq!(config.tpm.address.to_string().parse().ok(), Some(config.tpm.address));
        }
        Err(errors) => are_told(&errors),
    }
}

/// Every mistake names something.
fn are_told(errors: &ConfigErrors) {
    assert!(!errors.0.is_empty());
    assert!(errors.0.iter().all(|error| !error.problem.is_empty()), "{errors}");
}

fn site_bundle(bytes: &[u8]) {
    let Ok(bundle) = serde_json::from_slice::<SiteBundle>(bytes) else { return };
    is_sound(bundle.site.as_str());
    let shown = format!("{bundle:?}");
    for host in &bundle.hosts {
        is_sound(host.name.as_str());
        assert!(bundle.host(&host.name).is_some());
    }
    assert!(shown.matches("[redacted]").count() >= bundle.hosts.len(), "a token is shown");
    let written = serde_json::to_vec(&bundle).expect("a bundle can be written");
    let again: SiteBundle = serde_json::from_slice(&written).expect("what we write is read");
    assert_eq!(serde_json::to_vec(&again).expect("a bundle can be written"), written);
}

/// With all that a section can say.
const SECTION: &str = r#"[kes]
profile = "current"
tenant = "acme"
admin_identity = "a4eac2d875d60ef25b068965c4e850aac074028dc576f3699276c6ea0ae1828f"
accept_expired_certificates = true
keys = ["k1", "k_2"]
[kes.policy.app]
allow = ["/v1/key/generate/k*", "/v1/*"]
deny = ["/v1/key/delete/*"]
identities = ["0000000000000000000000000000000000000000000000000000000000000001"]
[kes.api."/v1/status"]
skip_auth = true
timeout = "1s"
[kes.api."/v1/key/create/"]
timeout = "20s"
[kes.proxy]
identities = ["0000000000000000000000000000000000000000000000000000000000000002"]
header = "X-Tls-Client-Cert"
"#;

/// Configurations with every key, some of them with a value that can't be, and the golden site bundle.
pub fn seeds() -> Vec<Vec<u8>> {
    let common = "admin_identities = []\n[store]\nmap = \"64 MiB\"\nreserve = 4096\n[audit]\nsegment = \"1 MiB\"\ntotal = \"2 GiB\"\nreserve = 1\n[log]\nformat = \"json\"\nlevel = \"info,holdfast_rest=debug\"\n[tls]\nhandshake_timeout = \"5s\"\nconnection_age_max = \"1h30m\"\nconnections_max = 10\nrequests_max = 20\n";
    let central = format!(
        "data_dir = \"/var/lib/holdfast\"\ntenants = [\"acme\", \"other\"]\n[listen]\nrest = \"127.0.0.1:0\"\nquic = \"[::1]:7443\"\n[names]\ndns = [\"central.example\"]\naddresses = [\"192.0.2.7\", \"::1\"]\nadvertise = \"central.example:7443\"\n[attestation]\ninterval = \"500ms\"\n[operator]\n{common}"
    );
    let listener = "[[kes.listener]]\naddress = \"127.0.0.1:7374\"\nprofile = \"current\"\ntenant = \"acme\"\nclient_auth = \"any\"\n[kes.listener.policy.app]\nallow = [\"/v1/*\"]\n[kes.listener.proxy]\nidentities = []\nheader = \"x-client\"\n";
    let agent = format!(
        "data_dir = \"data\"\n[listen]\nrest = \"127.0.0.1:4646\"\n[central]\nquic = \"192.0.2.1:7443\"\n[tpm]\ntcti = \"swtpm:host=127.0.0.1,port=2321\"\nhost_secret_index = 0x01800001\n[operator]\n{common}"
    );
    let mut seeds = vec![chosen(0, central.as_bytes()), chosen(1, agent.as_bytes())];
    seeds.push(chosen(0, format!("{central}{listener}{listener}").as_bytes()));
    let another = listener.replace("7374", "7375").replace("\"any\"", "\"request\"");
    for text in [SECTION.to_owned(), format!("{SECTION}{listener}"), format!("{SECTION}{listener}{another}")] {
        seeds.push(chosen(0, format!("{central}{text}").as_bytes()));
        let odd = text.replace("current", "seed").replace("/v1/*", "/v1/[").replace("1s", "31s").replace("k1", "-");
        seeds.push(chosen(0, format!("{central}{odd}").as_bytes()));
    }
    for (usual, odd) in
        [("\"64 MiB\"", "0"), ("\"64 MiB\"", "\"17592186044416 MiB\""), ("= 10", "= 0"), ("5s", "1\u{e9}")]
    {
        seeds.push(chosen(0, central.replace(usual, odd).as_bytes()));
    }
    let bundles = corpus::golden().into_iter().filter(|(name, _)| name.starts_with("site-bundle"));
    seeds.extend(bundles.map(|(_, bytes)| chosen(2, &bytes)));
    seeds
}

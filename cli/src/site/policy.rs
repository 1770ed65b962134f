//! What is said of a site when it is made or changed: its hosts, and how they are appraised.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::client::fingerprint;
use crate::failure::Failure;

/// How a host's TPM is recognised when it joins.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum EkTrust {
    /// The endorsement key has a certificate from a known manufacturer.
    Ca,
    /// Its hash was given when the host was created.
    Pinned,
    /// Whoever has the one-time token is believed.
    Token,
}

/// Hosts to come.
#[derive(Args)]
pub(crate) struct Hosts {
    /// A host: NAME, or NAME=SHA256 with the hash (hex) of its TPM's endorsement key. May be repeated.
    #[arg(long = "host", value_name = "NAME[=SHA256]", required = true)]
    hosts: Vec<String>,
}

/// A site to come.
#[derive(Args)]
pub(crate) struct Creation {
    #[command(flatten)]
    hosts: Hosts,
    /// How TPMs are recognised.
    #[arg(long, value_enum)]
    ek_trust: Option<EkTrust>,
    /// Take what each host measures at its first pass as its reference values.
    #[arg(long)]
    learn_reference_values: bool,
    /// Quarantine a host as soon as it fails its appraisal.
    #[arg(long)]
    quarantine_on_failure: bool,
    /// Let hosts come back by their siblings alone after a power cut of the whole site.
    #[arg(long)]
    allow_local_unseal: bool,
    #[command(flatten)]
    appraisal: Appraisal,
}

/// What is to be different about a site.
#[derive(Args)]
pub(crate) struct Change {
    /// Whether what each host measures at its first pass becomes its reference values.
    #[arg(long, value_name = "BOOL")]
    learn_reference_values: Option<bool>,
    /// Whether a host is quarantined as soon as it fails its appraisal.
    #[arg(long, value_name = "BOOL")]
    quarantine_on_failure: Option<bool>,
    /// Whether values that were accepted before this change are accepted too.
    #[arg(long, value_name = "BOOL")]
    accept_earlier_values: Option<bool>,
    /// Whether hosts may come back by their siblings alone after a power cut of the whole site.
    #[arg(long, value_name = "BOOL")]
    allow_local_unseal: Option<bool>,
    #[command(flatten)]
    appraisal: Appraisal,
}

/// What is quoted, how often, and what it is to be.
#[derive(Args)]
pub(crate) struct Appraisal {
    /// Registers that are quoted, such as 0,2,4,7.
    #[arg(long, value_name = "PCR,..", value_delimiter = ',')]
    pcrs: Vec<u8>,
    /// Time between two quotes, such as 30s.
    #[arg(long, value_name = "DURATION")]
    quote_interval: Option<String>,
    /// A register, and a value that it may have (SHA-256, hex). May be repeated. In a change the values of a register
    /// replace those there are; PCR= takes them away.
    #[arg(long = "reference-value", value_name = "PCR=SHA256", value_parser = reference_value)]
    reference_values: Vec<(u8, Option<String>)>,
}

impl Hosts {
    /// As requests list them.
    pub(super) fn listed(&self) -> Result<Vec<Value>, Failure> {
        let one = |host: &String| match host.split_once('=') {
            None => Ok(json!({"name": host})),
            Some((name, hash)) => match fingerprint(hash) {
                Ok(_) => Ok(json!({"name": name, "ek-sha256": hash})),
                Err(error) => Err(Failure::usage(format!("--host {name}: {error}"))),
            },
        };
        self.hosts.iter().map(one).collect()
    }
}

impl Creation {
    /// As the body of a request.
    pub(super) fn body(&self, site: &str) -> Result<Value, Failure> {
        let mut body = self.appraisal.members();
        body.insert("name".to_owned(), json!(site));
        body.insert("hosts".to_owned(), json!(self.hosts.listed()?));
        body.insert("learn-reference-values".to_owned(), json!(self.learn_reference_values));
        for (member, flag) in
            [("quarantine-on-failure", self.quarantine_on_failure), ("allow-local-unseal", self.allow_local_unseal)]
        {
            if flag {
                body.insert(member.to_owned(), json!(true));
            }
        }
        if let Some(trust) = self.ek_trust.as_ref().and_then(EkTrust::to_possible_value) {
            body.insert("ek-trust".to_owned(), json!(trust.get_name()));
        }
        Ok(Value::Object(body))
    }
}

impl Change {
    /// As the body of a request.
    pub(super) fn body(&self) -> Result<Value, Failure> {
        let mut body = self.appraisal.members();
        for (member, flag) in [
            ("learn-reference-values", self.learn_reference_values),
            ("quarantine-on-failure", self.quarantine_on_failure),
            ("accept-earlier-values", self.accept_earlier_values),
            ("allow-local-unseal", self.allow_local_unseal),
        ] {
            if let Some(flag) = flag {
                body.insert(member.to_owned(), json!(flag));
            }
        }
        if body.is_empty() { Err(Failure::usage("nothing to change was named")) } else { Ok(Value::Object(body)) }
    }
}

impl Appraisal {
    fn members(&self) -> Map<String, Value> {
        let mut values = BTreeMap::<String, Vec<&String>>::new();
        for (pcr, value) in &self.reference_values {
            values.entry(pcr.to_string()).or_default().extend(value);
        }
        let said = [
            ("pcrs", (!self.pcrs.is_empty()).then(|| json!(self.pcrs))),
            ("quote-interval", self.quote_interval.as_ref().map(|text| json!(text))),
            ("reference-values", (!values.is_empty()).then(|| json!(values))),
        ];
        said.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

fn reference_value(text: &str) -> Result<(u8, Option<String>), String> {
    let wrong = || "a register and a value: PCR=SHA256, or PCR= for none".to_owned();
    let (pcr, value) = text.split_once('=').ok_or_else(wrong)?;
    let pcr = pcr.parse().map_err(|_| wrong())?;
    match value {
        "" => Ok((pcr, None)),
        hash => fingerprint(hash).map(|_| (pcr, Some(hash.to_owned()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appraisal() -> Appraisal {
        Appraisal { pcrs: Vec::new(), quote_interval: None, reference_values: Vec::new() }
    }

    #[test]
    fn creation_names_hosts_and_hashes() {
        let hash = "ab".repeat(32);
        let creation = |hosts: Vec<String>| Creation {
            hosts: Hosts { hosts },
            ek_trust: Some(EkTrust::Pinned),
            learn_reference_values: false,
            quarantine_on_failure: false,
            allow_local_unseal: false,
            appraisal: appraisal(),
        };
        let body = creation(vec!["udc1-001".to_owned(), format!("udc1-002={hash}")]).body("udc1").unwrap();
        assert_eq!(
            body,
            json!({"name": "udc1", "ek-trust": "pinned", "learn-reference-values": false,
                "hosts": [{"name": "udc1-001"}, {"name": "udc1-002", "ek-sha256": hash}]})
        );
        assert!(creation(vec!["a=zz".to_owned()]).body("udc1").is_err());
    }

    #[test]
    fn a_change_says_only_what_was_named() {
        let hash = "cd".repeat(32);
        let nothing = || Change {
            learn_reference_values: None,
            quarantine_on_failure: None,
            accept_earlier_values: None,
            allow_local_unseal: None,
            appraisal: appraisal(),
        };
        assert!(nothing().body().is_err());
        let values = [reference_value(&format!("4={hash}")).unwrap(), reference_value("7=").unwrap()];
        let change = Change {
            accept_earlier_values: Some(true),
            appraisal: Appraisal { pcrs: vec![4, 7], reference_values: values.to_vec(), ..appraisal() },
            ..nothing()
        };
        assert_eq!(
            change.body().unwrap(),
            json!({"accept-earlier-values": true, "pcrs": [4, 7], "reference-values": {"4": [hash], "7": []}})
        );
        assert!(reference_value("4=beef").is_err() && reference_value("x=").is_err());
    }
}

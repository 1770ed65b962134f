//! The site bundle: what an operator carries from central to a new site, as JSON. It holds one-time tokens, so it is a
//! secret until every host has joined.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use zeroize::Zeroizing;

use crate::ids::{DeploymentId, HostName, SiteName};
use crate::secret::Secret;

/// Longest text of a bundle that is read.
pub const SITE_BUNDLE_BYTES_MAX: usize = 256 << 10;

/// A site bundle.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SiteBundle {
    /// Version of this format.
    pub format: Format,
    /// The deployment, in hexadecimal.
    #[serde(with = "deployment_hex")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub deployment: DeploymentId,
    /// Where central's QUIC listener is, `host:port`, in the order to be tried.
    pub central: Vec<String>,
    /// The deployment's root certificate, PEM: what hosts know central by.
    pub root_ca: String,
    /// The site.
    pub site: SiteName,
    /// Its hosts that may join with this bundle.
    pub hosts: Vec<Invited>,
}

impl SiteBundle {
    /// What it says of one host.
    pub fn host(&self, name: &HostName) -> Option<&Invited> {
        self.hosts.iter().find(|host| host.name == *name)
    }
}

/// One host of a bundle.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Invited {
    /// The host.
    pub name: HostName,
    /// Its one-time token.
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "password")))]
    pub token: JoinToken,
    /// Until when (RFC 3339). For people: central decides by its own clock.
    pub expires: String,
    /// SHA-256 of the endorsement key's TPMT_PUBLIC in hexadecimal, where the operator gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ek_sha256: Option<String>,
}

/// Version 1, the only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "u32", into = "u32")]
pub enum Format {
    /// The first.
    V1,
}

impl From<Format> for u32 {
    fn from(Format::V1: Format) -> u32 {
        1
    }
}

impl TryFrom<u32> for Format {
    type Error = UnknownFormat;
    fn try_from(format: u32) -> Result<Self, UnknownFormat> {
        if format == 1 { Ok(Self::V1) } else { Err(UnknownFormat(format)) }
    }
}

/// A bundle from a later central.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("site bundle format {0} is not known")]
pub struct UnknownFormat(pub u32);

/// A one-time token; base64 in JSON, never shown otherwise. Bundles are the one thing it is written into in clear:
/// they exist to carry it.
pub struct JoinToken(pub Secret<32>);

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for JoinToken {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&Zeroizing::new(STANDARD.encode(self.0.expose())))
    }
}

impl<'de> Deserialize<'de> for JoinToken {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(from)?);
        let bytes = STANDARD.decode(text.as_bytes()).map(Zeroizing::new).ok();
        let token = bytes.and_then(|bytes| Secret::from_slice(&bytes));
        token.map(Self).ok_or_else(|| D::Error::custom("a token is 32 bytes in base64"))
    }
}

mod deployment_hex {
    use super::{DeploymentId, Deserialize, Deserializer, Error, Serializer};

    pub(super) fn serialize<S: Serializer>(id: &DeploymentId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DeploymentId, D::Error> {
        let mut id = [0; 16];
        hex::decode_to_slice(String::deserialize(from)?, &mut id).map_err(D::Error::custom)?;
        Ok(DeploymentId(id))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn bundle() -> Value {
        json!({
            "format": 1,
            "deployment": "07".repeat(16),
            "central": ["central.example:7443"],
            "root-ca": "-----BEGIN CERTIFICATE-----\n",
            "site": "udc1",
            "hosts": [
                {"name": "udc1-001", "token": STANDARD.encode([0xA7; 32]), "expires": "2026-01-01T00:00:00Z"},
                {"name": "udc1-002", "token": STANDARD.encode([0xA8; 32]), "expires": "2026-01-01T00:00:00Z",
                 "ek-sha256": "ab".repeat(32)},
            ],
        })
    }

    #[test]
    fn a_bundle_reads_as_it_was_written() {
        let parsed: SiteBundle = serde_json::from_value(bundle()).unwrap();
        assert_eq!(serde_json::to_value(&parsed).unwrap(), bundle());
        let host = parsed.host(&"udc1-001".parse().unwrap()).unwrap();
        assert_eq!(host.token.0.expose(), &[0xA7; 32]);
        assert!(parsed.host(&"udc1-003".parse().unwrap()).is_none());
    }

    #[test]
    fn debug_shows_no_token() {
        let parsed: SiteBundle = serde_json::from_value(bundle()).unwrap();
        let shown = format!("{parsed:?}");
        assert!(shown.contains("[redacted]"));
        assert!(!shown.contains("167") && !shown.contains(&STANDARD.encode([0xA7; 32])), "{shown}");
    }

    #[test]
    fn what_is_no_bundle_is_refused() {
        for (member, value) in [
            ("format", json!(2)),
            ("deployment", json!("07")),
            ("site", json!("UDC1")),
            ("hosts", json!([{"name": "a", "token": "AAAA", "expires": ""}])),
            ("more", json!(1)),
        ] {
            let mut changed = bundle();
            changed[member] = value;
            assert!(serde_json::from_value::<SiteBundle>(changed).is_err(), "{member}");
        }
    }
}

//! Names and counters as types: a value of one of these has been checked, and two kinds can't be mixed up.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::NAME_BYTES_MAX;

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("a name has at most {NAME_BYTES_MAX} characters")]
    TooLong,
    /// Breaks the pattern `^[a-z0-9]([a-z0-9\-]*[a-z0-9])?$`.
    #[error("a name is made of a-z, 0-9 and inner hyphens")]
    Pattern,
}

/// The pattern, as others write it.
#[cfg(feature = "schema")]
const NAME_PATTERN: &str = "^[a-z0-9]([a-z0-9\\-]*[a-z0-9])?$";

/// Checks the pattern that Strongbox gives for every name of its own: `^[a-z0-9]([a-z0-9\-]*[a-z0-9])?$`.
fn check_name(text: &str) -> Result<(), NameError> {
    if text.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong);
    }
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    let inner = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    if inner && edge(bytes.first()) && edge(bytes.last()) { Ok(()) } else { Err(NameError::Pattern) }
}

/// A type for texts that are checked when they are made: `$check` says whether one may be.
macro_rules! checked_text {
    ($(#[$doc:meta])* $type:ident, $error:ty, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The checked text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = $error;
            fn try_from(text: String) -> Result<Self, $error> {
                $check(&text).map(|()| Self(text))
            }
        }

        impl FromStr for $type {
            type Err = $error;
            fn from_str(text: &str) -> Result<Self, $error> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
pub(crate) use checked_text;

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        checked_text!($(#[$doc])* $type, NameError, check_name);

        /// One schema for all kinds of names: outside of this program they are texts of one form.
        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                "Name".into()
            }
            fn schema_id() -> std::borrow::Cow<'static, str> {
                "holdfast::Name".into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": NAME_PATTERN, "maxLength": NAME_BYTES_MAX })
            }
        }
    };
}

name!(
    /// The owner of secrets.
    TenantName
);
name!(
    /// A location with one or more hosts.
    SiteName
);
name!(
    /// One machine at a site, with one agent.
    HostName
);
name!(
    /// A vault, a secret in one, or a role of programs.
    ItemName
);

macro_rules! counter {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $type(pub u64);

        impl $type {
            /// The next value. Counters are 64 bits wide; running out is a bug, not a state.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("a 64-bit counter does not run out"))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), self.0)
            }
        }
    };
}

counter!(
    /// Position in one store; each committed transaction has the next.
    Revision
);
counter!(
    /// Content position of one (tenant, site).
    Seq
);
counter!(
    /// Incarnation of central.
    Term
);
counter!(
    /// Generation of the distribution key of one (tenant, site).
    DistEpoch
);
counter!(
    /// Generation of a site's seal key.
    SealEpoch
);
counter!(
    /// Generation of one host's identity; a re-enrolment has the next.
    HostGeneration
);
counter!(
    /// How many QUIC client certificates one host had been given with this one, over all generations of its identity.
    CertificateNumber
);
counter!(
    /// Generation of one site's certificates for one use; those of an earlier one are to be replaced.
    CertificateGeneration
);
counter!(
    /// Order of the standings of one site or host; a notice is lifted only by a higher one.
    StandingGeneration
);
counter!(
    /// Version of a site's attestation policy.
    PolicyVersion
);

/// One deployment: central and everything enrolled with it. Random, made at initialisation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeploymentId(pub [u8; 16]);

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key space in one node's store, with a key of its own. 0 is the node's own; the others are tenants (at central)
/// or copies of a tenant's content (at a site host).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Realm(pub u32);

impl Realm {
    /// The node's own realm: tenants, sites, hosts, authorities.
    pub const NODE: Self = Self(0);
}

/// A host's full address.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostId {
    /// The site it stands at.
    pub site: SiteName,
    /// Its name there; names are unique per site.
    pub host: HostName,
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.site, self.host)
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_pattern() {
        for good in ["a", "0", "udc1", "udc1-001", "a--b"] {
            assert!(good.parse::<SiteName>().is_ok(), "{good}");
        }
        for bad in ["", "-", "a-", "-a", "A", "a.b", "a/b", "ä", "a b", &"a".repeat(NAME_BYTES_MAX + 1)] {
            assert!(bad.parse::<SiteName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_is_checked_when_decoded() {
        assert!(serde_json::from_str::<HostName>("\"udc1-001\"").is_ok());
        assert!(serde_json::from_str::<HostName>("\"../x\"").is_err());
    }
}

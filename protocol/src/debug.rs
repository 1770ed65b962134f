//! Dumps for finding out what ails a host, encrypted so that whoever stands before it may carry one away: only the debug
//! key, which central shows to an administrator, opens it. Bytes are settled in docs/adr/0016-debug-dumps.md.
//!
//! A dump proves nothing about who made it: anybody who has seen one host's permit can make another for the same key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::codec::{self, length_prefixed};
use crate::crypto::hash::hkdf;
use crate::crypto::kem::{self, KemSecret, NotForUs};
use crate::ids::{DeploymentId, HostId};
use crate::secret::{Secret, SecretBytes};

const DOMAIN: &[u8] = b"holdfast/debug-dump/v1";
const KEY_LABEL: &str = "holdfast/debug-key/v1";
/// What a debug key begins with as text.
const KEY_PREFIX: &str = "key:";
/// First byte of a dump.
const FORMAT: u8 = 1;
/// Longest dump, in bytes.
pub const DUMP_BYTES_MAX: usize = 256 << 10;

/// The key that opens a host's dumps. It comes from a secret of central's alone (`seed`), and is another for a host that
/// is made anew under the same name.
pub struct DebugKey(Secret<32>);

/// No debug key, or none that was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DebugError {
    /// Not `key:` and base64 of 32 bytes.
    #[error("a debug key reads key:BASE64, of 32 bytes")]
    Key,
    /// Not base64 of a dump.
    #[error("this is no debug dump")]
    Dump,
}

impl DebugKey {
    /// The key of this host.
    pub fn derive(seed: &Secret<32>, deployment: DeploymentId, host: &HostId, agent_id: &str) -> Self {
        let (site, name) = (host.site.as_str().as_bytes(), host.host.as_str().as_bytes());
        let context = length_prefixed(&[&deployment.0, site, name, agent_id.as_bytes()]);
        Self(hkdf(seed.expose(), KEY_LABEL, &context))
    }

    /// Its public half, which the host is given.
    pub fn public(&self) -> [u8; 32] {
        *KemSecret::from_seed(&self.0).public()
    }

    /// `key:BASE64`; erased when dropped.
    pub fn expose_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(KEY_PREFIX.len() + 44));
        text.push_str(KEY_PREFIX);
        STANDARD.encode_string(self.0.expose(), &mut text);
        text
    }

    /// Reads what [`DebugKey::expose_text`] wrote.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, DebugError> {
        let text = text.trim().strip_prefix(KEY_PREFIX).ok_or(DebugError::Key)?;
        let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| DebugError::Key)?);
        Secret::from_slice(&bytes).map(Self).ok_or(DebugError::Key)
    }
}

/// What a host hands out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebugDump {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The host.
    pub host: HostId,
    /// Its word about itself (JSON), to its debug key.
    pub message: kem::Message,
}

impl DebugDump {
    /// Encrypts to the public half of a debug key; `seed` is 32 fresh random bytes.
    ///
    /// # Errors
    /// That is no key to encrypt to.
    pub fn seal(
        to: &[u8; 32],
        deployment: DeploymentId,
        host: HostId,
        plain: &[u8],
        seed: &Secret<32>,
    ) -> Result<Self, NotForUs> {
        let message = kem::seal(to, &info(deployment, &host), b"", plain, seed)?;
        Ok(Self { deployment, host, message })
    }

    /// What the host said.
    ///
    /// # Errors
    /// The key is another's, or a bit of the dump was changed.
    pub fn open(&self, key: &DebugKey) -> Result<SecretBytes, NotForUs> {
        KemSecret::from_seed(&key.0).open(&info(self.deployment, &self.host), b"", &self.message)
    }

    /// Base64, as it is carried.
    pub fn to_text(&self) -> String {
        let bytes = [&[FORMAT], codec::encode(self).as_slice()].concat();
        STANDARD.encode(bytes)
    }

    /// Reads what [`DebugDump::to_text`] wrote.
    ///
    /// # Errors
    /// It is no dump.
    pub fn from_text(text: &str) -> Result<Self, DebugError> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| DebugError::Dump)?;
        match bytes.split_first() {
            Some((&FORMAT, bytes)) => codec::decode(bytes, DUMP_BYTES_MAX).map_err(|_| DebugError::Dump),
            _ => Err(DebugError::Dump),
        }
    }
}

fn info(deployment: DeploymentId, host: &HostId) -> Vec<u8> {
    let (site, name) = (host.site.as_str().as_bytes(), host.host.as_str().as_bytes());
    length_prefixed(&[DOMAIN, &deployment.0, site, name])
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPLOYMENT: DeploymentId = DeploymentId([7; 16]);

    fn secret(byte: u8) -> Secret<32> {
        Secret::fill_with(|into| into.fill(byte))
    }

    fn host(name: &str) -> HostId {
        HostId { site: "udc1".parse().unwrap(), host: name.parse().unwrap() }
    }

    fn key(name: &str, agent: &str) -> DebugKey {
        DebugKey::derive(&secret(1), DEPLOYMENT, &host(name), agent)
    }

    #[test]
    fn a_dump_opens_with_its_hosts_key_and_with_no_other() {
        let own = key("a", "agent");
        let dump = DebugDump::seal(&own.public(), DEPLOYMENT, host("a"), b"{}", &secret(2)).unwrap();
        let read = DebugDump::from_text(&format!("{}\n", dump.to_text())).unwrap();
        let carried = DebugKey::parse(&own.expose_text()).unwrap();
        assert_eq!(read.open(&carried).unwrap().expose(), b"{}");
        for other in [key("b", "agent"), key("a", "another agent"), DebugKey(secret(1))] {
            assert_eq!(read.open(&other).unwrap_err(), NotForUs);
        }
        for bent in [
            DebugDump { host: host("b"), ..read.clone() },
            DebugDump { deployment: DeploymentId([8; 16]), ..read.clone() },
        ] {
            assert_eq!(bent.open(&own).unwrap_err(), NotForUs);
        }
    }

    #[test]
    fn keys_and_dumps_are_read_as_they_are_written_and_nothing_else_is() {
        let text = key("a", "agent").expose_text();
        assert_eq!(text.len(), 48);
        for bad in ["", "key:", "key:AAAA", text.strip_prefix("key:").unwrap(), &format!("{}A", &*text)] {
            assert!(DebugKey::parse(bad).is_err(), "{bad}");
        }
        let dump = DebugDump::seal(&key("a", "b").public(), DEPLOYMENT, host("a"), b"{}", &secret(2)).unwrap();
        let bytes = STANDARD.decode(dump.to_text()).unwrap();
        let other = [&[2], &bytes[1..]].concat();
        for bad in [&bytes[..bytes.len() - 1], &[bytes.as_slice(), &[0]].concat(), &other, &[]] {
            assert_eq!(DebugDump::from_text(&STANDARD.encode(bad)), Err(DebugError::Dump));
        }
        assert_eq!(DebugDump::from_text("no base64"), Err(DebugError::Dump));
    }
}

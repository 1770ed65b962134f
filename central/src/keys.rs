//! What central needs while it is sealed: its REST key with a certificate chain, as two files. And the bootstrap
//! secret, which is only ever in memory.
//!
//! The first start certifies the key by itself, to be trusted by the fingerprint that is printed. Initialisation has the
//! same key certified by the deployment's API CA.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use holdfast_actors::ports::{Entropy, Now, draw, draw_secret};
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::pki::issue::first_start_rest;
use holdfast_protocol::pki::{PkiError, Serial, Terms, Validity, pem, read};
use holdfast_protocol::secret::{Secret, SecretBytes};
use holdfast_rest::files;

use crate::config::Config;

/// The REST server's key, PKCS #8 in PEM, mode 0600.
pub const KEY_FILE: &str = "rest.key";
/// Its certificate chain, PEM, the leaf first.
pub const CHAIN_FILE: &str = "rest.crt";
/// A certificate is renewed when it has less left than this: a third of its time.
const RENEW_BEFORE_S: i64 = 30 * 86_400;

/// The key files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file can't be read or written.
    #[error("{}: {}", .0.display(), .1)]
    Io(PathBuf, #[source] io::Error),
    /// Not what this program writes.
    #[error("{}: {}", .0.display(), .1)]
    Malformed(PathBuf, #[source] PkiError),
    /// The certificate is another key's.
    #[error("{} does not belong to {}", .0.display(), .1.display())]
    Mismatch(PathBuf, PathBuf),
    /// A name of the configuration can't be certified.
    #[error("can't certify the REST key: {0}")]
    Certify(#[from] PkiError),
}

/// Central's REST key and the certificates it shows.
#[derive(Debug)]
pub struct RestKey {
    folder: PathBuf,
    key: SigningKey,
    chain: Vec<Vec<u8>>,
}

impl RestKey {
    /// Reads the files, or makes them at the first start. A key without certificate is certified by itself again, for a
    /// crash may have come between the two.
    ///
    /// # Errors
    /// The files can't be used.
    pub fn load(config: &Config, entropy: &dyn Entropy, now: Now) -> Result<Self, KeyError> {
        let folder = config.data_dir.clone();
        let (key_file, chain_file) = (folder.join(KEY_FILE), folder.join(CHAIN_FILE));
        let key = match fs::read_to_string(&key_file) {
            Ok(text) => {
                let text = zeroize::Zeroizing::new(text);
                pem::decode_private_key(&text).map_err(|error| KeyError::Malformed(key_file.clone(), error))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = SigningKey::from_seed(&draw_secret(entropy));
                replace(&key_file, pem::private_key(&key).as_bytes(), 0o600)?;
                key
            }
            Err(error) => return Err(KeyError::Io(key_file, error)),
        };
        let chain = match fs::read_to_string(&chain_file) {
            Ok(text) => {
                pem::decode_certificates(&text).map_err(|error| KeyError::Malformed(chain_file.clone(), error))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let terms = Terms { serial: Serial(draw(entropy)), validity: Validity::of_authority(now.wall_s()) };
                let chain = vec![first_start_rest(&key, &config.names, &config.addresses, &terms)?];
                replace(&chain_file, pem::certificates(&chain).as_bytes(), 0o644)?;
                chain
            }
            Err(error) => return Err(KeyError::Io(chain_file, error)),
        };
        if read::public_key_of(&chain[0]).ok().as_ref() != Some(key.public()) {
            return Err(KeyError::Mismatch(chain_file, key_file));
        }
        Ok(Self { folder, key, chain })
    }

    /// The key.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The chain shown at start, the leaf first, DER.
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// SHA-256 of the certificate shown at start, hex: what an operator compares.
    pub fn fingerprint(&self) -> String {
        hex::encode(read::fingerprint(&self.chain[0]))
    }

    /// Keeps another chain for the same key.
    ///
    /// # Errors
    /// The file can't be written; the old one stays.
    pub fn keep(&self, chain: &[Vec<u8>]) -> Result<(), KeyError> {
        replace(&self.folder.join(CHAIN_FILE), pem::certificates(chain).as_bytes(), 0o644)
    }
}

/// Whether `leaf` should be replaced by one that `authority` issues: it is another's, has not much time left, or lacks
/// a name of the configuration.
pub fn is_due(leaf: &[u8], authority: &[u8], config: &Config, now: Now) -> bool {
    let ends = read::not_after(leaf).unwrap_or(i64::MIN);
    let named = read::server_names(leaf).unwrap_or_default();
    let wanted = config.names.iter().cloned().chain(config.addresses.iter().map(ToString::to_string));
    read::issued_by(leaf, authority).is_err()
        || ends.saturating_sub(now.wall_s()) < RENEW_BEFORE_S
        || wanted.into_iter().any(|name| !named.contains(&name))
}

/// The secret that lets a stranger initialise a central that nobody has initialised: new at each start.
pub struct BootstrapSecret(Secret<32>);

impl BootstrapSecret {
    /// Draws one.
    pub fn draw(entropy: &dyn Entropy) -> Self {
        Self(draw_secret(entropy))
    }

    /// For printing it once.
    pub fn reveal(&self) -> zeroize::Zeroizing<String> {
        zeroize::Zeroizing::new(hex::encode(self.0.expose()))
    }

    /// For comparing it.
    pub fn to_bytes(&self) -> SecretBytes {
        SecretBytes::new(self.reveal().as_bytes().to_vec())
    }
}

/// Writes a file whole or not at all, and durably.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeyError> {
    files::replace(path, bytes, mode).map_err(|error| KeyError::Io(path.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use holdfast_actors::ports::Clock;
    use holdfast_actors::shell::{OsClock, OsEntropy};

    use super::*;

    fn config(folder: &Path) -> Config {
        Config::parse(&format!("data_dir = {:?}\n[names]\ndns = [\"central.example\"]", folder)).unwrap()
    }

    fn load(folder: &Path) -> Result<RestKey, KeyError> {
        RestKey::load(&config(folder), &OsEntropy, OsClock::start().now())
    }

    #[test]
    fn the_key_is_made_once_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = load(folder.path()).unwrap();
        let again = load(folder.path()).unwrap();
        assert_eq!(first.key().public(), again.key().public());
        assert_eq!(first.chain(), again.chain());
        let mode = fs::metadata(folder.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_lost_certificate_is_made_again_and_a_foreign_one_refused() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = load(folder.path()).unwrap();
        fs::remove_file(folder.path().join(CHAIN_FILE)).unwrap();
        assert_eq!(load(folder.path()).unwrap().key().public(), first.key().public());
        load(other.path()).unwrap();
        fs::copy(other.path().join(CHAIN_FILE), folder.path().join(CHAIN_FILE)).unwrap();
        assert!(matches!(load(folder.path()), Err(KeyError::Mismatch(..))));
        fs::write(folder.path().join(KEY_FILE), "nothing").unwrap();
        assert!(matches!(load(folder.path()), Err(KeyError::Malformed(..))));
    }

    #[test]
    fn every_bootstrap_secret_is_another() {
        let (one, other) = (BootstrapSecret::draw(&OsEntropy), BootstrapSecret::draw(&OsEntropy));
        assert!(one.to_bytes().ct_eq(one.reveal().as_bytes()));
        assert!(!one.to_bytes().ct_eq(other.reveal().as_bytes()));
    }
}

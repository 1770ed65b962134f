//! The administrator of a dev deployment: a self-signed client certificate and a password.

use std::path::Path;

use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::pki::issue::{Terms, Validity, operator_client};
use holdfast_protocol::pki::pem;
use holdfast_protocol::secret::Secret;

use crate::client::spki_sha256;
use crate::entropy::{random, serial};
use crate::failure::Failure;
use crate::files::replace;

/// 9999-12-31T23:59:59Z, which X.509 reads as "no end" (RFC 5280, section 4.1.2.5). The certificate is known by the
/// hash of its key, so its dates say nothing.
const NO_END: i64 = 253_402_300_799;

/// Makes `admin.key` and `admin.crt` unless both exist; gives the SHA-256 (hex) of the public key.
pub(super) fn identity(dir: &Path) -> Result<String, Failure> {
    let (key_file, cert_file) = (dir.join("admin.key"), dir.join("admin.crt"));
    if !(key_file.exists() && cert_file.exists()) {
        let key = SigningKey::from_seed(&random()?);
        let terms = Terms { serial: serial()?, validity: Validity { not_before: 0, not_after: NO_END } };
        let certificate = operator_client(&key, "admin", &terms)
            .map_err(|error| Failure::unfit(format!("making {}: {error}", cert_file.display())))?;
        replace(&key_file, pem::private_key(&key).as_bytes(), 0o600)?;
        replace(&cert_file, pem::certificates(&[certificate]).as_bytes(), 0o644)?;
    }
    Ok(hex::encode(spki_sha256(&cert_file)?))
}

/// A password of 192 random bits.
pub(super) fn password() -> Result<String, Failure> {
    Ok(hex::encode(Secret::<24>::expose(&random()?)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::client::{Client, Identity, Trust};

    #[test]
    fn the_identity_is_made_once_and_serves_tls() {
        let folder = tempfile::tempdir().unwrap();
        let first = identity(folder.path()).unwrap();
        assert_eq!(first.len(), 64);
        assert_eq!(identity(folder.path()).unwrap(), first);
        let (cert, key) = (folder.path().join("admin.crt"), folder.path().join("admin.key"));
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let identity = Identity { cert, key };
        assert!(Client::new("https://127.0.0.1:1", &Trust::Pin([0; 32]), Some(&identity)).is_ok());
    }

    #[test]
    fn passwords_differ() {
        assert_ne!(password().unwrap(), password().unwrap());
    }
}

//! Passwords: argon2id, 19 MiB, two passes. Some 20 ms and 19 MiB each: to be run off the event loop, a bounded number
//! at a time.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};

/// Longest password. Longer ones are refused, not cut.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// A hash that no password has, with the parameters of [`hash`]: what an unknown user's password is verified against,
/// so that it takes as long.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Hashes a password, with a fresh random salt, to a PHC string. `None`: it is empty or too long.
pub fn hash(password: &[u8], salt: &[u8; 16]) -> Option<String> {
    if password.is_empty() || PASSWORD_BYTES_MAX < password.len() {
        return None;
    }
    let hashed: PasswordHash = Argon2::default().hash_password_with_salt(password, salt).ok()?;
    Some(hashed.to_string())
}

/// Whether `password` is the one behind `stored`, a PHC string. With `None` (no such user) it is not, and finding out
/// takes as long.
pub fn verify(password: &[u8], stored: Option<&str>) -> bool {
    let password = if PASSWORD_BYTES_MAX < password.len() { b"" } else { password };
    let matches = |text: &str| {
        PasswordHash::new(text).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
    };
    match stored {
        Some(text) => matches(text),
        None => {
            let _ = matches(NOBODY);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_verifies() {
        let stored = hash(b"correct horse", &[7; 16]).unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(verify(b"correct horse", Some(&stored)));
        assert!(!verify(b"correct hors", Some(&stored)));
        assert!(!verify(b"", Some(&stored)));
        assert!(!verify(b"correct horse", None));
        assert!(!verify(b"correct horse", Some("not a hash")));
    }

    #[test]
    fn the_hash_of_nobody_costs_what_a_real_one_costs() {
        let nobody = PasswordHash::new(NOBODY).unwrap();
        let real = hash(b"x", &[0; 16]).unwrap();
        let real = PasswordHash::new(&real).unwrap();
        assert_eq!(nobody.params, real.params);
        assert_eq!(nobody.hash.map(|hash| hash.len()), real.hash.map(|hash| hash.len()));
    }

    #[test]
    fn a_password_is_neither_empty_nor_endless() {
        assert!(hash(b"", &[0; 16]).is_none());
        assert!(hash(&[b'a'; PASSWORD_BYTES_MAX + 1], &[0; 16]).is_none());
        let stored = hash(&[b'a'; PASSWORD_BYTES_MAX], &[0; 16]).unwrap();
        assert!(!verify(&[b'a'; PASSWORD_BYTES_MAX + 1], Some(&stored)));
    }
}

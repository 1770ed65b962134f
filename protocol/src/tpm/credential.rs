//! TPM2_MakeCredential in software (Part 1, section 24): a secret that only the TPM with this endorsement key can
//! recover, and only while it holds the key of that name.

use zeroize::Zeroizing;

use crate::crypto::hash::hmac;
use crate::crypto::sign::PublicKey;
use crate::crypto::tpm::{AgreementKey, RsaPublic, aes128_cfb_encrypt, kdfa, kdfe_sha256};
use crate::secret::Secret;
use crate::tpm::reader::put_sized;
use crate::tpm::{Key, Public, TpmError};

/// What TPM2_ActivateCredential takes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Credential {
    /// Contents of the TPM2B_ID_OBJECT.
    pub blob: Vec<u8>,
    /// Contents of the TPM2B_ENCRYPTED_SECRET.
    pub encrypted_secret: Vec<u8>,
}

/// Wraps `secret` for the TPM of `ek`, to be opened while it holds the key named `ak_name`.
///
/// `seed` is 32 fresh random bytes, never used before: for RSA it is the seed that is encrypted, for P-256 the ephemeral
/// key is derived from it. Only the randomness of RSA's padding is drawn by the library.
///
/// # Errors
/// `ek` is no default endorsement key, or nothing can be encrypted to it.
pub fn make_credential(
    ek: &Public,
    ak_name: &[u8],
    secret: &Secret<32>,
    seed: &Secret<32>,
) -> Result<Credential, TpmError> {
    ek.check_ek()?;
    let (identity_seed, encrypted_secret) = match &ek.key {
        Key::Rsa(rsa) => seal_seed(rsa, seed)?,
        Key::P256(point) => agree_on_seed(point, &AgreementKey::from_seed(seed))?,
    };
    Ok(Credential { blob: wrap(&identity_seed, ak_name, secret), encrypted_secret })
}

fn seal_seed(ek: &RsaPublic, seed: &Secret<32>) -> Result<(Secret<32>, Vec<u8>), TpmError> {
    let encrypted = ek.oaep_identity(seed).ok_or(TpmError::Unencryptable)?;
    Ok((seed.duplicate(), encrypted))
}

fn agree_on_seed(ek: &PublicKey, ephemeral: &AgreementKey) -> Result<(Secret<32>, Vec<u8>), TpmError> {
    let z = ephemeral.agree(ek).ok_or(TpmError::Unencryptable)?;
    let public = ephemeral.public();
    let (x, y) = coordinates(&public);
    let mut point = Vec::with_capacity(68);
    put_sized(&mut point, x);
    put_sized(&mut point, y);
    Ok((identity_seed(&z, x, coordinates(ek).0), point))
}

/// The seed both sides derive from the agreed point.
pub(super) fn identity_seed(z: &Secret<32>, ephemeral_x: &[u8], ek_x: &[u8]) -> Secret<32> {
    kdfe_sha256(z.expose(), b"IDENTITY", ephemeral_x, ek_x)
}

/// x and y of an uncompressed point.
pub(super) fn coordinates(point: &PublicKey) -> (&[u8], &[u8]) {
    point.0[1..].split_at(32)
}

/// The key that encrypts the secret, and the one that vouches for it and the name.
pub(super) fn wrapping_keys(identity_seed: &Secret<32>, ak_name: &[u8]) -> (Secret<16>, Secret<32>) {
    let seed = identity_seed.expose();
    (kdfa(seed, b"STORAGE", ak_name, &[]), kdfa(seed, b"INTEGRITY", &[], &[]))
}

fn wrap(identity_seed: &Secret<32>, ak_name: &[u8], secret: &Secret<32>) -> Vec<u8> {
    let (cipher_key, integrity_key) = wrapping_keys(identity_seed, ak_name);
    let mut identity = Zeroizing::new(Vec::with_capacity(34));
    put_sized(&mut identity, secret.expose());
    aes128_cfb_encrypt(&cipher_key, &mut identity);
    let mut blob = Vec::with_capacity(68);
    put_sized(&mut blob, &hmac(integrity_key.expose(), &[&identity, ak_name]));
    blob.extend_from_slice(&identity);
    blob
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tpm::fixtures::{AK_P256, bytes};
    use crate::tpm::soft::SoftTpm;

    // Vectors of another verifier's tests, in the container of the command line tools: magic, version, both parts.
    const HEADER: &str = "badcc0de00000001";
    const RSA_EK: &str = "0001000b000300b20020837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa00060080004300100800000000000100aef12278a9b8d8a1e5700fb835ff3d9b613d0d6fc17df186711260244f3f24847eb3ef1f5ff9b53d01cfebf291104385fbd71ead80a8294ebc76f671859b7c3c9a998300f30859ef3fdba00c5229f17092fd97f19128243000205cfe5ba24f5fc55538e52bf849c6f777690919929c7d2d9328070a2a6bdd67355a516b94afdceda00a0d27988a28644b30ac11beae23a51d9038cd9d789ae39cae15c1312ef174e217449771a602ade4daf35b20e072017c85a2f211fe5512319184059ddeaab94fa331c49c3f213bc3fbccd1e856b8984353ac92e3df0f72f1e5c0b97b9cdc333702872e9e63565c809d81fa8bb6c6da86867cead2adedc0cee80bb6617183";
    const RSA_SECRET: &str = "5a4e524b4f4e6e777552754831683734785a466a42416f314758676c484d4149";
    const RSA_NAME: &str = "000b9601163463aacdb45be7ad1f6d11ad3dae0578d5aeeb5125e1075c5601b7c7fa";
    const RSA_FIRST_80: &str = "badcc0de00000001004400206f0c4b08cfa00f21b474ca75623d098309c2cd7fac8d10ae3caf0da40162496db140cc6a5ae79a2bd7c22dc52cee372f34b356bf9bcd5176fa94239ee93191a0a75d0100";
    const ECC_EK: &str = "0023000b000300b20020837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa0006008000430010000300100020d31f0e190c36691abdc5c8cef7201139664f93bcc45e68861a62d649d9a157d400209bf3cc57da9b2c09539cae40f0518e651b65befaab84f26a3285d88be134b0cf";
    const ECC_SECRET: &str = "7756666e6e4574706552556d717932656e7954474c64434f576a523545654a69";
    const ECC_NAME: &str = "000b9f7f75b0564ea96bd70ef98baafbf6bf779641d17576bd11b5c6979273d2ba21";
    const ECC_EXPECTED: &str = "badcc0de00000001004400207d7934f023133b07f7d9bce3062451ea4da5f1917c95e142da1c3277e658f66bbea694a7c1b30d006a09b28dc534876d59b644b9223c5f3c3432d8bae35f3ea3fba600440020361ce888d5152797aaca04838003976967c0c0a0a0e9698b7b5e6e5294e21711002078daa91b35fb5efc70052a470064a96dd556bd53a784d737e40966edc5f36ce8";
    const ECC_SCALAR: &str = "a706d544decd78de340642bcc33317c0cba93b383ad635a1a2aff132936841da";

    fn secret(hex: &str) -> Secret<32> {
        Secret::from_slice(&bytes(hex)).unwrap()
    }

    fn contained(blob: &[u8], encrypted_secret: &[u8]) -> Vec<u8> {
        let mut out = bytes(HEADER);
        put_sized(&mut out, blob);
        put_sized(&mut out, encrypted_secret);
        out
    }

    #[test]
    fn the_rsa_vector_is_met_up_to_the_random_padding() {
        let ek = Public::parse(&bytes(RSA_EK)).unwrap();
        let seed = Secret::fill_with(|b| b.fill(0x12));
        let made = make_credential(&ek, &bytes(RSA_NAME), &secret(RSA_SECRET), &seed).unwrap();
        let made = contained(&made.blob, &made.encrypted_secret);
        assert_eq!(hex::encode(&made[..80]), RSA_FIRST_80);
        assert_eq!(made.len(), 80 + 256);
    }

    #[test]
    fn the_p256_vector_is_met() {
        let ek = Public::parse(&bytes(ECC_EK)).unwrap();
        ek.check_ek().unwrap();
        let Key::P256(point) = &ek.key else { panic!("a P-256 key") };
        let ephemeral = AgreementKey::from_scalar(&secret(ECC_SCALAR)).unwrap();
        let (seed, encrypted_secret) = agree_on_seed(point, &ephemeral).unwrap();
        let blob = wrap(&seed, &bytes(ECC_NAME), &secret(ECC_SECRET));
        assert_eq!(hex::encode(contained(&blob, &encrypted_secret)), ECC_EXPECTED);
    }

    #[test]
    fn only_the_same_tpm_with_the_named_key_recovers_the_secret() {
        let tpm = SoftTpm::from_seed(&Secret::fill_with(|b| b.fill(1)));
        let other = SoftTpm::from_seed(&Secret::fill_with(|b| b.fill(2)));
        let (sent, seed) = (Secret::fill_with(|b| b.fill(3)), Secret::fill_with(|b| b.fill(4)));
        let made = make_credential(&tpm.ek_public(), &tpm.ak_public().name(), &sent, &seed).unwrap();
        assert!(tpm.activate_credential(&made).unwrap().ct_eq(&sent));
        assert!(other.activate_credential(&made).is_none());
        let misnamed = make_credential(&tpm.ek_public(), &other.ak_public().name(), &sent, &seed).unwrap();
        assert!(tpm.activate_credential(&misnamed).is_none());
        for at in 0..made.blob.len() {
            let mut changed = made.clone();
            changed.blob[at] ^= 1;
            assert!(tpm.activate_credential(&changed).is_none(), "{at}");
        }
    }

    #[test]
    fn a_credential_is_a_function_of_its_seed() {
        let tpm = SoftTpm::from_seed(&Secret::fill_with(|b| b.fill(1)));
        let make = |seed: u8| {
            let (sent, seed) = (Secret::fill_with(|b| b.fill(3)), Secret::fill_with(|b| b.fill(seed)));
            make_credential(&tpm.ek_public(), &tpm.ak_public().name(), &sent, &seed).unwrap()
        };
        assert_eq!(make(5), make(5));
        assert_ne!(make(5), make(6));
    }

    #[test]
    fn nothing_is_wrapped_for_a_key_that_is_no_endorsement_key() {
        let ak = Public::parse(&bytes(AK_P256)).unwrap();
        let (sent, seed) = (Secret::fill_with(|b| b.fill(3)), Secret::fill_with(|b| b.fill(4)));
        assert!(matches!(make_credential(&ak, &ak.name(), &sent, &seed), Err(TpmError::Attributes { .. })));
    }
}

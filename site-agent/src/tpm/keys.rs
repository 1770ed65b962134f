//! Endorsement and attestation keys, and the activation that ties one to the other.

use std::mem::discriminant;

use holdfast_protocol::secret::Secret;
use holdfast_protocol::tpm::Credential;
use tss_esapi::Context;
use tss_esapi::abstraction::{AsymmetricAlgorithmSelection, KeyCustomization, ak, ek};
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::handles::{AuthHandle, KeyHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, SignatureSchemeAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::PolicySession;
use tss_esapi::structures::{Digest, EncryptedSecret, IdObject, Nonce, Private, Public};
use tss_esapi::traits::{Marshall, UnMarshall};

use super::chip::{Chip, failed, handles, not_ours, policy_session, salted_session};
use super::{AkBlob, EkKind, Identity, TpmError};

/// Where makers and operating systems persist endorsement keys (TCG Registry of Reserved TPM 2.0 Handles).
const PERSISTENT_EKS: (u32, u32) = (0x8101_0000, 0x8101_ffff);

impl EkKind {
    fn algorithm(self) -> AsymmetricAlgorithmSelection {
        match self {
            Self::Rsa2048 => AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048),
            Self::P256 => AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP256),
        }
    }

    /// TCG EK Credential Profile, section 2.2.1.4.
    fn certificate_index(self) -> u32 {
        match self {
            Self::Rsa2048 => 0x01c0_0002,
            Self::P256 => 0x01c0_000a,
        }
    }
}

/// A TPM counts a power cut as a failed guess at the authorisation of the keys that were in use, and after a few of
/// them refuses those keys for a while. There is nothing to guess at a key without an authorisation value.
struct NeverLockedOut;

impl KeyCustomization for NeverLockedOut {
    fn attributes(&self, attributes: ObjectAttributesBuilder) -> ObjectAttributesBuilder {
        attributes.with_no_da(true)
    }
}

pub(super) fn identity(chip: &Chip, kind: Option<EkKind>) -> Result<Identity, TpmError> {
    chip.connected(|context| {
        let choices = kind.map_or(vec![EkKind::P256, EkKind::Rsa2048], |kind| vec![kind]);
        let mut ek_kind = choices[0];
        let mut ek_certificate = None;
        for choice in choices {
            ek_certificate = certificate(context, choice)?;
            if ek_certificate.is_some() {
                ek_kind = choice;
                break;
            }
        }
        let ek = endorsement_key(context, ek_kind)?;
        let (public, _, _) = context.read_public(ek).map_err(failed("show its endorsement key"))?;
        Ok(Identity { ek_kind, ek_public: marshalled(&public)?, ek_certificate })
    })
}

pub(super) fn create_ak(chip: &Chip, ek_kind: EkKind) -> Result<AkBlob, TpmError> {
    chip.connected(|context| {
        let ek = endorsement_key(context, ek_kind)?;
        let (hash, key) = (HashingAlgorithm::Sha256, EkKind::P256.algorithm());
        let created = ak::create_ak_2(context, ek, hash, key, SignatureSchemeAlgorithm::EcDsa, None, NeverLockedOut)
            .map_err(failed("create an attestation key"))?;
        let public = marshalled(&created.out_public)?;
        Ok(AkBlob { ek_kind, public, private: created.out_private.value().to_vec() })
    })
}

pub(super) fn activate(chip: &Chip, ak: &AkBlob, credential: &Credential) -> Result<Secret<32>, TpmError> {
    let malformed = |_| TpmError::Malformed("credential");
    let blob = IdObject::try_from(credential.blob.as_slice()).map_err(malformed)?;
    let encrypted = EncryptedSecret::try_from(credential.encrypted_secret.as_slice()).map_err(malformed)?;
    chip.connected(|context| {
        let (ek, ak) = load_ak(context, ak)?;
        // One session authorises the attestation key and encrypts the answer, the other satisfies the endorsement
        // key's policy, which is to prove the authorisation of the endorsement hierarchy.
        let answer = salted_session(context, ek)?;
        let policy = policy_session(context)?;
        endorse(context, policy)?;
        let secret = context
            .execute_with_sessions((Some(answer), Some(policy.into()), None), |context| {
                context.activate_credential(ak, ek, blob.clone(), encrypted.clone())
            })
            .map_err(not_ours("activate a credential"))?;
        Secret::from_slice(secret.value()).ok_or(TpmError::Malformed("activated secret"))
    })
}

fn endorse(context: &mut Context, policy: PolicySession) -> Result<(), TpmError> {
    let (nonce, parameters, reference) = (Nonce::default(), Digest::default(), Nonce::default());
    context
        .execute_with_nullauth_session(|context| {
            context.policy_secret(policy, AuthHandle::Endorsement, nonce, parameters, reference, None)
        })
        .map(drop)
        .map_err(failed("endorse"))
}

/// Loads the attestation key; the endorsement key above it comes first.
pub(super) fn load_ak(context: &mut Context, ak: &AkBlob) -> Result<(KeyHandle, KeyHandle), TpmError> {
    let public = Public::unmarshall(&ak.public).map_err(|_| TpmError::Malformed("attestation key"))?;
    let private = Private::try_from(&*ak.private).map_err(|_| TpmError::Malformed("attestation key"))?;
    let ek = endorsement_key(context, ak.ek_kind)?;
    let ak = ak::load_ak(context, ek, None, private, public).map_err(not_ours("load the attestation key"))?;
    Ok((ek, ak))
}

/// The endorsement key, from where somebody persisted it, else derived anew: the same key, but the search for RSA
/// primes takes a chip many seconds.
fn endorsement_key(context: &mut Context, kind: EkKind) -> Result<KeyHandle, TpmError> {
    let template = ek::create_ek_public_from_default_template_2(kind.algorithm(), None)
        .map_err(failed("take the endorsement template"))?;
    for handle in handles(context, PERSISTENT_EKS.0, PERSISTENT_EKS.1)? {
        if let Some(key) = persistent(context, handle, &template)? {
            return Ok(key);
        }
    }
    context
        .execute_with_nullauth_session(|context| {
            context.create_primary(Hierarchy::Endorsement, template, None, None, None, None)
        })
        .map(|created| created.key_handle)
        .map_err(failed("derive its endorsement key"))
}

/// The persistent key if it has the template's parameters. That it is the endorsement key itself, and not another of
/// the same form, is for the verifier to see: it has the certificate or the pinned key.
fn persistent(context: &mut Context, handle: TpmHandle, template: &Public) -> Result<Option<KeyHandle>, TpmError> {
    let key = context
        .execute_without_session(|context| context.tr_from_tpm_public(handle))
        .map(KeyHandle::from)
        .map_err(failed("open a persistent key"))?;
    let (public, _, _) = context.read_public(key).map_err(failed("show a persistent key"))?;
    Ok(same_template(&public, template).then_some(key))
}

fn same_template(key: &Public, template: &Public) -> bool {
    let parameters_agree = match (key, template) {
        (Public::Rsa { parameters: a, .. }, Public::Rsa { parameters: b, .. }) => a == b,
        (Public::Ecc { parameters: a, .. }, Public::Ecc { parameters: b, .. }) => a == b,
        _ => false,
    };
    parameters_agree
        && discriminant(key) == discriminant(template)
        && key.object_attributes() == template.object_attributes()
        && key.name_hashing_algorithm() == template.name_hashing_algorithm()
        && key.auth_policy() == template.auth_policy()
}

/// The maker's certificate, cut to the length that its DER header states: the NV index may be longer.
fn certificate(context: &mut Context, kind: EkKind) -> Result<Option<Vec<u8>>, TpmError> {
    let index = kind.certificate_index();
    if handles(context, index, index)?.is_empty() {
        return Ok(None);
    }
    let mut bytes =
        ek::retrieve_ek_pubcert(context, kind.algorithm()).map_err(failed("show its endorsement certificate"))?;
    let length = match *bytes.as_slice() {
        [0x30, 0x82, high, low, ..] => 4 + usize::from(u16::from_be_bytes([high, low])),
        _ => return Err(TpmError::Malformed("endorsement certificate")),
    };
    if length > bytes.len() {
        return Err(TpmError::Malformed("endorsement certificate"));
    }
    bytes.truncate(length);
    Ok(Some(bytes))
}

pub(super) fn marshalled(public: &Public) -> Result<Vec<u8>, TpmError> {
    public.marshall().map_err(|_| TpmError::Malformed("public area"))
}

//! A host's remote key: made in its TPM, vouched for by its attestation key, and used only while the registers hold
//! values that central has approved.

use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::crypto::sign::PublicKey;
use holdfast_protocol::secret::Secret;
use holdfast_protocol::tpm::policy;
use holdfast_protocol::wire::Approved;
use tss_esapi::Context;
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::handles::{KeyHandle, ObjectHandle};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{
    Data, Digest, EccParameter, EccPoint, EccScheme, EccSignature, KeyDerivationFunctionScheme, Name, Nonce, Public,
    PublicBuilder, PublicEccParametersBuilder, Signature, SignatureScheme, SymmetricDefinitionObject,
};
use tss_esapi::traits::{Marshall, UnMarshall};

use super::chip::{Chip, failed, policy_session};
use super::keys::{load_ak, marshalled};
use super::quote::selection;
use super::seal::Storage;
use super::{AkBlob, SealedBlob, TpmError, Vouched};

/// What lets a remote key be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leave {
    /// Whose approvals count.
    pub authority: PublicKey,
    /// For whom.
    pub reference: [u8; 32],
    /// Registers of the SHA-256 bank, ascending.
    pub pcrs: Vec<u8>,
    /// Any of these.
    pub approved: Vec<Approved>,
}

pub(super) fn create(chip: &Chip, policy: &[u8; 32]) -> Result<SealedBlob, TpmError> {
    let template = template(policy).map_err(failed("create a remote key"))?;
    chip.connected(|context| {
        let store = Storage::open(context)?;
        let created = context
            .execute_with_session(Some(store.session), |context| {
                context.create(store.root, template.clone(), None, None, None, None)
            })
            .map_err(failed("create a remote key"))?;
        Ok(SealedBlob { public: marshalled(&created.out_public)?, private: created.out_private.value().to_vec() })
    })
}

pub(super) fn certify(chip: &Chip, ak: &AkBlob, key: &SealedBlob, qualifying: &[u8; 32]) -> Result<Vouched, TpmError> {
    let data = Data::try_from(qualifying.as_slice()).map_err(|_| TpmError::Malformed("qualifying data"))?;
    chip.connected(|context| {
        // Three objects fit, and a parent is not needed once its child is loaded.
        let store = Storage::open(context)?;
        let key = store.load(context, key)?;
        give_up(context, store.root.into())?;
        let (_, ak) = load_ak(context, ak)?;
        let sessions = (Some(AuthSession::Password), Some(AuthSession::Password), None);
        let (attest, signature) = context
            .execute_with_sessions(sessions, |context| context.certify(key, ak, data.clone(), SignatureScheme::Null))
            .map_err(failed("vouch for a remote key"))?;
        let malformed = |_| TpmError::Malformed("attestation of a remote key");
        Ok((attest.marshall().map_err(malformed)?, signature.marshall().map_err(malformed)?))
    })
}

/// The x coordinate of the point agreed with `peer`.
pub(super) fn agree(chip: &Chip, key: &SealedBlob, leave: &Leave, peer: &PublicKey) -> Result<Secret<32>, TpmError> {
    let point = point(&peer.0)?;
    chip.connected(|context| {
        let policy = policy_session(context)?;
        fulfil(context, policy, leave)?;
        let store = Storage::open(context)?;
        let key: KeyHandle = store.load(context, key)?.into();
        // One session authorises the key, the other hides the answer from whoever listens on the bus.
        let agreed = context
            .execute_with_sessions((Some(policy.into()), Some(store.session), None), |context| {
                context.ecdh_z_gen(key, point.clone())
            })
            .map_err(failed("agree on a key"))?;
        let (x, mut whole) = (agreed.x().value(), zeroize::Zeroizing::new([0; 32]));
        let start = whole.len().checked_sub(x.len()).ok_or(TpmError::Malformed("agreed point"))?;
        whole[start..].copy_from_slice(x);
        Ok(Secret::fill_with(|into| *into = *whole))
    })
}

/// PolicyPCR, then PolicyAuthorize by whichever approval is about the values that the registers hold now.
fn fulfil(context: &mut Context, session: PolicySession, leave: &Leave) -> Result<(), TpmError> {
    let selection = selection(&leave.pcrs)?;
    context
        .execute_without_session(|context| context.policy_pcr(session, Digest::default(), selection.clone()))
        .map_err(failed("look at its registers"))?;
    let now = context
        .execute_without_session(|context| context.policy_get_digest(session))
        .map_err(failed("show a policy"))?;
    let current = |approved: &&Approved| policy::pcr_digest(&leave.pcrs, &approved.pcr_digest) == now.value();
    let approved = leave.approved.iter().find(current).ok_or(TpmError::NotApproved)?;
    let authority = load_authority(context, &leave.authority)?;
    let hash = sha256(&[now.value(), &leave.reference]);
    let digest = Digest::try_from(hash.as_slice()).map_err(failed("take an approval"))?;
    let signature = ecdsa(&approved.signature)?;
    let ticket = context
        .execute_without_session(|context| context.verify_signature(authority, digest, signature))
        .map_err(|_| TpmError::NotApproved)?;
    give_up(context, authority.into())?;
    let malformed = |_| TpmError::Malformed("approval");
    let name = policy::authority_name(&leave.authority).map_err(|_| TpmError::Malformed("approving key"))?;
    let name = Name::try_from(name.to_vec()).map_err(malformed)?;
    let reference = Nonce::try_from(leave.reference.as_slice()).map_err(malformed)?;
    context
        .execute_without_session(|context| context.policy_authorize(session, now, reference, &name, ticket))
        .map_err(failed("take an approval"))
}

fn load_authority(context: &mut Context, authority: &PublicKey) -> Result<KeyHandle, TpmError> {
    let public = Public::unmarshall(&policy::authority_public(authority));
    let public = public.map_err(|_| TpmError::Malformed("approving key"))?;
    context
        .execute_without_session(|context| context.load_external_public(public, Hierarchy::Owner))
        .map_err(failed("load the approving key"))
}

fn give_up(context: &mut Context, object: ObjectHandle) -> Result<(), TpmError> {
    context.execute_without_session(|context| context.flush_context(object)).map_err(failed("unload an object"))
}

fn ecdsa(signature: &[u8]) -> Result<Signature, TpmError> {
    let malformed = |_| TpmError::Malformed("approval");
    let (r, s) = signature.split_at_checked(32).ok_or(TpmError::Malformed("approval"))?;
    let (r, s) = (EccParameter::try_from(r).map_err(malformed)?, EccParameter::try_from(s).map_err(malformed)?);
    let signature = EccSignature::create(HashingAlgorithm::Sha256, r, s).map_err(malformed)?;
    Ok(Signature::EcDsa(signature))
}

fn point(sec1: &[u8; 65]) -> Result<EccPoint, TpmError> {
    let malformed = |_| TpmError::Malformed("point");
    let x = EccParameter::try_from(&sec1[1..33]).map_err(malformed)?;
    let y = EccParameter::try_from(&sec1[33..]).map_err(malformed)?;
    Ok(EccPoint::new(x, y))
}

/// An agreement key that its policy alone lets use. Being vouched for takes no more than its empty authorisation.
fn template(policy: &[u8; 32]) -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_no_da(true)
        .with_decrypt(true)
        .build()?;
    let parameters = PublicEccParametersBuilder::new()
        .with_symmetric(SymmetricDefinitionObject::Null)
        .with_ecc_scheme(EccScheme::Null)
        .with_curve(EccCurve::NistP256)
        .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
        .with_is_decryption_key(true)
        .with_restricted(false)
        .build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_auth_policy(Digest::try_from(policy.as_slice())?)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
}

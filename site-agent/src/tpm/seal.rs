//! TPM-sealed data under the storage root key, and the host secret, which a wipe destroys for every copy of its blob.
//!
//! The host secret's blob opens only with an authorisation value of 32 random bytes, and that value exists in one
//! place: an NV index, where a wipe overwrites it. A policy that names the index (PolicySecret) would not do: anybody
//! who may use the owner hierarchy can define an index of the same name again and would satisfy it.

use holdfast_protocol::secret::{Secret, SecretBytes};
use tss_esapi::Context;
use tss_esapi::attributes::{NvIndexAttributes, NvIndexAttributesBuilder, ObjectAttributesBuilder};
use tss_esapi::constants::response_code::Tss2ResponseCodeKind;
use tss_esapi::handles::{KeyHandle, NvIndexHandle, NvIndexTpmHandle, ObjectHandle};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::resource_handles::{Hierarchy, NvAuth, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Auth, Digest, EccPoint, EccScheme, KeyDerivationFunctionScheme, KeyedHashScheme, MaxNvBuffer, NvPublic, Private,
    Public, PublicBuilder, PublicEccParametersBuilder, PublicKeyedHashParameters, SensitiveData,
    SymmetricDefinitionObject,
};
use tss_esapi::traits::UnMarshall;

use super::chip::{Chip, failed, handles, not_ours, salted_session};
use super::keys::marshalled;
use super::{SEALED_BYTES_MAX, SealedBlob, TpmError};

/// Bytes of the authorisation value.
const AUTH_BYTES: u16 = 32;

pub(super) fn seal(chip: &Chip, data: &SecretBytes) -> Result<SealedBlob, TpmError> {
    chip.connected(|context| {
        let store = Storage::open(context)?;
        store.create(context, data.expose(), None)
    })
}

pub(super) fn unseal(chip: &Chip, blob: &SealedBlob) -> Result<SecretBytes, TpmError> {
    chip.connected(|context| {
        let store = Storage::open(context)?;
        let object = store.load(context, blob)?;
        let data = store.unseal(context, object).map_err(failed("unseal"))?;
        Ok(SecretBytes::new(data.value().to_vec()))
    })
}

pub(super) fn create_host_secret(chip: &Chip, secret: &Secret<32>) -> Result<SealedBlob, TpmError> {
    let mut entropy = Ok(());
    let auth = Secret::<32>::fill_with(|into| {
        entropy = getrandom::fill(into);
        // Trailing zero bytes of an authorisation value do not count (part 1, section 19.6.5) and would be lost.
        into[31] |= 1;
    });
    entropy.map_err(|error| TpmError::Unavailable(error.to_string()))?;
    chip.connected(|context| {
        let store = Storage::open(context)?;
        // The blob first: if it fails, an earlier host secret still lives.
        let blob = store.create(context, secret.expose(), Some(&auth))?;
        let index = match nv_index(context, chip.host_secret_index())? {
            Some(index) => index.handle,
            None => define(context, chip.host_secret_index())?,
        };
        store.write(context, index, auth.expose())?;
        Ok(blob)
    })
}

pub(super) fn unseal_host_secret(chip: &Chip, blob: &SealedBlob) -> Result<Secret<32>, TpmError> {
    chip.connected(|context| {
        let index = nv_index(context, chip.host_secret_index())?;
        let index = index.filter(|index| index.written).ok_or(TpmError::Destroyed)?.handle;
        let store = Storage::open(context)?;
        let auth = store.read(context, index)?;
        let object = store.load(context, blob)?;
        context.tr_set_auth(object, auth).map_err(failed("unseal"))?;
        let secret = store.unseal(context, object).map_err(|error| match error {
            // The index has the value of a later host secret, or zeros from a wipe that was cut short.
            tss_esapi::Error::Tss2Error(response)
                if matches!(response.kind(), Some(Tss2ResponseCodeKind::AuthFail | Tss2ResponseCodeKind::BadAuth)) =>
            {
                TpmError::Destroyed
            }
            error => failed("unseal")(error),
        })?;
        Secret::from_slice(secret.value()).ok_or(TpmError::Malformed("host secret"))
    })
}

pub(super) fn destroy_host_secret(chip: &Chip) -> Result<(), TpmError> {
    chip.connected(|context| {
        let Some(index) = nv_index(context, chip.host_secret_index())? else { return Ok(()) };
        let store = Storage::open(context)?;
        // Overwritten before it is given up, because giving up need not erase the cells.
        store.write(context, index.handle, &[0; AUTH_BYTES as usize])?;
        context
            .execute_with_nullauth_session(|context| context.nv_undefine_space(Provision::Owner, index.handle))
            .map_err(failed("give up an NV index"))
    })
}

/// The storage root key and a session salted with it.
pub(super) struct Storage {
    pub(super) root: KeyHandle,
    pub(super) session: AuthSession,
}

impl Storage {
    pub(super) fn open(context: &mut Context) -> Result<Self, TpmError> {
        let template = root_template().map_err(failed("take the storage template"))?;
        let root = context
            .execute_with_nullauth_session(|context| {
                context.create_primary(Hierarchy::Owner, template, None, None, None, None)
            })
            .map_err(failed("derive its storage key"))?
            .key_handle;
        let session = salted_session(context, root)?;
        Ok(Self { root, session })
    }

    fn create(&self, context: &mut Context, data: &[u8], auth: Option<&Secret<32>>) -> Result<SealedBlob, TpmError> {
        if data.is_empty() || data.len() > SEALED_BYTES_MAX {
            return Err(TpmError::Malformed("length of the data to seal"));
        }
        let template = sealed_template().map_err(failed("seal"))?;
        let data = SensitiveData::try_from(data).map_err(failed("seal"))?;
        let auth = auth.map(|auth| Auth::try_from(auth.expose().as_slice())).transpose().map_err(failed("seal"))?;
        let created = context
            .execute_with_session(Some(self.session), |context| {
                context.create(self.root, template, auth, Some(data), None, None)
            })
            .map_err(failed("seal"))?;
        Ok(SealedBlob { public: marshalled(&created.out_public)?, private: created.out_private.value().to_vec() })
    }

    pub(super) fn load(&self, context: &mut Context, blob: &SealedBlob) -> Result<ObjectHandle, TpmError> {
        let public = Public::unmarshall(&blob.public).map_err(|_| TpmError::Malformed("sealed blob"))?;
        let private = Private::try_from(&*blob.private).map_err(|_| TpmError::Malformed("sealed blob"))?;
        context
            .execute_with_session(Some(self.session), |context| context.load(self.root, private, public))
            .map(ObjectHandle::from)
            .map_err(not_ours("load a sealed blob"))
    }

    fn unseal(&self, context: &mut Context, object: ObjectHandle) -> tss_esapi::Result<SensitiveData> {
        context.execute_with_session(Some(self.session), |context| context.unseal(object))
    }

    fn write(&self, context: &mut Context, index: NvIndexHandle, value: &[u8]) -> Result<(), TpmError> {
        let value = MaxNvBuffer::try_from(value).map_err(failed("write an NV index"))?;
        context
            .execute_with_session(Some(self.session), |context| {
                context.nv_write(NvAuth::NvIndex(index), index, value, 0)
            })
            .map_err(failed("write an NV index"))
    }

    fn read(&self, context: &mut Context, index: NvIndexHandle) -> Result<Auth, TpmError> {
        let value = context
            .execute_with_session(Some(self.session), |context| {
                context.nv_read(NvAuth::NvIndex(index), index, AUTH_BYTES, 0)
            })
            .map_err(failed("read an NV index"))?;
        Auth::try_from(value.value()).map_err(failed("read an NV index"))
    }
}

struct NvIndex {
    handle: NvIndexHandle,
    written: bool,
}

/// The index if it exists; one that is not of our making is left alone.
fn nv_index(context: &mut Context, index: u32) -> Result<Option<NvIndex>, TpmError> {
    let Some(found) = handles(context, index, index)?.first().copied() else { return Ok(None) };
    let handle = context
        .execute_without_session(|context| context.tr_from_tpm_public(found))
        .map(NvIndexHandle::from)
        .map_err(failed("open an NV index"))?;
    let (public, _) = context.nv_read_public(handle).map_err(failed("open an NV index"))?;
    let attributes = public.attributes();
    let ours = attributes.auth_read() && attributes.auth_write() && !attributes.platform_create();
    if !ours || public.data_size() != usize::from(AUTH_BYTES) {
        return Err(TpmError::IndexTaken(index));
    }
    Ok(Some(NvIndex { handle, written: attributes.written() }))
}

fn define(context: &mut Context, index: u32) -> Result<NvIndexHandle, TpmError> {
    let public = NvIndexTpmHandle::new(index)
        .and_then(|index| {
            NvPublic::builder()
                .with_nv_index(index)
                .with_index_name_algorithm(HashingAlgorithm::Sha256)
                .with_index_attributes(index_attributes()?)
                .with_data_area_size(usize::from(AUTH_BYTES))
                .build()
        })
        .map_err(failed("define an NV index"))?;
    context
        .execute_with_nullauth_session(|context| context.nv_define_space(Provision::Owner, None, public))
        .map_err(failed("define an NV index"))
}

/// Read and written with the index's own, empty authorisation: the value protects a blob that was carried away, not
/// against those who already command this TPM. Failures there must not lock the TPM out.
fn index_attributes() -> tss_esapi::Result<NvIndexAttributes> {
    NvIndexAttributesBuilder::new().with_auth_read(true).with_auth_write(true).with_no_da(true).build()
}

/// The storage root key of TCG's provisioning guidance, P-256: always the same key as long as the TPM is not cleared.
fn root_template() -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_decrypt(true)
        .build()?;
    let parameters = PublicEccParametersBuilder::new()
        .with_symmetric(SymmetricDefinitionObject::AES_128_CFB)
        .with_ecc_scheme(EccScheme::Null)
        .with_curve(EccCurve::NistP256)
        .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
        .with_is_decryption_key(true)
        .with_restricted(true)
        .build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
}

/// Data bound to this TPM and this parent. No lockout: authorisation values here are 32 random bytes or none.
fn sealed_template() -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(Digest::default())
        .build()
}

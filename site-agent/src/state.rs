//! What a host keeps of its enrolment outside of the store: `tpm/state` in the data folder, mode 0600. Nothing in it is
//! of use without this machine's TPM.
//!
//! Whom the host believes follows from it: the root certificate. So what it says of deployment, host and root is bound to
//! the TPM by a MAC under a key that comes from the TPM-sealed seed of the QUIC key: who can only write the disk can't
//! make the host believe another central, which would fill it with content of its own.
//!
//! It is written before a request goes out, so that the same request can be repeated when an answer gets lost, and
//! survives a wipe: readmission needs no visit.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_protocol::codec::{self, DecodeError, length_prefixed};
use holdfast_protocol::crypto::hash::{ct_eq, hkdf, hmac};
use holdfast_protocol::ids::{DeploymentId, HostGeneration, HostId};
use holdfast_protocol::secret::Secret;
use serde::{Deserialize, Serialize};

use crate::tpm::{AkBlob, Identity, SealedBlob};

/// First byte of the file.
const FORMAT: u8 = 2;
/// Longest file; certificates are by far the most of it.
const STATE_BYTES_MAX: usize = 256 << 10;

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinState {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Who this host is.
    pub host: HostId,
    /// Where the site bundle said that central is, `host:port`.
    pub central: Vec<String>,
    /// The deployment's root certificate (DER): what central is known by.
    pub root: Vec<u8>,
    /// The TPM's identity as central pinned it.
    pub tpm: Identity,
    /// The attestation key that central knows; before joining, the one of the request.
    pub ak: AkBlob,
    /// Seed of the QUIC client key, TPM-sealed.
    pub quic_seed: SealedBlob,
    /// Seed of the REST server key, TPM-sealed.
    pub rest_seed: SealedBlob,
    /// Binds deployment, host and root to this TPM; see [`JoinState::binding_of`].
    pub binding: [u8; 32],
    /// What central gave; `None` before it did.
    pub membership: Option<Membership>,
    /// The attestation key of a re-enrolment whose answer has not come.
    pub renewal: Option<AkBlob>,
    /// This host's half of the key around its root key, TPM-sealed; `None` before the first release and after a wipe.
    pub host_secret: Option<SealedBlob>,
}

impl JoinState {
    /// The MAC over whom this host is and whom it believes, by the seed of its QUIC key.
    pub fn binding_of(deployment: &DeploymentId, host: &HostId, root: &[u8], quic_seed: &Secret<32>) -> [u8; 32] {
        let key = hkdf(quic_seed.expose(), "holdfast/join-state/v1", b"");
        let (site, name) = (host.site.as_str().as_bytes(), host.host.as_str().as_bytes());
        hmac(key.expose(), &[&length_prefixed(&[&deployment.0, site, name, root])])
    }

    /// Whether what it says of these is what was written when the host began to join.
    pub fn is_bound(&self, quic_seed: &Secret<32>) -> bool {
        ct_eq(&self.binding, &Self::binding_of(&self.deployment, &self.host, &self.root, quic_seed))
    }
}

/// What central gave to a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Generation of the identity.
    pub generation: HostGeneration,
    /// UUID of the agent.
    pub agent_id: String,
    /// QUIC client certificate and its issuer (DER, leaf first).
    pub dist_chain: Vec<Vec<u8>>,
    /// REST server certificate and its issuer (DER, leaf first).
    pub api_chain: Vec<Vec<u8>>,
}

/// The file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It can't be read or written.
    #[error("{}", .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// It is no state, or of a later version.
    #[error("{} is damaged", .0.display())]
    Damaged(PathBuf, #[source] DecodeError),
}

/// The file, and what it says now.
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
    current: Arc<Mutex<Arc<JoinState>>>,
}

impl StateFile {
    /// Where it lies in a data folder.
    pub fn path_in(data_dir: &Path) -> PathBuf {
        data_dir.join("tpm").join("state")
    }

    /// Reads it; `None` if this host has not begun to join.
    ///
    /// # Errors
    /// Unreadable or damaged.
    pub fn open(data_dir: &Path) -> Result<Option<Self>, StateError> {
        let path = Self::path_in(data_dir);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StateError::Io(path, error)),
        };
        match JoinState::decode(&bytes) {
            Ok(state) => Ok(Some(Self { path, current: Arc::new(Mutex::new(Arc::new(state))) })),
            Err(error) => Err(StateError::Damaged(path, error)),
        }
    }

    /// Begins one, in place of what there may be.
    ///
    /// # Errors
    /// It can't be written.
    pub fn begin(data_dir: &Path, state: JoinState) -> Result<Self, StateError> {
        let path = Self::path_in(data_dir);
        for folder in [data_dir, path.parent().unwrap_or(data_dir)] {
            holdfast_rest::files::private_folder(folder).map_err(|error| StateError::Io(folder.to_owned(), error))?;
        }
        write(&path, &state)?;
        Ok(Self { path, current: Arc::new(Mutex::new(Arc::new(state))) })
    }

    /// What it says.
    pub fn get(&self) -> Arc<JoinState> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes it, on disk first. It takes as long as a few syncs of the disk and happens a few times in a host's life.
    ///
    /// # Errors
    /// It can't be written; nothing has changed then.
    pub fn update(&self, change: impl FnOnce(&mut JoinState)) -> Result<(), StateError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = JoinState::clone(&current);
        change(&mut state);
        write(&self.path, &state)?;
        *current = Arc::new(state);
        Ok(())
    }
}

impl JoinState {
    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        [&[FORMAT], codec::encode(self).as_slice()].concat()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// Of an unknown version, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes.split_first() {
            Some((&FORMAT, state)) => codec::decode(state, STATE_BYTES_MAX),
            Some((version, _)) => Err(DecodeError::Version(*version)),
            None => Err(DecodeError::Malformed),
        }
    }
}

fn write(path: &Path, state: &JoinState) -> Result<(), StateError> {
    holdfast_rest::files::replace(path, &state.encode(), 0o600).map_err(|error| StateError::Io(path.to_owned(), error))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::tpm::EkKind;

    pub(crate) fn state() -> JoinState {
        let blob = |byte| SealedBlob { public: vec![byte], private: vec![byte; 40] };
        JoinState {
            deployment: DeploymentId([7; 16]),
            host: HostId { site: "udc1".parse().unwrap(), host: "udc1-001".parse().unwrap() },
            central: vec!["central.example:7443".to_owned()],
            root: vec![1],
            tpm: Identity { ek_kind: EkKind::P256, ek_public: vec![2], ek_certificate: None },
            ak: AkBlob { ek_kind: EkKind::P256, public: vec![3], private: vec![4] },
            quic_seed: blob(5),
            rest_seed: blob(6),
            binding: [0; 32],
            membership: None,
            renewal: None,
            host_secret: None,
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_only_by_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        assert!(StateFile::open(folder.path()).unwrap().is_none());
        let file = StateFile::begin(folder.path(), state()).unwrap();
        file.update(|state| state.central.clear()).unwrap();
        let read = StateFile::open(folder.path()).unwrap().unwrap();
        assert_eq!(read.get(), file.get());
        assert!(read.get().central.is_empty());
        let mode = std::fs::metadata(StateFile::path_in(folder.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn nobody_but_the_tpm_can_name_another_root_deployment_or_host() {
        let seed = |byte| Secret::fill_with(|into| into.fill(byte));
        let mut bound = state();
        bound.binding = JoinState::binding_of(&bound.deployment, &bound.host, &bound.root, &seed(1));
        assert!(bound.is_bound(&seed(1)));
        let other = HostId { host: "udc1-002".parse().unwrap(), ..bound.host.clone() };
        for (what, bent, key) in [
            ("another root", JoinState { root: vec![9], ..bound.clone() }, 1),
            ("another deployment", JoinState { deployment: DeploymentId([8; 16]), ..bound.clone() }, 1),
            ("another host", JoinState { host: other, ..bound.clone() }, 1),
            ("another seed", bound.clone(), 2),
        ] {
            assert!(!bent.is_bound(&seed(key)), "{what}");
        }
        // What changes in a host's life is no part of it.
        assert!(JoinState { central: Vec::new(), host_secret: None, ..bound }.is_bound(&seed(1)));
    }

    #[test]
    fn a_damaged_or_later_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        StateFile::begin(folder.path(), state()).unwrap();
        let path = StateFile::path_in(folder.path());
        let good = std::fs::read(&path).unwrap();
        for bad in [&good[..good.len() - 1], &[], &[&[9], &good[1..]].concat()] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(StateFile::open(folder.path()), Err(StateError::Damaged(..))));
        }
    }
}

//! The connection of one job, and what the TPM's answers mean.

use std::time::Duration;

use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::response_code::{Tss2ResponseCode, Tss2ResponseCodeKind};
use tss_esapi::constants::{CapabilityType, SessionType};
use tss_esapi::handles::{KeyHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{CapabilityData, SymmetricDefinition};
use tss_esapi::{Context, Error, TctiNameConf};

use super::raw::Raw;
use super::{TpmConfig, TpmError};

/// Pauses between attempts to open: a device without resource manager takes one client at a time, and a software TPM
/// may be starting.
const BACKOFF_MS: [u64; 6] = [5, 10, 20, 50, 100, 200];

/// The TPM, closed.
pub(super) struct Chip {
    config: TpmConfig,
}

impl Chip {
    pub(super) fn new(config: TpmConfig) -> Self {
        Self { config }
    }

    pub(super) fn host_secret_index(&self) -> u32 {
        self.config.host_secret_index
    }

    /// Runs `job` on a connection of its own. Where a killed process left the TPM full, it is emptied and the job run
    /// once more.
    pub(super) fn connected<T>(&self, job: impl Fn(&mut Context) -> Result<T, TpmError>) -> Result<T, TpmError> {
        match job(&mut self.open()?) {
            Err(TpmError::Refused { code, .. }) if is_full(code) => {
                tracing::warn!("the tpm is full of another process's leftovers and is emptied");
                self.raw()?.flush_all()?;
                job(&mut self.open()?)
            }
            done => done,
        }
    }

    /// A connection without the libraries.
    pub(super) fn raw(&self) -> Result<Raw, TpmError> {
        patiently(|| Raw::open(&self.config.address).map_err(|error| TpmError::Unavailable(error.to_string())))
    }

    fn open(&self) -> Result<Context, TpmError> {
        let tcti: TctiNameConf = self.config.address.to_string().parse().map_err(|_| TpmError::Address)?;
        patiently(|| Context::new(tcti.clone()).map_err(|error| TpmError::Unavailable(error.to_string())))
    }
}

fn patiently<T>(open: impl Fn() -> Result<T, TpmError>) -> Result<T, TpmError> {
    for pause in BACKOFF_MS {
        if let Ok(opened) = open() {
            return Ok(opened);
        }
        pause_for(Duration::from_millis(pause));
    }
    open()
}

/// An error of the libraries, as ours.
pub(super) fn failed(operation: &'static str) -> impl Fn(Error) -> TpmError {
    move |error| match error {
        Error::Tss2Error(response) => match code(response) {
            code if is_transport(code) => TpmError::Unavailable(format!("code {code:#x}")),
            code => TpmError::Refused { operation, code },
        },
        Error::WrapperError(_) => TpmError::Malformed(operation),
    }
}

/// The same for commands that take a blob: one that fails the TPM's integrity check was not made by this TPM.
pub(super) fn not_ours(operation: &'static str) -> impl Fn(Error) -> TpmError {
    move |error| match error {
        Error::Tss2Error(response) if response.kind() == Some(Tss2ResponseCodeKind::Integrity) => TpmError::NotOurs,
        error => failed(operation)(error),
    }
}

/// The number behind a response code, which the wrapper shows only as text.
fn code(response: Tss2ResponseCode) -> u32 {
    let text = match response {
        Tss2ResponseCode::Success => return 0,
        Tss2ResponseCode::FormatZero(response) => response.to_string(),
        Tss2ResponseCode::FormatOne(response) => response.to_string(),
    };
    text.rsplit_once("0x").and_then(|(_, digits)| u32::from_str_radix(digits, 16).ok()).unwrap_or(u32::MAX)
}

/// The TCTI layer (TSS 2.0 Overview, section 3.3.1: bits 16 to 23 name the layer).
fn is_transport(code: u32) -> bool {
    (code >> 16) & 0xff == 0x0a
}

/// `TPM_RC_OBJECT_MEMORY`, `TPM_RC_SESSION_MEMORY`, `TPM_RC_SESSION_HANDLES`, `TPM_RC_OBJECT_HANDLES`.
fn is_full(code: u32) -> bool {
    matches!(code, 0x902 | 0x903 | 0x905 | 0x906)
}

/// What exists in the TPM from `first` to `last`; so that nothing is asked for that is not there.
pub(super) fn handles(context: &mut Context, first: u32, last: u32) -> Result<Vec<TpmHandle>, TpmError> {
    let (found, _) = context
        .execute_without_session(|context| context.get_capability(CapabilityType::Handles, first, 254))
        .map_err(failed("list handles"))?;
    let CapabilityData::Handles(found) = found else { return Err(TpmError::Malformed("list of handles")) };
    Ok(found.into_inner().into_iter().filter(|handle| (first..=last).contains(&u32::from(*handle))).collect())
}

/// A session whose parameters are encrypted under a secret that only the TPM behind `salt` can open, so that a probe
/// on the bus learns nothing.
pub(super) fn salted_session(context: &mut Context, salt: KeyHandle) -> Result<AuthSession, TpmError> {
    let session = session(context, Some(salt), SessionType::Hmac)?;
    let (attributes, mask) = SessionAttributesBuilder::new().with_decrypt(true).with_encrypt(true).build();
    context.tr_sess_set_attributes(session, attributes, mask).map_err(failed("start a session"))?;
    Ok(session)
}

/// A session that collects proofs for a policy. Of the sessions of one command only one may encrypt, and it is not
/// this one.
pub(super) fn policy_session(context: &mut Context) -> Result<PolicySession, TpmError> {
    let session = session(context, None, SessionType::Policy)?;
    PolicySession::try_from(session).map_err(failed("start a session"))
}

fn session(context: &mut Context, salt: Option<KeyHandle>, session_type: SessionType) -> Result<AuthSession, TpmError> {
    let (cipher, hash) = (SymmetricDefinition::AES_128_CFB, HashingAlgorithm::Sha256);
    context
        .start_auth_session(salt, None, None, session_type, cipher, hash)
        .map_err(failed("start a session"))?
        .ok_or(TpmError::Malformed("session handle"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "this thread is the TPM's own, and nothing tells when a busy chip is free"
)]
fn pause_for(pause: Duration) {
    std::thread::sleep(pause);
}

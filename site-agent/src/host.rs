//! Everything that a host's parts share: [`Local`], and what reaches out of it.

use std::ops::Deref;
use std::sync::Arc;

use holdfast_rest::tls::ServerIdentity;
use tokio::sync::watch;

use crate::chip::Chip;
use crate::config::Config;
use crate::join::{self, Enrolment, JoinError};
pub use crate::local::{Heeded, Local, NoticeFault, VerdictFault};
use crate::quic::Central;
use crate::quic::network::Network;

/// The parts.
pub struct Host {
    /// The configuration.
    pub config: Config,
    /// The TPM.
    pub tpm: Arc<dyn Chip>,
    /// The network.
    pub network: Arc<dyn Network>,
    /// The certificate of the REST listener.
    pub identity: Arc<ServerIdentity>,
    /// `true` once the agent is to end.
    pub stopping: watch::Sender<bool>,
    /// All else.
    pub local: Arc<Local>,
}

impl Deref for Host {
    type Target = Local;

    fn deref(&self) -> &Local {
        &self.local
    }
}

impl Host {
    /// Where central is.
    pub fn central(&self) -> Central {
        join::central(&self.config, &self.file.get(), &self.network)
    }

    /// Enrols again, and shows the new certificate.
    ///
    /// # Errors
    /// As [`Enrolment::run`].
    pub async fn enrol_again(&self) -> Result<(), JoinError> {
        let central = self.central();
        Enrolment { file: &self.file, tpm: &*self.tpm, central, clock: &self.clock }.run(None).await?;
        self.show_certificate()
    }

    /// Shows the REST certificate that this host has now to whoever connects from here on, and tells on disk what it is
    /// known by.
    ///
    /// # Errors
    /// It can't be written or shown; the one before it stays.
    pub fn show_certificate(&self) -> Result<(), JoinError> {
        let state = self.file.get();
        join::write_api_ca(&self.config, &state)?;
        let chain = state.membership.as_ref().map(|member| member.api_chain.clone()).unwrap_or_default();
        self.identity.renew(chain).map_err(JoinError::Shown)
    }
}

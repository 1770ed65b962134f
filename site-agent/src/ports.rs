//! Everything through which an agent touches the world, but for its files: the same agent runs on a machine and in a
//! simulation of many.

use std::sync::Arc;

use holdfast_actors::ports::{Clock, Entropy};
use holdfast_actors::shell::{OsClock, OsEntropy};

use crate::chip::Chip;
use crate::quic::network::{Network, OsNetwork};
use crate::tpm::{TpmConfig, TpmError, TpmHandle};

/// The ways out. Cheap to clone.
#[derive(Clone)]
pub struct Ports {
    /// The TPM.
    pub tpm: Arc<dyn Chip>,
    /// The network.
    pub network: Arc<dyn Network>,
    /// The machine's own clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl Ports {
    /// Those of this machine; its clock's monotonic time begins now.
    ///
    /// # Errors
    /// As [`TpmHandle::start`].
    pub fn of_machine(tpm: &TpmConfig) -> Result<Self, TpmError> {
        Ok(Self {
            tpm: Arc::new(TpmHandle::start(tpm.clone())?),
            network: Arc::new(OsNetwork),
            clock: Arc::new(OsClock::start()),
            entropy: Arc::new(OsEntropy),
        })
    }
}

//! What the agent asks of a TPM, so that its rules can be tested without one, and the agent simulated.

use std::future::Future;
use std::pin::Pin;

use holdfast_actors::shell::{Bounded, Load};
use holdfast_protocol::secret::{Secret, SecretBytes};
use holdfast_protocol::tpm::{Counters, Credential};

use crate::tpm::{AkBlob, EkKind, Identity, SealedBlob, TpmError, TpmHandle};
use crate::uplink::dialogue::Quoter;

/// A future in a box, for traits that are used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Keeps one secret, of which a later one takes the place, and has a clock.
pub trait SecretChip: Send + Sync {
    /// Seals a new host secret; any earlier one opens no more.
    fn create<'a>(&'a self, secret: &'a Secret<32>) -> BoxFuture<'a, Result<SealedBlob, TpmError>>;

    /// Opens the host secret.
    fn open<'a>(&'a self, blob: &'a SealedBlob) -> BoxFuture<'a, Result<Secret<32>, TpmError>>;

    /// Destroys it for every copy of its blob.
    fn destroy(&self) -> BoxFuture<'_, Result<(), TpmError>>;

    /// The clock and what tells whether it ran through.
    fn counters(&self) -> BoxFuture<'_, Result<Counters, TpmError>>;
}

/// The whole TPM, as enrolment and sessions use it. What each member does is said at [`TpmHandle`].
pub trait Chip: SecretChip + Quoter {
    /// The endorsement key.
    fn identity(&self, kind: Option<EkKind>) -> BoxFuture<'_, Result<Identity, TpmError>>;

    /// A new attestation key.
    fn create_ak(&self, ek_kind: EkKind) -> BoxFuture<'_, Result<AkBlob, TpmError>>;

    /// Opens a credential.
    fn activate<'a>(
        &'a self,
        ak: &'a AkBlob,
        credential: &'a Credential,
    ) -> BoxFuture<'a, Result<Secret<32>, TpmError>>;

    /// TPM-seals a few bytes.
    fn seal(&self, data: SecretBytes) -> BoxFuture<'_, Result<SealedBlob, TpmError>>;

    /// Opens what [`Chip::seal`] made.
    fn unseal<'a>(&'a self, blob: &'a SealedBlob) -> BoxFuture<'a, Result<SecretBytes, TpmError>>;

    /// Waits until it can't be asked any more.
    fn ended(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// Lets no further job begin, and waits a little until none is under way; for the end of the process.
    fn halt(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Jobs that wait, of how many that may.
    fn load(&self) -> Load {
        Load::of(0, 0, 0)
    }

    /// For tests: it can't be asked any more from here on.
    #[cfg(debug_assertions)]
    fn strike(&self) {}
}

impl SecretChip for TpmHandle {
    fn create<'a>(&'a self, secret: &'a Secret<32>) -> BoxFuture<'a, Result<SealedBlob, TpmError>> {
        Box::pin(self.create_host_secret(secret.duplicate()))
    }

    fn open<'a>(&'a self, blob: &'a SealedBlob) -> BoxFuture<'a, Result<Secret<32>, TpmError>> {
        Box::pin(self.unseal_host_secret(blob))
    }

    fn destroy(&self) -> BoxFuture<'_, Result<(), TpmError>> {
        Box::pin(self.destroy_host_secret())
    }

    fn counters(&self) -> BoxFuture<'_, Result<Counters, TpmError>> {
        Box::pin(async { Ok(self.clock().await?.counters) })
    }
}

impl Chip for TpmHandle {
    fn identity(&self, kind: Option<EkKind>) -> BoxFuture<'_, Result<Identity, TpmError>> {
        Box::pin(self.identity(kind))
    }

    fn create_ak(&self, ek_kind: EkKind) -> BoxFuture<'_, Result<AkBlob, TpmError>> {
        Box::pin(self.create_ak(ek_kind))
    }

    fn activate<'a>(
        &'a self,
        ak: &'a AkBlob,
        credential: &'a Credential,
    ) -> BoxFuture<'a, Result<Secret<32>, TpmError>> {
        Box::pin(self.activate(ak, credential))
    }

    fn seal(&self, data: SecretBytes) -> BoxFuture<'_, Result<SealedBlob, TpmError>> {
        Box::pin(self.seal(data))
    }

    fn unseal<'a>(&'a self, blob: &'a SealedBlob) -> BoxFuture<'a, Result<SecretBytes, TpmError>> {
        Box::pin(self.unseal(blob))
    }

    fn ended(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.ended())
    }

    fn halt(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.halt())
    }

    fn load(&self) -> Load {
        Bounded::load(self)
    }

    #[cfg(debug_assertions)]
    fn strike(&self) {
        self.strike();
    }
}

//! What the seal asks of a TPM, so that its rules can be tested without one.

use std::future::Future;
use std::pin::Pin;

use holdfast_protocol::secret::Secret;
use holdfast_protocol::tpm::Counters;

use crate::tpm::{SealedBlob, TpmError, TpmHandle};

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

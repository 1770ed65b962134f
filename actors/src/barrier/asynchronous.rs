//! The barrier's calls for async code. Giving up waiting does not take a submitted decision back.

use std::sync::Arc;

use holdfast_protocol::ids::{Realm, Revision};
use tokio::sync::oneshot;

use crate::barrier::Barrier;
use crate::keyring::Keyring;
use crate::rows::{Batch, Refusal, Rows};
use crate::store::Fault;

impl Barrier {
    /// As [`Barrier::submit`].
    ///
    /// # Errors
    /// The decision's refusal, or the store's fault.
    pub async fn run<T: Send + 'static>(
        &self,
        decide: impl FnMut(&dyn Rows) -> Result<(Batch, T), Refusal> + Send + 'static,
    ) -> Result<(T, Revision), Refusal> {
        let (tell, told) = oneshot::channel();
        self.submit(decide, |outcome| drop(tell.send(outcome)));
        told.await.unwrap_or(Err(Refusal::Fault(Fault::Stopped)))
    }

    /// As [`Barrier::submit_rehearsal`].
    ///
    /// # Errors
    /// What the decision would be refused with, or the store's fault.
    pub async fn rehearse<T: Send + 'static>(
        &self,
        decide: impl FnMut(&dyn Rows) -> Result<(Batch, T), Refusal> + Send + 'static,
    ) -> Result<(), Refusal> {
        let (tell, told) = oneshot::channel();
        self.submit_rehearsal(decide, |outcome| drop(tell.send(outcome)));
        told.await.unwrap_or(Err(Refusal::Fault(Fault::Stopped)))
    }

    /// As [`Barrier::submit_boot`].
    ///
    /// # Errors
    /// The store's fault.
    pub async fn write_boot(&self, rows: Vec<(&str, Option<Vec<u8>>)>) -> Result<(), Fault> {
        let (tell, told) = oneshot::channel();
        self.submit_boot(rows, |outcome| drop(tell.send(outcome)));
        told.await.unwrap_or(Err(Fault::Stopped))
    }

    /// As [`Barrier::submit_begin`].
    ///
    /// # Errors
    /// The store's fault.
    pub async fn begin(&self, keys: (Vec<u8>, Vec<u8>), boot: Vec<(&str, Vec<u8>)>) -> Result<(), Fault> {
        let (tell, told) = oneshot::channel();
        self.submit_begin(keys, boot, |outcome| drop(tell.send(outcome)));
        told.await.unwrap_or(Err(Fault::Stopped))
    }

    /// Removes every row, for starting over.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn erase_all(&self) -> Result<(), Fault> {
        loop {
            let (tell, told) = oneshot::channel();
            self.submit_erase_some(|outcome| drop(tell.send(outcome)));
            if !told.await.unwrap_or(Err(Fault::Stopped))? {
                return Ok(());
            }
        }
    }

    /// Removes every row behind the barrier; those outside stay.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn erase_content(&self) -> Result<(), Fault> {
        loop {
            let (tell, told) = oneshot::channel();
            self.submit_erase_some_content(|outcome| drop(tell.send(outcome)));
            if !told.await.unwrap_or(Err(Fault::Stopped))? {
                return Ok(());
            }
        }
    }

    /// As [`Barrier::submit_erase_realm`], until no row is left.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn erase_realm(&self, realm: Realm) -> Result<(), Fault> {
        loop {
            let (tell, told) = oneshot::channel();
            self.submit_erase_realm(realm, |outcome| drop(tell.send(outcome)));
            if !told.await.unwrap_or(Err(Fault::Stopped))? {
                return Ok(());
            }
        }
    }

    /// Seals and waits, at most 2 s, until no reader holds the keys.
    pub async fn seal_and_erase(&self) {
        let Some(ring) = self.seal() else { return };
        let gone = async {
            while Arc::<Keyring>::strong_count(&ring) > 1 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(std::time::Duration::from_secs(2), gone).await.is_err() {
            tracing::warn!("a reader still holds keys two seconds after sealing");
        }
    }
}

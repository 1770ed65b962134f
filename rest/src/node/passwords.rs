//! Passwords off the event loop: a few at a time, and few waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_actors::access_control::password;
use holdfast_actors::rows::Refusal;
use holdfast_actors::shell::{Bounded, Load};
use holdfast_actors::store::Fault;
use holdfast_protocol::secret::SecretBytes;
use tokio::sync::Semaphore;

/// Hashes at once; each takes 19 MiB and a core for some 20 ms.
const RUNNING_MAX: usize = 2;
/// Waiting for their turn, beside those; more are refused.
const WAITING_MAX: usize = 64;

/// The bound on hashing.
pub struct Passwords {
    running: Arc<Semaphore>,
    places: Arc<Semaphore>,
    refused: AtomicU64,
}

impl Default for Passwords {
    fn default() -> Self {
        Self {
            running: Arc::new(Semaphore::new(RUNNING_MAX)),
            places: Arc::new(Semaphore::new(RUNNING_MAX + WAITING_MAX)),
            refused: AtomicU64::new(0),
        }
    }
}

impl Bounded for Passwords {
    fn load(&self) -> Load {
        let limit = RUNNING_MAX + WAITING_MAX;
        Load::of(limit - self.places.available_permits(), limit, self.refused.load(Ordering::Relaxed))
    }
}

impl Passwords {
    /// As [`password::verify`].
    ///
    /// # Errors
    /// Overloaded.
    pub async fn verify(&self, password: SecretBytes, stored: Option<String>) -> Result<bool, Refusal> {
        self.run(move || password::verify(password.expose(), stored.as_deref())).await
    }

    /// As [`password::hash`].
    ///
    /// # Errors
    /// Overloaded; [`Refusal::Invalid`]: empty or too long.
    pub async fn hash(&self, password: SecretBytes, salt: [u8; 16]) -> Result<String, Refusal> {
        let hashed = self.run(move || password::hash(password.expose(), &salt)).await?;
        hashed.ok_or_else(|| Refusal::Invalid(format!("a password has 1 to {} bytes", password::PASSWORD_BYTES_MAX)))
    }

    /// The permits go along: a caller who gives up does not make room while the work still runs.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            Fault::Overloaded
        })?;
        let turn = self.running.clone().acquire_owned().await.map_err(|_| Fault::Stopped)?;
        let done = tokio::task::spawn_blocking(move || {
            let _held = (place, turn);
            work()
        });
        done.await.map_err(|_| Fault::Stopped.into())
    }
}

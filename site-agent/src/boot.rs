//! The agent's rows outside the barrier: what a sealed host must know. Nothing secret is in them.

use holdfast_actors::barrier::Barrier;
use holdfast_actors::seal_keeper::wrap::HostBoot;
use holdfast_actors::store::Fault;
use holdfast_protocol::codec;
use holdfast_protocol::ids::StandingGeneration;
use holdfast_protocol::wire::Signed;
use serde::{Deserialize, Serialize};

const ROOT: &str = "root";
const CONTINUITY: &str = "continuity";
const NOTICE: &str = "notice";
const CONTACT: &str = "contact";
const WIPED: &str = "wiped";
/// Longest row; a signed value with its signer's certificate is the longest.
const ROW_BYTES_MAX: usize = 64 << 10;

/// What the last passing verdict brought.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Central's time then, microseconds since the Unix epoch.
    pub time_us: i64,
    /// The newest head.
    pub head: Option<Signed>,
    /// The newest lease.
    pub lease: Option<Signed>,
}

/// Typed access to them.
#[derive(Clone)]
pub struct Boot {
    barrier: Barrier,
}

impl Boot {
    /// The rows of this store.
    pub fn new(barrier: Barrier) -> Self {
        Self { barrier }
    }

    /// The wrapped root key. A record that can't be read opens nothing: it counts as absent.
    ///
    /// # Errors
    /// The store's fault.
    pub fn root(&self) -> Result<Option<HostBoot>, Fault> {
        Ok(self.barrier.boot_row(ROOT)?.and_then(|bytes| HostBoot::decode(&bytes).ok()))
    }

    /// Writes the wrapped root key, or removes it.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn put_root(&self, boot: Option<&HostBoot>) -> Result<(), Fault> {
        self.barrier.write_boot(vec![(ROOT, boot.map(HostBoot::encode))]).await
    }

    /// The wrapped root key as a row, for the transaction that begins a store.
    pub fn root_row(boot: &HostBoot) -> (&'static str, Vec<u8>) {
        (ROOT, boot.encode())
    }

    /// The continuity token to present.
    ///
    /// # Errors
    /// The store's fault.
    pub fn continuity(&self) -> Result<Option<[u8; 32]>, Fault> {
        self.read(CONTINUITY)
    }

    /// Stores the next continuity token.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn put_continuity(&self, token: [u8; 32]) -> Result<(), Fault> {
        self.write(CONTINUITY, &token).await
    }

    /// The newest notice.
    ///
    /// # Errors
    /// The store's fault.
    pub fn notice(&self) -> Result<Option<Signed>, Fault> {
        self.read(NOTICE)
    }

    /// Stores the newest notice.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn put_notice(&self, notice: &Signed) -> Result<(), Fault> {
        self.write(NOTICE, notice).await
    }

    /// What the last verdict brought.
    ///
    /// # Errors
    /// The store's fault.
    pub fn contact(&self) -> Result<Contact, Fault> {
        Ok(self.read(CONTACT)?.unwrap_or_default())
    }

    /// Stores what a verdict brought.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn put_contact(&self, contact: &Contact) -> Result<(), Fault> {
        self.write(CONTACT, contact).await
    }

    /// The newest order to wipe that was carried out.
    ///
    /// # Errors
    /// The store's fault.
    pub fn wiped(&self) -> Result<StandingGeneration, Fault> {
        Ok(self.read(WIPED)?.unwrap_or_default())
    }

    /// Notes that an order to wipe was carried out.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn put_wiped(&self, generation: StandingGeneration) -> Result<(), Fault> {
        self.write(WIPED, &generation).await
    }

    fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Fault> {
        let Some(bytes) = self.barrier.boot_row(name)? else { return Ok(None) };
        match codec::decode(&bytes, ROW_BYTES_MAX) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(Fault::Io(format!("boot row {name}: {error}"))),
        }
    }

    async fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Fault> {
        self.barrier.write_boot(vec![(name, Some(codec::encode(value)))]).await
    }
}

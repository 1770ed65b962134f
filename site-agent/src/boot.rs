//! The agent's rows outside the barrier: what a sealed host must know. Nothing secret is in them.

use holdfast_actors::barrier::Barrier;
use holdfast_actors::rows::Batch;
use holdfast_actors::seal_keeper::Attempts;
use holdfast_actors::seal_keeper::wrap::HostBoot;
use holdfast_actors::store::Fault;
use holdfast_protocol::codec;
use holdfast_protocol::ids::{HostName, StandingGeneration};
use holdfast_protocol::wire::Signed;
use serde::{Deserialize, Serialize};

use crate::unseal::{GivenLine, LINES_MAX, LadderLine, RemoteKey};

const ROOT: &str = "root";
const CONTINUITY: &str = "continuity";
const NOTICE: &str = "notice";
const CONTACT: &str = "contact";
const WIPED: &str = "wiped";
const PERMIT: &str = "permit";
const REMOTE_KEY: &str = "remote-key";
const ATTEMPTS: &str = "attempts";
const LADDER: &str = "ladder";
const SHARES: &str = "shares";
const GIVEN: &str = "given";
const OPERATORS_SEAL: &str = "operators-seal";
/// Before a sibling's name.
const SIBLING: &str = "sibling/";
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

    /// Stores the newest notice, which says something against this host, and takes its shares away with the same write.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn put_barring_notice(&self, notice: &Signed) -> Result<(), Fault> {
        self.barrier.write_boot(vec![(NOTICE, Some(codec::encode(notice))), (SHARES, None)]).await
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

    /// Central's leave to be helped by siblings.
    ///
    /// # Errors
    /// The store's fault.
    pub fn permit(&self) -> Result<Option<Signed>, Fault> {
        self.read(PERMIT)
    }

    /// Stores the newest permit; where it allows no shares, it takes them away with the same write.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn put_permit(&self, permit: &Signed, allows_shares: bool) -> Result<(), Fault> {
        let mut rows = vec![(PERMIT, Some(codec::encode(permit)))];
        if !allows_shares && self.has_shares()? {
            tracing::info!("this host's share of its site's seal key is erased");
            rows.push((SHARES, None));
        }
        self.barrier.write_boot(rows).await
    }

    /// Whether an operator has sealed this host, and nobody has opened it since.
    ///
    /// # Errors
    /// The store's fault.
    pub fn is_operators_seal(&self) -> Result<bool, Fault> {
        Ok(self.barrier.boot_row(OPERATORS_SEAL)?.is_some())
    }

    /// Remembers that, or that it is over.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn put_operators_seal(&self, is: bool) -> Result<(), Fault> {
        self.barrier.write_boot(vec![(OPERATORS_SEAL, is.then(Vec::new))]).await
    }

    /// The remote key.
    ///
    /// # Errors
    /// The store's fault.
    pub fn remote_key(&self) -> Result<Option<RemoteKey>, Fault> {
        self.read(REMOTE_KEY)
    }

    /// Stores the remote key.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn put_remote_key(&self, key: &RemoteKey) -> Result<(), Fault> {
        self.write(REMOTE_KEY, key).await
    }

    /// Forgets the remote key, and the shares that it opens.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn forget_remote_key(&self) -> Result<(), Fault> {
        self.barrier.write_boot(vec![(REMOTE_KEY, None), (SHARES, None)]).await
    }

    /// What central holds against a sibling, or no more.
    ///
    /// # Errors
    /// The store's fault.
    pub fn sibling_notice(&self, name: &HostName) -> Result<Option<Signed>, Fault> {
        self.read(&format!("{SIBLING}{name}"))
    }

    /// Stores it.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn put_sibling_notice(&self, name: &HostName, notice: &Signed) -> Result<(), Fault> {
        self.write(&format!("{SIBLING}{name}"), notice).await
    }

    /// Failed attempts to open this host by hand.
    ///
    /// # Errors
    /// The store's fault.
    pub fn attempts(&self) -> Result<Attempts, Fault> {
        Ok(self.read(ATTEMPTS)?.unwrap_or_default())
    }

    /// Stores them.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn put_attempts(&self, attempts: &Attempts) -> Result<(), Fault> {
        self.write(ATTEMPTS, attempts).await
    }

    /// What the audit log is still to be told.
    ///
    /// # Errors
    /// The store's fault.
    pub fn ladder_lines(&self) -> Result<Vec<LadderLine>, Fault> {
        Ok(self.read(LADDER)?.unwrap_or_default())
    }

    /// Remembers one more; of too many the oldest go.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn add_ladder_line(&self, line: LadderLine) -> Result<(), Fault> {
        let mut lines = self.ladder_lines()?;
        lines.push(line);
        let surplus = lines.len().saturating_sub(LINES_MAX);
        self.write(LADDER, &lines.split_off(surplus)).await
    }

    /// Takes away what the audit log is told of by this very batch: of attempts that failed, and of shares given away.
    pub fn told(batch: &mut Batch) {
        batch.put_boot(LADDER, None);
        batch.put_boot(GIVEN, None);
    }

    /// This host's shares of its site's seal key, encrypted to its TPM. What can't be read opens nothing: it counts as
    /// none.
    ///
    /// # Errors
    /// The store's fault.
    pub fn shares(&self) -> Result<Vec<Signed>, Fault> {
        let stored = self.barrier.boot_row(SHARES)?;
        Ok(stored.and_then(|bytes| codec::decode(&bytes, ROW_BYTES_MAX).ok()).unwrap_or_default())
    }

    /// Whether there is anything where they are kept.
    ///
    /// # Errors
    /// The store's fault.
    pub fn has_shares(&self) -> Result<bool, Fault> {
        Ok(self.barrier.boot_row(SHARES)?.is_some())
    }

    /// Stores them; none at all are forgotten.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn put_shares(&self, shares: &[Signed]) -> Result<(), Fault> {
        let value = (!shares.is_empty()).then(|| codec::encode(&shares));
        self.barrier.write_boot(vec![(SHARES, value)]).await
    }

    /// Shares given away that the audit log is still to be told of.
    ///
    /// # Errors
    /// The store's fault.
    pub fn given_lines(&self) -> Result<Vec<GivenLine>, Fault> {
        Ok(self.read(GIVEN)?.unwrap_or_default())
    }

    /// Stores them.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn put_given_lines(&self, lines: &[GivenLine]) -> Result<(), Fault> {
        self.write(GIVEN, &lines).await
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

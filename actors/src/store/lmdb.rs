//! The LMDB engine: one writer thread, group commit with full durability, read snapshots.
//!
//! Files of a store's folder: `data.mdb` and `lock.mdb` are LMDB's, `lock` keeps a second writing process out. The
//! folder must be on a local file system. The map is address space, reserved once and never resized; the file grows as
//! needed and never shrinks.

mod tables;
mod writer;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread::{self, JoinHandle};

use heed::{EnvFlags, EnvOpenOptions, WithoutTls};
use holdfast_protocol::ids::Revision;
use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;

use self::tables::{Rows, Tables};
use self::writer::{Job, Writer};
use super::{CommitEnd, Decide, Engine, Fault, View, Wake};
use crate::shell::{Bounded, Load};

type Env = heed::Env<WithoutTls>;
type ReadTxn = heed::RoTxn<'static, WithoutTls>;

/// What an operator or a test may choose.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes of free disk below which writes are refused as full.
    pub reserve_bytes: u64,
    /// Address space for the file: its greatest size, a multiple of the page size.
    pub map_bytes: usize,
    /// Decisions that may wait; more are refused as overload.
    pub waiting_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { reserve_bytes: 64 << 20, map_bytes: 64 << 30, waiting_max: 4096 }
    }
}

/// Snapshots that may live at the same time, all reading processes together.
const READERS_MAX: u32 = 1024;
/// LMDB's table of so many readers: a cache line for each, and some for its head.
const LOCK_TABLE_BYTES: u64 = (READERS_MAX as u64 + 64) * 64;

/// Called once, on the writer's thread, when the store can't go on: a commit failed or a decision panicked. What is on
/// disk is sound, but memory may be ahead of it: production ends the process here.
pub type Fatal = Box<dyn FnOnce(&str) + Send>;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open for writing.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// Not written by this program, or empty.
    #[error("{} holds no store", .0.display())]
    NoStore(PathBuf),
    /// Of a later format.
    #[error("store has format {found}, this program knows up to {known}")]
    Format {
        /// What the file says.
        found: u64,
        /// What this program writes.
        known: u64,
    },
    /// A file or folder can't be made or opened.
    #[error("can't open the store's files")]
    Io(#[from] io::Error),
    /// LMDB refuses.
    #[error("can't open the store")]
    Lmdb(#[from] heed::Error),
}

/// The engine. Dropping it decides all that waits, then ends the writer.
pub struct LmdbEngine {
    shared: Arc<Shared>,
    /// None only while dropping.
    queue: Option<SyncSender<Job>>,
    writer: Option<JoinHandle<()>>,
}

/// What the writer and its callers both use.
struct Shared {
    env: Env,
    tables: Tables,
    folder: File,
    settings: Settings,
    end: OnceLock<Box<dyn CommitEnd>>,
    watchers: Mutex<Vec<Arc<Wake>>>,
    stopped: AtomicBool,
    /// Decisions that wait for the writer, and how many found no place.
    waiting: AtomicUsize,
    refused: AtomicU64,
    /// Held as long as the writer may write; the kernel lets go when the process ends, however it ends.
    _lock: FolderLock,
}

impl LmdbEngine {
    /// Opens the store in `folder`, made if absent (mode 0700, its files 0600).
    ///
    /// # Errors
    /// In use, of another format, or the files can't be made or read.
    pub fn open(folder: &Path, settings: Settings, fatal: Fatal) -> Result<Self, OpenError> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        let lock = lock(folder)?;
        allocate_lock_table(folder)?;
        let env = open_env(folder, settings.map_bytes, EnvFlags::empty())?;
        // Readers that were killed would keep their pages from being used again.
        env.clear_stale_readers()?;
        let tables = Tables::create(&env)?;
        // LMDB syncs its file but not the entry that names it.
        sync_entries(folder)?;

        let (queue, jobs) = mpsc::sync_channel(settings.waiting_max);
        let shared = Arc::new(Shared {
            env,
            tables,
            folder: File::open(folder)?,
            settings,
            end: OnceLock::new(),
            watchers: Mutex::default(),
            stopped: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            _lock: lock,
        });
        let writer = Writer::new(shared.clone(), jobs, fatal)?;
        let writer = thread::Builder::new().name("store-writer".to_owned()).spawn(move || writer.run())?;
        Ok(Self { shared, queue: Some(queue), writer: Some(writer) })
    }

    /// The queue of the writer, to be looked at.
    pub fn queue(&self) -> WriterQueue {
        WriterQueue(Arc::downgrade(&self.shared))
    }

    /// A job for the writer, given back if it can't be taken.
    fn send(&self, job: Job) -> Result<(), (Job, Fault)> {
        if self.shared.has_stopped() {
            return Err((job, Fault::Stopped));
        }
        let queue = self.queue.as_ref().expect("there until the engine drops");
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        queue.try_send(job).map_err(|refused| {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            match refused {
                TrySendError::Full(job) => {
                    self.shared.refused.fetch_add(1, Ordering::Relaxed);
                    (job, Fault::Overloaded)
                }
                TrySendError::Disconnected(job) => (job, Fault::Stopped),
            }
        })
    }
}

/// Shows the writer's queue after the engine itself has been handed on.
pub struct WriterQueue(Weak<Shared>);

impl Bounded for WriterQueue {
    fn load(&self) -> Load {
        let Some(shared) = self.0.upgrade() else { return Load::default() };
        let limit = shared.settings.waiting_max;
        // Counted before they are sent: at the bound one that is refused in a moment may be among them.
        let used = shared.waiting.load(Ordering::Relaxed).min(limit);
        Load::of(used, limit, shared.refused.load(Ordering::Relaxed))
    }
}

impl Engine for LmdbEngine {
    fn snapshot(&self) -> Result<Box<dyn View + Send>, Fault> {
        if self.shared.has_stopped() {
            return Err(Fault::Stopped);
        }
        Ok(Box::new(Rows::snapshot(&self.shared.env, self.shared.tables)?))
    }

    fn submit(&self, decide: Box<dyn Decide>) {
        if let Err((Job::Decide(decide), fault)) = self.send(Job::Decide(decide)) {
            decide.done(Err(fault));
        }
    }

    fn watch(&self, wake: Wake) {
        self.shared.watchers.lock().expect("nothing panics holding it").push(Arc::new(wake));
    }

    fn close_commits_with(&self, end: Box<dyn CommitEnd>) {
        assert!(self.shared.end.set(end).is_ok(), "what closes commits is set once");
    }

    fn compact(&self, before: Revision) -> Result<(), Fault> {
        // In slices, so that decisions get their turn in between.
        loop {
            let (reply, answer) = mpsc::sync_channel(1);
            self.send(Job::Compact { before, reply }).map_err(|(_, fault)| fault)?;
            if answer.recv().map_err(|_| Fault::Stopped)?? {
                return Ok(());
            }
        }
    }
}

impl Drop for LmdbEngine {
    fn drop(&mut self) {
        // The writer ends when it has emptied the queue of the last sender.
        drop(self.queue.take());
        let writer = self.writer.take().expect("taken only here");
        // The last owner may let go inside a `done`, on the writer's own thread.
        if writer.thread().id() != thread::current().id() {
            // It catches every panic but that of the fatal hook, after which there is nothing left to save.
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}

/// A store read by a process that does not own it, such as a check of the audit log beside a running node.
pub struct LmdbReader {
    env: Env,
    tables: Tables,
}

impl LmdbReader {
    /// Opens the store in `folder` without the right to change it. A running writer is no hindrance.
    ///
    /// # Errors
    /// No store there, of another format, or unreadable.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        if !folder.join("data.mdb").is_file() {
            return Err(OpenError::NoStore(folder.to_owned()));
        }
        let env = open_env(folder, Settings::default().map_bytes, EnvFlags::READ_ONLY)?;
        let tables = Tables::open(&env)?.ok_or_else(|| OpenError::NoStore(folder.to_owned()))?;
        Ok(Self { env, tables })
    }

    /// The newest committed state.
    ///
    /// # Errors
    /// Reading failed.
    pub fn snapshot(&self) -> Result<Box<dyn View + Send>, Fault> {
        Ok(Box::new(Rows::snapshot(&self.env, self.tables)?))
    }
}

/// Given back at once when it is dropped: a child that is just being started still has a copy of the descriptor until
/// it becomes another program, and closing ours alone would leave the folder locked for that long.
struct FolderLock(File);

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Where this fails, closing the file does the same.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

fn lock(folder: &Path) -> Result<FolderLock, OpenError> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(folder.join("lock"))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(FolderLock(file)),
        Err(Errno::WOULDBLOCK) => Err(OpenError::InUse(folder.to_owned())),
        Err(errno) => Err(OpenError::Io(errno.into())),
    }
}

/// Gives LMDB's table of readers its room on the disk: it is written to through a mapping, also by reads, and where a
/// full disk had no page for it the process would be killed. To be called before LMDB opens the file: closing it later
/// would take away LMDB's lock on it.
fn allocate_lock_table(folder: &Path) -> io::Result<()> {
    let path = folder.join("lock.mdb");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, LOCK_TABLE_BYTES) {
        // Where a file system can't, it has no holes to fill either, or none that can be helped.
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[expect(unsafe_code, reason = "LMDB maps its file: the call is a promise that nothing else changes it")]
fn open_env(folder: &Path, map_bytes: usize, flags: EnvFlags) -> Result<Env, OpenError> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(map_bytes).max_readers(READERS_MAX).max_dbs(tables::COUNT);
    // SAFETY: the files are private to this program's user; of its processes at most one has the folder's `lock` and
    // writes, through LMDB alone; others open with READ_ONLY and take part in LMDB's own reader locking. The only flag
    // ever passed is READ_ONLY, none that weakens locking or syncing. The folder is local, as the documentation of this
    // module demands, so mapped pages and locks are coherent. A process that is killed inside a transaction leaves
    // nothing behind but a reader slot: LMDB never overwrites the pages of the last commit.
    unsafe { Ok(options.flags(flags).open(folder)?) }
}

/// Makes the folder and what it names survive a power loss.
fn sync_entries(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()?;
    match folder.canonicalize()?.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

impl From<heed::Error> for Fault {
    fn from(error: heed::Error) -> Self {
        match error {
            heed::Error::Mdb(heed::MdbError::MapFull) => Self::Full,
            heed::Error::Mdb(heed::MdbError::ReadersFull) => Self::Overloaded,
            other => Self::Io(other.to_string()),
        }
    }
}

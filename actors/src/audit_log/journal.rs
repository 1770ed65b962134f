//! The file that reads and refusals are written to before they are answered.
//!
//! Segments `reads-NNNNNNNNNN.log` in one folder. A segment begins with [`MAGIC`] and a length-prefixed [`Checkpoint`];
//! then lines: `length u32 BE | realm u32 BE | seq u64 BE | position u64 BE | envelope | hash 32`, where position is the
//! realm's chain of changes at the time. A line is handed to the kernel before [`Journal::append`] returns and is on
//! disk within [`SYNC_EVERY`]. What a start cuts off a segment's end it keeps in a file `.cut` beside it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use holdfast_protocol::codec::{self, length_prefixed};
use holdfast_protocol::envelope::OVERHEAD_BYTES;
use holdfast_protocol::ids::Realm;
use serde::{Deserialize, Serialize};

use crate::audit_log::verify::{Break, Report};
use crate::audit_log::{Chain, Head, Line, line_aad};
use crate::barrier::{DurableReads, Snapshot};
use crate::ports::{Entropy, draw};
use crate::rows::Refusal;
use crate::shell::{Bounded, Load};
use crate::store::Fault;

const MAGIC: &[u8; 8] = b"HFREADS1";
/// A line is on disk at most this long after its reply.
pub const SYNC_EVERY: Duration = Duration::from_millis(50);
/// Length, realm, seq, position.
const LINE_HEADER: usize = 4 + 4 + 8 + 8;
const LINE_BYTES_MAX: usize = 64 << 10;
/// How often a full journal looks whether there is room again.
const ROOM_LOOKED_FOR_EVERY: Duration = Duration::from_millis(500);

/// What a segment starts from.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Checkpoint {
    /// The head of every chain.
    heads: Vec<(Realm, Head)>,
    /// Whether the segment before ended in the middle of a line.
    after_gap: bool,
}

/// How much the journal may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A segment is closed when it has grown to this.
    pub segment_bytes: u64,
    /// With this many bytes in all segments the journal is full and reads are refused, until old segments are moved
    /// away.
    pub total_bytes: u64,
    /// Reads are refused when the disk has less than this left.
    pub reserve_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, total_bytes: 4 << 30, reserve_bytes: 16 << 20 }
    }
}

/// Called once when the journal can't go on. No line is lost by that, but none may be left out either: production ends
/// the process here.
pub type OnFailure = Box<dyn FnOnce(&str) + Send>;

/// The journal of one node.
pub struct Journal {
    shared: Arc<Shared>,
    entropy: Arc<dyn Entropy>,
    syncer: Option<JoinHandle<()>>,
    torn: bool,
}

struct Shared {
    folder: PathBuf,
    limits: Limits,
    state: Mutex<State>,
    changed: Condvar,
    full: AtomicBool,
    refused: AtomicU64,
    on_failure: Mutex<Told>,
}

/// Who is told of the failure, or why it failed before anybody was to be told.
enum Told {
    Nobody,
    Hook(OnFailure),
    Failed(String),
}

struct State {
    /// Shared with the syncing thread, which must not depend on a free descriptor.
    file: Arc<File>,
    number: u64,
    segment_bytes: u64,
    total_bytes: u64,
    heads: BTreeMap<Realm, Head>,
    /// Whether the next segment follows a torn one.
    after_gap: bool,
    /// Heads on disk that no commit has named yet.
    durable: BTreeMap<Realm, Head>,
    dirty: BTreeMap<Realm, Head>,
    failed: bool,
    closing: bool,
}

impl Journal {
    /// Opens the folder, making it if need be, and finds the end of every chain. A line that a crash cut short is
    /// removed.
    ///
    /// # Errors
    /// The folder can't be used, or a segment does not begin as one should.
    pub fn open(folder: &Path, limits: Limits, entropy: Arc<dyn Entropy>) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let segments = segments(folder)?;
        let (number, heads, torn) = match segments.last() {
            Some((number, path)) => {
                let (heads, torn) = recover(path)?;
                (*number, heads, torn)
            }
            None => (0, BTreeMap::new(), false),
        };
        let state = State {
            file: Arc::new(unopened(folder)?),
            number,
            segment_bytes: 0,
            total_bytes: total_bytes(folder)?,
            heads,
            after_gap: torn,
            durable: BTreeMap::new(),
            dirty: BTreeMap::new(),
            failed: false,
            closing: false,
        };
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            limits,
            state: Mutex::new(state),
            changed: Condvar::new(),
            full: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            on_failure: Mutex::new(Told::Nobody),
        });
        shared.begin_segment(&mut shared.lock())?;
        let syncing = shared.clone();
        let syncer = std::thread::Builder::new().name("read-journal".to_owned()).spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| syncing.keep_synced())).is_err() {
                syncing.failed("its thread panicked");
            }
        })?;
        Ok(Self { shared, entropy, syncer: Some(syncer), torn })
    }

    /// Whether the last run's journal ended in the middle of a line.
    pub fn was_torn(&self) -> bool {
        self.torn
    }

    /// Who is told, on any thread, if it can't go on; at once if it already can't.
    pub fn on_failure(&self, hook: OnFailure) {
        let mut told = self.shared.told();
        match std::mem::replace(&mut *told, Told::Nobody) {
            Told::Failed(why) => {
                drop(told);
                hook(&why);
            }
            Told::Nobody | Told::Hook(_) => *told = Told::Hook(hook),
        }
    }

    /// For tests: it fails as if its disk had.
    #[cfg(debug_assertions)]
    pub fn strike(&self) {
        self.shared.failed("a test asked for it");
    }

    /// Whether reads are refused because there is no room for their lines.
    pub fn is_full(&self) -> bool {
        self.shared.full.load(Ordering::Relaxed)
    }

    /// Writes a line about something read (or refused) in `snapshot`, before it is answered.
    ///
    /// # Errors
    /// The journal is full or failed: the read must be refused.
    pub fn append(&self, snapshot: &Snapshot, realm: Realm, line: &Line) -> Result<(), Refusal> {
        let written = self.write(snapshot, realm, line);
        if let Err(Refusal::Fault(_)) = written {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    fn write(&self, snapshot: &Snapshot, realm: Realm, line: &Line) -> Result<(), Refusal> {
        if self.shared.full.load(Ordering::Relaxed) {
            return Err(Fault::Full.into());
        }
        let keys = snapshot.realm_keys(realm)?;
        let position = snapshot.change_position(realm)?;
        let plain = line.encoded();
        let nonce = draw(&*self.entropy);

        let mut state = self.shared.lock();
        if state.failed {
            return Err(Fault::Stopped.into());
        }
        if realm == Realm::NODE && self.shared.limits.total_bytes / 4 * 3 <= state.total_bytes {
            // Strangers can have lines written to the node's chain. What they can't fill keeps the tenants' reads going.
            return Err(Fault::Full.into());
        }
        if self.shared.limits.total_bytes <= state.total_bytes {
            self.shared.full.store(true, Ordering::Relaxed);
            self.shared.changed.notify_all();
            return Err(Fault::Full.into());
        }
        let head = state.heads.get(&realm).copied().unwrap_or_default();
        let aad = line_aad(Chain::Reads, snapshot.ring().deployment(), realm, head.next_seq());
        let seal = |out: &mut Vec<u8>| keys.seal_line(out, &nonce, &aad, &plain);
        let (line, head) = stored(realm, head, (position, plain.len()), seal);
        let written = self.shared.write(&mut state, realm, head, &line);
        let has_failed = state.failed;
        drop(state);
        written.map_err(|error| {
            if has_failed {
                self.shared.failed(&error.to_string());
                return Fault::Io(error.to_string()).into();
            }
            self.shared.fault(&error).into()
        })
    }
}

/// In bytes of all its segments.
impl Bounded for Journal {
    fn load(&self) -> Load {
        let used = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).total_bytes;
        Load { used, limit: self.shared.limits.total_bytes, refused: self.shared.refused.load(Ordering::Relaxed) }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).closing = true;
        self.shared.changed.notify_all();
        if let Some(syncer) = self.syncer.take() {
            let _ = syncer.join();
        }
    }
}

impl DurableReads for Journal {
    fn drain_durable(&self) -> Vec<(Realm, Head)> {
        std::mem::take(&mut self.shared.lock().durable).into_iter().collect()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.on_failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is appended any more, and whoever is to know is told.
    fn failed(&self, why: &str) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).failed = true;
        let mut told = self.told();
        if let Told::Hook(hook) = std::mem::replace(&mut *told, Told::Failed(why.to_owned())) {
            drop(told);
            hook(why);
        }
    }

    fn write(&self, state: &mut State, realm: Realm, head: Head, line: &[u8]) -> io::Result<()> {
        if self.limits.segment_bytes <= state.segment_bytes {
            self.roll(state)?;
        }
        if let Err(error) = (&*state.file).write_all(line) {
            // Half a line may stand there now, and nothing may follow it.
            state.failed = !is_out_of_space(&error) || state.file.set_len(state.segment_bytes).is_err();
            return Err(error);
        }
        let len = line.len() as u64;
        state.segment_bytes += len;
        state.total_bytes += len;
        state.heads.insert(realm, head);
        let was_clean = state.dirty.is_empty();
        state.dirty.insert(realm, head);
        if was_clean {
            self.changed.notify_all();
        }
        Ok(())
    }

    /// What a line that was not written comes to. A disk that filled up between two looks is looked at by the syncing
    /// thread from now on.
    fn fault(&self, error: &io::Error) -> Fault {
        if !is_out_of_space(error) {
            return Fault::Io(error.to_string());
        }
        self.full.store(true, Ordering::Relaxed);
        self.changed.notify_all();
        Fault::Full
    }

    /// Ends the segment and begins the next.
    fn roll(&self, state: &mut State) -> io::Result<()> {
        // A disk tells once only that it lost what it was given: whatever follows would stand on lines that are not there.
        state.file.sync_data().inspect_err(|_| state.failed = true)?;
        self.begin_segment(state).inspect_err(|error| {
            state.failed = !is_out_of_space(error) && !is_out_of_descriptors(error);
        })
    }

    /// The segment gets its name when its beginning is on disk: none ever begins with half a checkpoint.
    fn begin_segment(&self, state: &mut State) -> io::Result<()> {
        let number = state.number + 1;
        let (path, draft) = (segment_path(&self.folder, number), self.folder.join("next-segment"));
        let _ = fs::remove_file(&draft);
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&draft)?;
        let heads = state.heads.iter().map(|(realm, head)| (*realm, *head)).collect();
        let checkpoint = Checkpoint { heads, after_gap: state.after_gap };
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&length_prefixed(&[&codec::encode(&checkpoint)]));
        file.write_all(&header)?;
        file.sync_data()?;
        fs::rename(draft, path)?;
        File::open(&self.folder)?.sync_all()?;
        (state.file, state.number, state.segment_bytes) = (Arc::new(file), number, header.len() as u64);
        state.after_gap = false;
        state.total_bytes += header.len() as u64;
        Ok(())
    }

    /// The syncing thread: whatever was appended is on disk within [`SYNC_EVERY`].
    fn keep_synced(&self) {
        loop {
            let mut state = self.lock();
            while state.dirty.is_empty() && !state.closing && !self.full.load(Ordering::Relaxed) {
                state = self.changed.wait(state).expect("no holder of this lock panics");
            }
            let closing = state.closing;
            if !closing {
                let wait = if state.dirty.is_empty() { ROOM_LOOKED_FOR_EVERY } else { SYNC_EVERY / 2 };
                state = self.changed.wait_timeout(state, wait).expect("no holder of this lock panics").0;
            }
            if self.full.load(Ordering::Relaxed) {
                // Somebody may have moved old segments away.
                state.total_bytes = total_bytes(&self.folder).unwrap_or(state.total_bytes);
            }
            let dirty = std::mem::take(&mut state.dirty);
            let file = state.file.clone();
            drop(state);
            let synced = if dirty.is_empty() { Ok(()) } else { file.sync_data() };
            let space = rustix::fs::statvfs(&self.folder).map_or(u64::MAX, |s| s.f_bavail.saturating_mul(s.f_frsize));
            let mut state = self.lock();
            // By the bytes there are now: lines came while this thread waited for the disk.
            self.look_for_room(state.total_bytes, space);
            match synced {
                Ok(()) => state.durable.extend(dirty),
                Err(error) => {
                    tracing::error!(%error, "read journal can't be synced");
                    state.failed = true;
                    drop(state);
                    self.failed(&error.to_string());
                }
            }
            if closing {
                return;
            }
        }
    }

    fn look_for_room(&self, total: u64, space: u64) {
        let full = self.limits.total_bytes <= total || space < self.limits.reserve_bytes;
        if full != self.full.swap(full, Ordering::Relaxed) {
            if full {
                tracing::error!("read journal is full: reads are refused until space returns");
            } else {
                tracing::info!("read journal has room again");
            }
        }
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    let passing = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    rustix::io::Errno::from_io_error(error).is_some_and(|errno| passing.contains(&errno))
}

fn is_out_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A handle to fill the place of the segment that is opened next.
fn unopened(folder: &Path) -> io::Result<File> {
    File::open(folder)
}

fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("reads-{number:010}.log"))
}

/// Bytes of all segments.
fn total_bytes(folder: &Path) -> io::Result<u64> {
    Ok(segments(folder)?.iter().map(|(_, path)| fs::metadata(path).map_or(0, |m| m.len())).sum())
}

fn segments(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let number =
            path.file_name().and_then(|name| name.to_str()?.strip_prefix("reads-")?.strip_suffix(".log")?.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort();
    Ok(found)
}

/// A line as it is stored after `head`, and the head then: once through, since all who read wait for one another here.
fn stored(
    realm: Realm,
    head: Head,
    (position, plain_bytes): (u64, usize),
    seal: impl FnOnce(&mut Vec<u8>),
) -> (Vec<u8>, Head) {
    const BODY: usize = LINE_HEADER - 8;
    let mut line = Vec::with_capacity(LINE_HEADER + plain_bytes + OVERHEAD_BYTES + 32);
    line.extend_from_slice(&[0; 4]);
    line.extend_from_slice(&realm.0.to_be_bytes());
    line.extend_from_slice(&head.next_seq().to_be_bytes());
    line.extend_from_slice(&position.to_be_bytes());
    seal(&mut line);
    let head = head.after(Chain::Reads, realm, &line[BODY..]);
    line.extend_from_slice(&head.hash);
    let length = u32::try_from(line.len() - 4).expect("texts of a line are cut");
    line[..4].copy_from_slice(&length.to_be_bytes());
    (line, head)
}

/// One parsed line.
struct Parsed<'a> {
    realm: Realm,
    seq: u64,
    body: &'a [u8],
    hash: [u8; 32],
}

/// Takes a line off `bytes`; `None` where no whole line stands.
fn parse_line<'a>(bytes: &mut &'a [u8]) -> Option<Parsed<'a>> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    if LINE_BYTES_MAX < length {
        return None;
    }
    let (line, after) = rest.split_at_checked(length)?;
    let (realm, line) = line.split_first_chunk::<4>()?;
    let (seq, line) = line.split_first_chunk::<8>()?;
    let (body, hash) = line.split_last_chunk::<32>()?;
    *bytes = after;
    Some(Parsed { realm: Realm(u32::from_be_bytes(*realm)), seq: u64::from_be_bytes(*seq), body, hash: *hash })
}

/// Whether what a segment ends with may be the beginning of a line that a crash cut short.
fn is_torn(rest: &[u8]) -> bool {
    let Some((length, line)) = rest.split_first_chunk::<4>() else { return !rest.is_empty() };
    let length = u32::from_be_bytes(*length) as usize;
    (LINE_HEADER + 32 - 4..=LINE_BYTES_MAX).contains(&length) && line.len() < length
}

fn parse_header(bytes: &mut &[u8]) -> Option<(BTreeMap<Realm, Head>, bool)> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (checkpoint, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *bytes = rest;
    let Checkpoint { heads, after_gap } = codec::decode(checkpoint, usize::MAX).ok()?;
    Some((heads.into_iter().collect(), after_gap))
}

/// Reads a segment to the last line that holds, cuts off what follows, and gives the heads there.
fn recover(path: &Path) -> io::Result<(BTreeMap<Realm, Head>, bool)> {
    let bytes = read_all(path)?;
    let mut rest = bytes.as_slice();
    let Some((mut heads, _)) = parse_header(&mut rest) else {
        return Err(io::Error::other(format!("{} does not begin as a segment of the read journal", path.display())));
    };
    loop {
        let before = rest;
        let holds = parse_line(&mut rest).and_then(|line| {
            let head = heads.get(&line.realm).copied().unwrap_or_default().after(Chain::Reads, line.realm, line.body);
            (head.seq == line.seq && head.hash == line.hash).then_some((line.realm, head))
        });
        match holds {
            Some((realm, head)) => heads.insert(realm, head),
            None => {
                if !before.is_empty() {
                    cut(path, bytes.len() - before.len(), before)?;
                }
                return Ok((heads, !before.is_empty()));
            }
        };
    }
}

/// Shortens a segment. What goes is kept aside: it may be more than a crash's half line, and then somebody will ask.
fn cut(path: &Path, len: usize, end: &[u8]) -> io::Result<()> {
    let mut aside = OpenOptions::new().append(true).create(true).mode(0o600).open(path.with_extension("cut"))?;
    aside.write_all(end)?;
    aside.sync_data()?;
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(len as u64)?;
    file.sync_all()
}

fn read_all(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Verifies the journal against what the store's commits say of it, and adds to their report.
///
/// # Errors
/// A segment can't be read.
pub fn verify_journal(folder: &Path, report: &mut Report) -> io::Result<()> {
    if report.first_break.is_none() {
        report.first_break = follow(folder, report)?.err();
    }
    Ok(())
}

fn follow(folder: &Path, report: &mut Report) -> io::Result<Result<(), Break>> {
    let broken = |realm, seq, what| Ok(Err(Break { chain: Chain::Reads, realm, seq, what }));
    let (mut heads, mut started_from) = (BTreeMap::new(), BTreeMap::new());
    let mut named = std::mem::take(&mut report.named_reads);
    for (index, (_, path)) in segments(folder)?.into_iter().enumerate() {
        let bytes = read_all(&path)?;
        let mut rest = bytes.as_slice();
        let Some((checkpoint, after_gap)) = parse_header(&mut rest) else {
            return broken(Realm::NODE, 0, "segment damaged");
        };
        report.gaps += u64::from(after_gap);
        if index == 0 {
            // Older segments may have been moved away; the checkpoint vouches for them.
            started_from.clone_from(&checkpoint);
            heads = checkpoint;
        } else if heads != checkpoint {
            return broken(Realm::NODE, 0, "segment does not follow from the one before");
        }
        while let Some(line) = parse_line(&mut rest) {
            let head = heads.get(&line.realm).copied().unwrap_or_default().after(Chain::Reads, line.realm, line.body);
            if head.seq != line.seq || head.hash != line.hash {
                return broken(line.realm, head.seq, "line does not follow from the one before");
            }
            if named.get(&line.realm) == Some(&head) {
                named.remove(&line.realm);
            }
            heads.insert(line.realm, head);
            report.reads += 1;
            report.realms.entry(line.realm).or_default().reads += 1;
        }
        if is_torn(rest) {
            report.gaps += 1;
        } else if !rest.is_empty() {
            return broken(Realm::NODE, 0, "line damaged");
        }
    }
    // What was moved away can't be compared, save for its very end.
    named.retain(|realm, named| {
        started_from.get(realm).is_none_or(|start: &Head| start.seq <= named.seq && start != named)
    });
    match named.first_key_value() {
        None => Ok(Ok(())),
        Some((realm, named)) => {
            let held = heads.get(realm).map_or(0, |head: &Head| head.seq);
            let what =
                if held < named.seq { "lines that a commit names are missing" } else { "not what a commit names" };
            broken(*realm, named.seq.min(held + 1), what)
        }
    }
}

#[cfg(test)]
mod tests;

//! The file that reads and refusals are written to before they are answered.
//!
//! Segments `reads-NNNNNNNNNN.log` in one folder. A segment begins with [`MAGIC`] and a checkpoint (the head of every
//! chain, length-prefixed); then lines: `length u32 BE | realm u32 BE | seq u64 BE | position u64 BE | envelope |
//! hash 32`, where position is the realm's chain of changes at the time. A line is handed to the kernel before
//! [`Journal::append`] returns and is on disk within [`SYNC_EVERY`].

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use holdfast_protocol::codec::{self, length_prefixed};
use holdfast_protocol::envelope;
use holdfast_protocol::ids::Realm;

use crate::audit_log::verify::{Break, Report};
use crate::audit_log::{Chain, Head, Line, line_aad};
use crate::barrier::{DurableReads, Snapshot};
use crate::ports::{Entropy, draw};
use crate::rows::Refusal;
use crate::store::Fault;

const MAGIC: &[u8; 8] = b"HFREADS1";
/// A line is on disk at most this long after its reply.
pub const SYNC_EVERY: Duration = Duration::from_millis(50);
/// A full journal looks so often whether space has returned: segments may be moved away while the node runs.
const FULL_EVERY: Duration = Duration::from_millis(500);
/// Length, realm, seq, position.
const LINE_HEADER: usize = 4 + 4 + 8 + 8;
const LINE_BYTES_MAX: usize = 64 << 10;

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
}

struct State {
    file: File,
    number: u64,
    segment_bytes: u64,
    total_bytes: u64,
    heads: BTreeMap<Realm, Head>,
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
        let unfinished = remove_unfinished(folder)?;
        let segments = segments(folder)?;
        let total_bytes = bytes_of(&segments);
        let (number, heads, torn) = match segments.last() {
            Some((number, path)) => {
                let (heads, torn) = recover(path)?;
                (*number, heads, torn)
            }
            None => (0, BTreeMap::new(), false),
        };
        let number = number.max(unfinished.unwrap_or_default());
        let state = State {
            file: unopened(folder)?,
            number,
            segment_bytes: 0,
            total_bytes,
            heads,
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
        });
        shared.begin_segment(&mut shared.lock())?;
        let syncing = shared.clone();
        let syncer =
            std::thread::Builder::new().name("read-journal".to_owned()).spawn(move || syncing.keep_synced())?;
        Ok(Self { shared, entropy, syncer: Some(syncer), torn })
    }

    /// Whether the last run's journal ended in the middle of a line.
    pub fn was_torn(&self) -> bool {
        self.torn
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
        if self.shared.full.load(Ordering::Relaxed) {
            return Err(Fault::Full.into());
        }
        let keys = snapshot.realm_keys(realm)?;
        let (id, key) = keys.current();
        let position = snapshot.change_head(realm)?.seq;
        let plain = codec::encode(line);
        let nonce = draw(&*self.entropy);

        let mut state = self.shared.lock();
        if state.failed {
            return Err(Fault::Stopped.into());
        }
        if realm == Realm::NODE && self.shared.is_spent_on_strangers(&state) {
            return Err(Fault::Full.into());
        }
        let head = state.heads.get(&realm).copied().unwrap_or_default();
        let aad = line_aad(Chain::Reads, snapshot.ring().deployment(), realm, head.seq + 1);
        let mut body = position.to_be_bytes().to_vec();
        body.extend_from_slice(&envelope::seal(key, id, nonce, &aad, &plain));
        self.shared.write(&mut state, realm, head, &body).map_err(|error| Fault::Io(error.to_string()).into())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
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

    fn write(&self, state: &mut State, realm: Realm, head: Head, body: &[u8]) -> io::Result<()> {
        if self.limits.segment_bytes <= state.segment_bytes {
            state.file.sync_data()?;
            self.begin_segment(state)?;
        }
        let head = head.after(Chain::Reads, realm, body);
        let mut line = Vec::with_capacity(LINE_HEADER + body.len() + 32);
        let length = u32::try_from(body.len() + 4 + 8 + 32).map_err(io::Error::other)?;
        line.extend_from_slice(&length.to_be_bytes());
        line.extend_from_slice(&realm.0.to_be_bytes());
        line.extend_from_slice(&head.seq.to_be_bytes());
        line.extend_from_slice(body);
        line.extend_from_slice(&head.hash);
        if let Err(error) = state.file.write_all(&line) {
            // Half a line may stand there now; nothing may follow it.
            state.failed = true;
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

    fn begin_segment(&self, state: &mut State) -> io::Result<()> {
        let number = state.number + 1;
        let path = self.folder.join(format!("reads-{number:010}.log"));
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
        let heads: Vec<(Realm, Head)> = state.heads.iter().map(|(realm, head)| (*realm, *head)).collect();
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&length_prefixed(&[&codec::encode(&heads)]));
        let written = file.write_all(&header).and_then(|()| file.sync_data());
        if let Err(error) = written.and_then(|()| File::open(&self.folder)?.sync_all()) {
            // In the way of the next attempt, and nothing is in it.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        (state.file, state.number, state.segment_bytes) = (file, number, header.len() as u64);
        state.total_bytes += header.len() as u64;
        Ok(())
    }

    /// Strangers can have lines written to the node's chain, so those get no more than three quarters of the room:
    /// what they can't fill keeps the tenants' reads going.
    fn is_spent_on_strangers(&self, state: &State) -> bool {
        self.limits.total_bytes / 4 * 3 <= state.total_bytes
    }

    /// Waits for lines to sync. A full journal gets none, so it looks from time to time whether space has returned.
    fn wait_for_work<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while state.dirty.is_empty() && !state.closing {
            if self.full.load(Ordering::Relaxed) {
                state = self.changed.wait_timeout(state, FULL_EVERY).expect("no holder of this lock panics").0;
                if let Ok(segments) = segments(&self.folder) {
                    state.total_bytes = bytes_of(&segments);
                }
                return state;
            }
            state = self.changed.wait(state).expect("no holder of this lock panics");
        }
        state
    }

    /// The syncing thread: whatever was appended is on disk within [`SYNC_EVERY`].
    fn keep_synced(&self) {
        loop {
            let mut state = self.wait_for_work(self.lock());
            let closing = state.closing;
            if !closing {
                state = self.changed.wait_timeout(state, SYNC_EVERY / 2).expect("no holder of this lock panics").0;
            }
            let dirty = std::mem::take(&mut state.dirty);
            let (file, total) = (state.file.try_clone(), state.total_bytes);
            drop(state);
            let synced = file.and_then(|file| file.sync_data());
            let space = rustix::fs::statvfs(&self.folder).map_or(u64::MAX, |s| s.f_bavail.saturating_mul(s.f_frsize));
            let full = self.limits.total_bytes <= total || space < self.limits.reserve_bytes;
            if full && !self.full.swap(full, Ordering::Relaxed) {
                tracing::error!("read journal is full: reads are refused until space returns");
            }
            self.full.store(full, Ordering::Relaxed);
            let mut state = self.lock();
            match synced {
                Ok(()) => state.durable.extend(dirty),
                Err(error) => {
                    tracing::error!(%error, "read journal can't be synced");
                    state.failed = true;
                }
            }
            if closing {
                return;
            }
        }
    }
}

/// A handle to fill the place of the segment that is opened next.
fn unopened(folder: &Path) -> io::Result<File> {
    File::open(folder)
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

fn bytes_of(segments: &[(u64, PathBuf)]) -> u64 {
    segments.iter().map(|(_, path)| fs::metadata(path).map_or(0, |found| found.len())).sum()
}

/// Removes the newest segment if a crash came before its beginning was whole: it never held a line. Says its number,
/// which is not used again.
fn remove_unfinished(folder: &Path) -> io::Result<Option<u64>> {
    let Some((number, path)) = segments(folder)?.pop() else { return Ok(None) };
    let bytes = read_all(&path)?;
    if !is_unfinished(&bytes) {
        return Ok(None);
    }
    fs::remove_file(path)?;
    File::open(folder)?.sync_all()?;
    Ok(Some(number))
}

/// Whether these bytes are a beginning that was not written to its end. A file system may have kept the length and not
/// the bytes.
fn is_unfinished(bytes: &[u8]) -> bool {
    let magic = &bytes[..bytes.len().min(MAGIC.len())];
    let is_short = match bytes.get(MAGIC.len()..).and_then(<[u8]>::split_first_chunk::<4>) {
        Some((length, rest)) => rest.len() < u32::from_be_bytes(*length) as usize,
        None => true,
    };
    (is_short && MAGIC.starts_with(magic)) || bytes.iter().all(|byte| *byte == 0)
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

fn parse_header(bytes: &mut &[u8]) -> Option<BTreeMap<Realm, Head>> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (heads, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *bytes = rest;
    Some(codec::decode::<Vec<(Realm, Head)>>(heads, usize::MAX).ok()?.into_iter().collect())
}

/// Reads a segment to the last line that holds, cuts off what follows, and gives the heads there.
fn recover(path: &Path) -> io::Result<(BTreeMap<Realm, Head>, bool)> {
    let bytes = read_all(path)?;
    let mut rest = bytes.as_slice();
    let Some(mut heads) = parse_header(&mut rest) else {
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
                let torn = !before.is_empty();
                if torn {
                    let file = OpenOptions::new().write(true).open(path)?;
                    file.set_len((bytes.len() - before.len()) as u64)?;
                    file.sync_all()?;
                }
                return Ok((heads, torn));
            }
        };
    }
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
    if report.first_break.is_some() {
        return Ok(());
    }
    let mut heads: BTreeMap<Realm, Head> = BTreeMap::new();
    let mut named = std::mem::take(&mut report.named_reads);
    let segments = segments(folder)?;
    let count = segments.len();
    for (index, (_, path)) in segments.into_iter().enumerate() {
        let bytes = read_all(&path)?;
        if index + 1 == count && is_unfinished(&bytes) {
            // A crash came before its beginning was whole; the next start removes it.
            break;
        }
        let mut rest = bytes.as_slice();
        let broken = |realm, seq, what| Some(Break { chain: Chain::Reads, realm, seq, what });
        let Some(checkpoint) = parse_header(&mut rest) else {
            report.first_break = broken(Realm::NODE, 0, "segment damaged");
            return Ok(());
        };
        if index == 0 {
            // Older segments may have been moved away; the checkpoint vouches for them.
            heads = checkpoint;
        } else if heads != checkpoint {
            report.first_break = broken(Realm::NODE, 0, "segment does not follow from the one before");
            return Ok(());
        }
        while let Some(line) = parse_line(&mut rest) {
            let head = heads.get(&line.realm).copied().unwrap_or_default().after(Chain::Reads, line.realm, line.body);
            if head.seq != line.seq || head.hash != line.hash {
                report.first_break = broken(line.realm, head.seq, "line does not follow from the one before");
                return Ok(());
            }
            if named.get(&line.realm).is_some_and(|named| named.seq == head.seq && named.hash == head.hash) {
                named.remove(&line.realm);
            }
            heads.insert(line.realm, head);
            report.reads += 1;
        }
        report.gaps += u64::from(!rest.is_empty());
    }
    named.retain(|realm, named| heads.get(realm).is_none_or(|head| head.seq <= named.seq && head != named));
    if let Some((realm, head)) = named.first_key_value() {
        let seq = heads.get(realm).map_or(1, |held| held.seq + 1).min(head.seq);
        let what = "lines that a commit names are missing";
        report.first_break = Some(Break { chain: Chain::Reads, realm: *realm, seq, what });
    }
    Ok(())
}

#[cfg(test)]
mod tests;

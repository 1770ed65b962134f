//! The one thread that writes: many decisions, one commit, then all answers, then the watchers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};

use heed::RwTxn;
use holdfast_protocol::ids::Revision;
use rustix::io::Errno;

use super::tables::{Rows, Tables};
use super::{Fatal, OpenError, Shared};
use crate::store::{Decide, Fault, GROUP_MAX, checked_bytes};

/// Bytes at which a group takes no further decision, to bound a commit's time and its dirty pages.
const GROUP_BYTES_MAX: usize = 8 << 20;

pub(super) enum Job {
    Decide(Box<dyn Decide>),
    /// One slice of a compaction; answers whether it was the last.
    Compact {
        before: Revision,
        reply: SyncSender<Result<bool, Fault>>,
    },
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    tables: Tables,
    jobs: Receiver<Job>,
    /// Taken from the queue while a group was forming, but not part of it.
    held_back: Option<Job>,
    /// The last committed revision.
    revision: Revision,
    /// None once it was called.
    fatal: Option<Fatal>,
}

/// Why a transaction came to nothing.
enum Failure {
    /// No room; the store goes on.
    Full,
    /// It is not known any more what the store can do.
    Fatal(String),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Full => Self::Full,
            other => Self::Fatal(other.to_string()),
        }
    }
}

impl From<heed::Error> for Failure {
    fn from(error: heed::Error) -> Self {
        Fault::from(error).into()
    }
}

/// Decisions in order, with what each will hear if the commit succeeds.
type Group = Vec<(Box<dyn Decide>, Result<Revision, Fault>)>;

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, jobs: Receiver<Job>, fatal: Fatal) -> Result<Self, OpenError> {
        let tables = shared.tables;
        let txn = shared.env.read_txn()?;
        let revision = tables.revision(&txn).map_err(|_| OpenError::NoStore(shared.env.path().to_owned()))?;
        drop(txn);
        Ok(Self { shared, tables, jobs, held_back: None, revision, fatal: Some(fatal) })
    }

    /// Until the engine is dropped and the queue empty. A thread that ends in any other way has failed.
    pub(super) fn run(mut self) {
        if catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            self.stop("the writer panicked");
        }
    }

    fn work(&mut self) {
        while let Some(job) = self.held_back.take().or_else(|| self.wait_for_job()) {
            match job {
                Job::Decide(decide) => self.group(decide),
                Job::Compact { before, reply } => {
                    let done = self.compact(before);
                    // A caller that is gone needs no answer.
                    let _ = reply.send(done);
                }
            }
        }
    }

    fn group(&mut self, first: Box<dyn Decide>) {
        if self.shared.has_stopped() {
            return self.settle(vec![(first, Err(Fault::Stopped))]);
        }
        let mut group = Group::new();
        let result = catch_unwind(AssertUnwindSafe(|| self.transact(first, &mut group)))
            .unwrap_or_else(|_| Err(Failure::Fatal("a decision panicked".to_owned())));
        match result {
            Ok(written) => {
                self.settle(group);
                written.into_iter().for_each(|revision| self.wake(revision));
            }
            Err(Failure::Full) => self.settle(all_failed(group, Fault::Full)),
            Err(Failure::Fatal(why)) => {
                // Before the answers: who submits again in one of them is refused.
                self.shared.stopped.store(true, Ordering::SeqCst);
                self.settle(all_failed(group, Fault::Stopped));
                self.stop(&why);
            }
        }
    }

    /// Decides, writes and commits. Returns the revision reached; none if nothing was written.
    fn transact(&mut self, first: Box<dyn Decide>, group: &mut Group) -> Result<Option<Revision>, Failure> {
        let shared = self.shared.clone();
        let mut txn = shared.env.write_txn()?;
        let has_room = self.has_room()?;
        let mut reached = self.revision;
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(decide) = next.take() {
            // In the group before it runs: whatever happens, it will be answered.
            let (decide, outcome) = group.push_mut((decide, Err(Fault::Stopped)));
            let view = Rows::decided(self.tables, &txn, reached);
            let ops = decide.decide(&view).unwrap_or_default();
            *outcome = match checked_bytes(&ops) {
                Ok(_) if !ops.is_empty() && !has_room && !decide.may_use_reserve() => Err(Fault::Full),
                Ok(more) => {
                    bytes += more;
                    reached = self.tables.apply(&mut txn, reached, &ops)?;
                    Ok(reached)
                }
                Err(fault) => Err(fault),
            };
            if group.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX {
                next = self.next_decision();
            }
        }
        if reached == self.revision {
            return Ok(None);
        }
        reached = self.close(&mut txn, reached)?;
        self.tables.set_revision(&mut txn, reached)?;
        txn.commit().map_err(|error| self.commit_failure(error))?;
        self.revision = reached;
        Ok(Some(reached))
    }

    fn close(&self, txn: &mut RwTxn, reached: Revision) -> Result<Revision, Failure> {
        let Some(end) = self.shared.end.get() else { return Ok(reached) };
        let ops = end.ops(&Rows::decided(self.tables, txn, reached));
        checked_bytes(&ops)?;
        Ok(self.tables.apply(txn, reached, &ops)?)
    }

    fn wait_for_job(&self) -> Option<Job> {
        let job = self.jobs.recv().ok()?;
        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(job)
    }

    /// The next job, if it is there and a decision.
    fn next_decision(&mut self) -> Option<Box<dyn Decide>> {
        let job = self.jobs.try_recv().ok()?;
        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        match job {
            Job::Decide(decide) => Some(decide),
            compact @ Job::Compact { .. } => {
                self.held_back = Some(compact);
                None
            }
        }
    }

    fn compact(&mut self, before: Revision) -> Result<bool, Fault> {
        if self.shared.has_stopped() {
            return Err(Fault::Stopped);
        }
        self.compact_slice(before).map_err(|failure| match failure {
            Failure::Full => Fault::Full,
            Failure::Fatal(why) => {
                self.stop(&why);
                Fault::Stopped
            }
        })
    }

    fn compact_slice(&self, before: Revision) -> Result<bool, Failure> {
        // Readers of other processes may have died since the last time.
        self.shared.env.clear_stale_readers()?;
        let mut txn = self.shared.env.write_txn()?;
        let last = self.tables.compact(&mut txn, before)?;
        txn.commit().map_err(|error| self.commit_failure(error))?;
        Ok(last)
    }

    /// A disk that filled up despite the reserve fails the writing of data pages, which harms nothing: the transaction
    /// is gone. If it was the page that makes the commit visible, LMDB refuses further transactions, and the outcome is
    /// open until the store is opened again.
    fn commit_failure(&self, error: heed::Error) -> Failure {
        let out_of_space = match &error {
            heed::Error::Io(io) => {
                [Errno::NOSPC, Errno::DQUOT].map(|it| Some(it.raw_os_error())).contains(&io.raw_os_error())
            }
            _ => false,
        };
        if out_of_space && self.shared.env.write_txn().is_ok() { Failure::Full } else { error.into() }
    }

    fn has_room(&self) -> Result<bool, Failure> {
        let disk = rustix::fs::fstatvfs(&self.shared.folder).map_err(|errno| Failure::Fatal(errno.to_string()))?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize) >= self.shared.settings.reserve_bytes)
    }

    /// Answers, every one even where another's answer panics.
    fn settle(&mut self, group: Group) {
        for (decide, outcome) in group {
            if catch_unwind(AssertUnwindSafe(|| decide.done(outcome))).is_err() {
                self.stop("an answer panicked");
            }
        }
    }

    /// Tells the watchers, outside their lock: one of them may register another.
    fn wake(&mut self, revision: Revision) {
        let watchers = self.shared.watchers.lock().expect("nothing panics holding it").clone();
        if catch_unwind(AssertUnwindSafe(|| watchers.iter().for_each(|wake| wake(revision)))).is_err() {
            self.stop("a watcher panicked");
        }
    }

    fn stop(&mut self, why: &str) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        if let Some(fatal) = self.fatal.take() {
            fatal(why);
        }
    }
}

fn all_failed(group: Group, fault: Fault) -> Group {
    group.into_iter().map(|(decide, _)| (decide, Err(fault.clone()))).collect()
}

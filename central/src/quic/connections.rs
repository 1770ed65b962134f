//! The open sessions and the way out to each: a bounded queue, and one writer that asks the fence before every frame.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use holdfast_actors::attestation_verifier::core::ConnId;
use holdfast_actors::ports::{Entropy, draw};
use holdfast_actors::shell::{Load, caught};
use holdfast_protocol::ids::HostId;
use holdfast_protocol::secret::Secret;
use holdfast_protocol::session::seal_message;
use holdfast_protocol::wire::{CloseCode, FromCentral, Sealed, Signed};
use quinn::{Connection, SendStream};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::quic::frames;

/// Frames that wait for one host. A host that reads so slowly is disconnected, and comes back where it was.
const OUTBOX_MAX: usize = 256;
/// How many of them may be of sequences, which are large.
const FED_MAX: usize = 8;
/// What was queued before a close may take this long to get through.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);
/// A host that is told that it is cut off may take this long to seal itself and say so.
const SEAL_LIMIT: Duration = Duration::from_secs(2);

/// One thing to send.
pub(crate) enum Out {
    /// As it is.
    Plain(FromCentral),
    /// From here on there is a session key.
    Session(Secret<32>),
    /// Under the session key.
    Sealed(Sealed),
    /// An encoded bundle, shared by all who get it.
    Bundle(Arc<[u8]>),
    /// One of a sequence, with its place among those that wait.
    Fed(Box<Out>, OwnedSemaphorePermit),
    /// A signed notice: the only thing that one cut off is still sent.
    Notice(Signed),
    /// After what came before: the end.
    Close(CloseCode),
}

/// One session's way out.
#[derive(Clone)]
struct Handle {
    host: HostId,
    connection: Connection,
    outbox: mpsc::Sender<Out>,
    cut: Arc<AtomicBool>,
    /// Until when this very connection's own verdict holds, microseconds of the monotonic clock; 0: it has none.
    trusted_until_us: Arc<AtomicU64>,
    sealed: Arc<Notify>,
    /// Places in the queue for sequences; the others are for what can't wait.
    fed: Arc<Semaphore>,
    ended: watch::Receiver<bool>,
}

impl Handle {
    /// Waits until nothing can be written any more; whoever does not read what was queued is cut short.
    async fn ended(mut self, code: CloseCode) {
        if tokio::time::timeout(2 * FLUSH_LIMIT, self.ended.wait_for(|ended| *ended)).await.is_err() {
            self.connection.close((code as u32).into(), b"");
            let _ = self.ended.wait_for(|ended| *ended).await;
        }
    }
}

/// All sessions.
#[derive(Default)]
pub(crate) struct Connections {
    handles: Mutex<BTreeMap<ConnId, Handle>>,
    /// Sessions that ended because too much waited for their hosts.
    overflowed: AtomicU64,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ConnId, Handle>> {
        self.handles.lock().expect("no holder of this lock panics")
    }

    /// Takes a session's sending half and starts its writer.
    pub(crate) fn open(
        &self,
        conn: ConnId,
        host: HostId,
        connection: Connection,
        stream: SendStream,
        entropy: Arc<dyn Entropy>,
    ) {
        let (outbox, queue) = mpsc::channel(OUTBOX_MAX);
        let (tell, ended) = watch::channel(false);
        let (cut, sealed) = (Arc::new(AtomicBool::new(false)), Arc::<Notify>::default());
        let (fence, host_sealed) = (cut.clone(), sealed.clone());
        let mut writer = Writer { host: host.clone(), stream, queue, cut: cut.clone(), entropy, session: None };
        let trusted_until_us = Arc::default();
        let fed = Arc::new(Semaphore::new(FED_MAX));
        let handle = Handle { host, connection: connection.clone(), outbox, cut, trusted_until_us, sealed, fed, ended };
        self.lock().insert(conn, handle);
        tokio::spawn(async move {
            // Whatever ends the writing ends the connection.
            let code = caught(writer.run()).await.unwrap_or(CloseCode::Stale);
            // Only who was given a session key may be unsealed.
            let may_be_unsealed = writer.session.is_some() && fence.load(Ordering::SeqCst);
            drop(writer);
            tell.send_replace(true);
            if may_be_unsealed {
                tokio::select! {
                    () = host_sealed.notified() => {}
                    _ = connection.closed() => {}
                    () = tokio::time::sleep(SEAL_LIMIT) => {}
                }
            }
            connection.close((code as u32).into(), b"");
        });
    }

    /// Forgets a session that has ended.
    pub(crate) fn gone(&self, conn: ConnId) {
        self.lock().remove(&conn);
    }

    /// Sessions now.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// The fullest outbox.
    pub(crate) fn outboxes(&self) -> Load {
        let fullest = self.lock().values().map(|handle| OUTBOX_MAX - handle.outbox.capacity()).max();
        Load::of(fullest.unwrap_or(0), OUTBOX_MAX, self.overflowed.load(Ordering::Relaxed))
    }

    /// Places taken by sequences where most are. Nobody is refused one: who feeds waits.
    pub(crate) fn sequences(&self) -> Load {
        let most = self.lock().values().map(|handle| FED_MAX - handle.fed.available_permits()).max();
        Load::of(most.unwrap_or(0), FED_MAX, 0)
    }

    fn overflow(&self, handle: &Handle, code: CloseCode) {
        self.overflowed.fetch_add(1, Ordering::Relaxed);
        handle.connection.close((code as u32).into(), b"");
    }

    /// Queues something. A full queue ends the session.
    pub(crate) fn send(&self, conn: ConnId, out: Out) {
        let Some(handle) = self.lock().get(&conn).cloned() else { return };
        // One that is closed is on its way to its end already.
        if let Err(TrySendError::Full(_)) = handle.outbox.try_send(out) {
            self.overflow(&handle, CloseCode::Stale);
        }
    }

    /// Queues a sequence at the pace the host reads it, beside what else is sent there. What is left when the session
    /// ends is dropped.
    pub(crate) fn feed(&self, conn: ConnId, sequence: Vec<Out>) {
        let Some(handle) = self.lock().get(&conn).cloned() else { return };
        tokio::spawn(async move {
            for out in sequence {
                let Ok(place) = handle.fed.clone().acquire_owned().await else { return };
                if handle.outbox.send(Out::Fed(Box::new(out), place)).await.is_err() {
                    return;
                }
            }
        });
    }

    /// A host has said that it is sealed, and that is written down.
    pub(crate) fn sealed(&self, conn: ConnId) {
        if let Some(handle) = self.lock().get(&conn) {
            handle.sealed.notify_one();
        }
    }

    /// From here on what the host says on this connection counts, until then.
    pub(crate) fn trust(&self, conn: ConnId, until: Duration) {
        if let Some(handle) = self.lock().get(&conn) {
            handle.trusted_until_us.store(us(until), Ordering::SeqCst);
        }
    }

    /// From here on it does not.
    pub(crate) fn distrust(&self, conn: ConnId) {
        self.trust(conn, Duration::ZERO);
    }

    /// Whether this very connection has passed, its verdict holds and its host is not cut off. Another connection of
    /// the same host proves nothing about this one.
    pub(crate) fn is_trusted(&self, conn: ConnId, now: Duration) -> bool {
        let handles = self.lock();
        let Some(handle) = handles.get(&conn) else { return false };
        us(now) < handle.trusted_until_us.load(Ordering::SeqCst) && !handle.cut.load(Ordering::SeqCst)
    }

    /// Ends a session after what was queued for it, or a second later if the host does not read that.
    pub(crate) fn close(&self, conn: ConnId, code: CloseCode) {
        self.distrust(conn);
        let Some(handle) = self.lock().get(&conn).cloned() else { return };
        if let Err(TrySendError::Full(_)) = handle.outbox.try_send(Out::Close(code)) {
            self.overflow(&handle, code);
        }
        tokio::spawn(handle.ended(code));
    }

    /// Ends a session at once: what was queued for it is not sent.
    pub(crate) fn sever(&self, conn: ConnId, code: CloseCode) {
        self.distrust(conn);
        if let Some(handle) = self.lock().get(&conn) {
            handle.connection.close((code as u32).into(), b"");
        }
    }

    /// As [`Connections::close`], for all sessions.
    pub(crate) fn close_all(&self, code: CloseCode) {
        let all: Vec<ConnId> = self.lock().keys().copied().collect();
        all.into_iter().for_each(|conn| self.close(conn, code));
    }

    /// Raises the fence for the sessions that match: from now on they are sent notices only.
    pub(crate) fn cut(&self, matches: impl Fn(&HostId) -> bool) -> Vec<(ConnId, HostId)> {
        let handles = self.lock();
        let matching = handles.iter().filter(|(_, handle)| matches(&handle.host));
        matching
            .map(|(conn, handle)| {
                handle.cut.store(true, Ordering::SeqCst);
                (*conn, handle.host.clone())
            })
            .collect()
    }

    /// Ends sessions and waits until nothing can be written to them any more.
    pub(crate) async fn end(&self, conns: impl IntoIterator<Item = ConnId>, code: CloseCode) {
        let handles: Vec<Handle> = {
            let all = self.lock();
            conns.into_iter().filter_map(|conn| all.get(&conn).cloned()).collect()
        };
        for handle in &handles {
            if let Err(TrySendError::Full(_)) = handle.outbox.try_send(Out::Close(code)) {
                self.overflow(handle, code);
            }
        }
        for handle in handles {
            handle.ended(code).await;
        }
    }

    /// Ends all sessions.
    pub(crate) async fn end_all(&self, code: CloseCode) {
        let all: Vec<ConnId> = self.lock().keys().copied().collect();
        self.end(all, code).await;
    }
}

fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

struct Session {
    key: Secret<32>,
    counter: u64,
}

struct Writer {
    host: HostId,
    stream: SendStream,
    queue: mpsc::Receiver<Out>,
    cut: Arc<AtomicBool>,
    entropy: Arc<dyn Entropy>,
    session: Option<Session>,
}

impl Writer {
    /// Writes until the end, after which nothing is written any more; says what to close with.
    async fn run(&mut self) -> CloseCode {
        while let Some(out) = self.queue.recv().await {
            if let Out::Close(code) = out {
                let _ = self.stream.finish();
                let _ = tokio::time::timeout(FLUSH_LIMIT, self.stream.stopped()).await;
                return code;
            }
            let Some(message) = self.message(out) else { continue };
            if frames::write(&mut self.stream, &message).await.is_err() {
                return CloseCode::Done;
            }
        }
        CloseCode::Done
    }

    /// What goes on the wire; `None`: nothing, since this host is cut off or the thing is for us.
    fn message(&mut self, out: Out) -> Option<FromCentral> {
        if self.cut.load(Ordering::SeqCst) && !matches!(out, Out::Notice(_)) {
            return None;
        }
        match out {
            Out::Plain(message) => Some(message),
            Out::Notice(signed) => Some(FromCentral::Standing(signed)),
            Out::Bundle(bytes) => Some(FromCentral::Bundle(bytes.to_vec())),
            Out::Session(key) => {
                self.session = Some(Session { key, counter: 0 });
                None
            }
            Out::Sealed(message) => {
                let session = self.session.as_mut()?;
                let counter = session.counter;
                session.counter += 1;
                let nonce = draw(&*self.entropy);
                let envelope = seal_message(&session.key, nonce, &self.host, counter, &message);
                Some(FromCentral::Sealed { counter, envelope })
            }
            Out::Fed(out, _place) => self.message(*out),
            Out::Close(_) => None,
        }
    }
}

//! The logs that clients follow: who hears of what, and how many may listen. What is told is never waited for: each
//! tenant has a ring of its own for each log, and whoever falls behind by a whole ring is cut off rather than left with a
//! gap. Where nobody listens, a request costs one look at a number.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_actors::shell::{Bounded, Load};
use holdfast_protocol::ids::Realm;
use tokio::sync::broadcast::{self, error::RecvError};

use super::events::Event;

/// Streams of a node at once.
const STREAMS_MAX: usize = 64;
/// Those of one tenant.
const STREAMS_EACH_MAX: usize = 16;
/// Lines by which a listener may be behind.
const BEHIND_MAX: usize = 1024;

/// Which log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Log {
    /// Every request.
    Audit,
    /// What went wrong here.
    Error,
}

/// All streams of a node.
#[derive(Default)]
pub struct Streams {
    listeners: AtomicUsize,
    channels: Mutex<Channels>,
}

#[derive(Default)]
struct Channels {
    of: BTreeMap<(Realm, Log), broadcast::Sender<Arc<Event>>>,
    /// By the tenants of the listeners.
    listeners: BTreeMap<Realm, usize>,
    refused: u64,
}

impl Streams {
    /// Whether anybody listens to anything.
    pub(super) fn are_heard(&self) -> bool {
        self.listeners.load(Ordering::Relaxed) > 0
    }

    /// Listens to what is told of `realm`, and `and_node` to what is told of nobody; `None`: as many listen as may.
    pub(super) fn listen(self: &Arc<Self>, realm: Realm, log: Log, and_node: bool) -> Option<Listener> {
        let mut channels = self.lock();
        let all: usize = channels.listeners.values().sum();
        let each = channels.listeners.entry(realm).or_default();
        if STREAMS_MAX <= all || STREAMS_EACH_MAX <= *each {
            channels.refused += 1;
            return None;
        }
        *each += 1;
        self.listeners.fetch_add(1, Ordering::Relaxed);
        let own = channels.subscribe((realm, log));
        let nodes = and_node.then(|| channels.subscribe((Realm::NODE, log)));
        Some(Listener { streams: self.clone(), realm, own: Some(own), nodes })
    }

    /// Tells those who listen to `realm`.
    pub(super) fn tell(&self, realm: Realm, log: Log, event: Event) {
        let sender = self.lock().of.get(&(realm, log)).cloned();
        if let Some(sender) = sender {
            // The last of them may have gone just now.
            let _ = sender.send(Arc::new(event));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Channels {
    fn subscribe(&mut self, to: (Realm, Log)) -> broadcast::Receiver<Arc<Event>> {
        self.of.entry(to).or_insert_with(|| broadcast::Sender::new(BEHIND_MAX)).subscribe()
    }
}

impl Bounded for Streams {
    fn load(&self) -> Load {
        let channels = self.lock();
        Load::of(channels.listeners.values().sum(), STREAMS_MAX, channels.refused)
    }
}

/// One who listens.
pub(super) struct Listener {
    streams: Arc<Streams>,
    realm: Realm,
    /// Both `None` only while it is dropped.
    own: Option<broadcast::Receiver<Arc<Event>>>,
    nodes: Option<broadcast::Receiver<Arc<Event>>>,
}

impl Listener {
    /// What is told next; `None`: it has fallen too far behind.
    pub(super) async fn next(&mut self) -> Option<Arc<Event>> {
        let told = tokio::select! {
            told = received(&mut self.own) => told,
            told = received(&mut self.nodes) => told,
        };
        told.ok()
    }
}

async fn received(from: &mut Option<broadcast::Receiver<Arc<Event>>>) -> Result<Arc<Event>, RecvError> {
    match from {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        (self.own, self.nodes) = (None, None);
        let mut channels = self.streams.lock();
        channels.of.retain(|_, sender| sender.receiver_count() > 0);
        if let Some(each) = channels.listeners.get_mut(&self.realm) {
            *each -= 1;
        }
        channels.listeners.retain(|_, each| *each > 0);
        self.streams.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kes::events::failure;

    const ACME: Realm = Realm(2);
    const BETA: Realm = Realm(3);

    fn told(text: &str) -> Event {
        failure(0, text)
    }

    async fn heard(listener: &mut Listener) -> Option<String> {
        let next = std::pin::pin!(listener.next());
        let next = tokio::time::timeout(std::time::Duration::ZERO, next).await.ok()?;
        Some(next.map_or_else(|| "behind".to_owned(), |event| event.line(true)))
    }

    #[tokio::test]
    async fn each_tenant_hears_of_itself_and_of_nobody_else() {
        let streams = Arc::<Streams>::default();
        assert!(!streams.are_heard());
        let mut acme = streams.listen(ACME, Log::Audit, false).unwrap();
        let mut system = streams.listen(Realm(1), Log::Audit, true).unwrap();
        assert!(streams.are_heard());
        for (realm, log) in [(BETA, Log::Audit), (ACME, Log::Error), (Realm::NODE, Log::Audit), (ACME, Log::Audit)] {
            streams.tell(realm, log, told(&format!("{} {log:?}", realm.0)));
        }
        assert!(heard(&mut acme).await.unwrap().contains("2 Audit"));
        assert_eq!(heard(&mut acme).await, None);
        assert!(heard(&mut system).await.unwrap().contains("0 Audit"));
        assert_eq!(heard(&mut system).await, None);
        drop((acme, system));
        assert!(!streams.are_heard() && streams.lock().of.is_empty());
    }

    #[tokio::test]
    async fn who_does_not_listen_is_cut_off_and_nobody_waits_for_him() {
        let streams = Arc::<Streams>::default();
        let mut slow = streams.listen(ACME, Log::Audit, false).unwrap();
        let mut beside = streams.listen(BETA, Log::Audit, false).unwrap();
        for _ in 0..=BEHIND_MAX {
            streams.tell(ACME, Log::Audit, told("x"));
        }
        streams.tell(BETA, Log::Audit, told("y"));
        assert_eq!(heard(&mut slow).await.as_deref(), Some("behind"));
        assert!(
            heard(&mut beside).await.unwrap().contains('y'),
            "what is told of another tenant takes none of its room"
        );
    }

    #[test]
    fn places_are_bounded_for_each_tenant_and_for_all() {
        let streams = Arc::<Streams>::default();
        let of = |realm: u32| streams.listen(Realm(realm), Log::Error, false);
        let mut held: Vec<_> = (0..STREAMS_EACH_MAX).map(|_| of(2).unwrap()).collect();
        assert!(of(2).is_none());
        for realm in 3..6 {
            held.extend((0..STREAMS_EACH_MAX).map(|_| of(realm).unwrap()));
        }
        assert!(of(7).is_none());
        let load = streams.load();
        assert_eq!((load.used, load.limit, load.refused), (64, 64, 2));
        held.pop();
        assert!(of(7).is_some());
    }
}

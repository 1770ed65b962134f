//! The logs that clients follow: who hears of what, and how many may listen. What is told is never waited for: each
//! tenant has a ring of its own for each log, and whoever falls behind by a whole ring is cut off rather than left with a
//! gap. Where nobody listens, a request costs one look at a number.
//!
//! No tenants together keep another from listening: the operators' places are theirs alone, and where the others' are all
//! taken, whoever has most of them gives one up to a tenant that has at least two fewer.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_actors::shell::{Bounded, Load};
use holdfast_protocol::ids::Realm;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::oneshot;

use super::events::Event;

/// Streams of a node at once.
const STREAMS_MAX: usize = 64;
/// Those of one tenant.
const STREAMS_EACH_MAX: usize = 16;
/// Those of all tenants but the operators', who have the rest for themselves.
const STREAMS_SHARED_MAX: usize = STREAMS_MAX - STREAMS_EACH_MAX;
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
    /// By their tenants, the latest last. One that is dropped here is cut off.
    listeners: BTreeMap<Realm, Vec<Place>>,
    /// The operators' tenant at this node, once it was heard of.
    operators: Option<Realm>,
    next: u64,
    refused: u64,
}

/// A listener's place: its number, and what cuts it off when it is dropped.
type Place = (u64, oneshot::Sender<Infallible>);

/// Who wants to listen to what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    /// Where the tenant is at this node.
    pub(super) realm: Realm,
    /// Whether that is the operators' tenant.
    pub(super) is_operators: bool,
    pub(super) log: Log,
    /// Whether what is told of nobody is to be heard, too.
    pub(super) and_node: bool,
}

impl Streams {
    /// Whether anybody listens to anything.
    pub(super) fn are_heard(&self) -> bool {
        self.listeners.load(Ordering::Relaxed) > 0
    }

    /// Listens; `None`: as many listen as may.
    pub(super) fn listen(self: &Arc<Self>, Wish { realm, is_operators, log, and_node }: Wish) -> Option<Listener> {
        let mut channels = self.lock();
        if is_operators {
            channels.operators = Some(realm);
        }
        if !channels.have_room_for(realm) {
            channels.refused += 1;
            return None;
        }
        let number = channels.next;
        channels.next += 1;
        let (cuts_off, cut_off) = oneshot::channel();
        channels.listeners.entry(realm).or_default().push((number, cuts_off));
        self.listeners.fetch_add(1, Ordering::Relaxed);
        let own = channels.subscribe((realm, log));
        let nodes = and_node.then(|| channels.subscribe((Realm::NODE, log)));
        Some(Listener { streams: self.clone(), place: (realm, number), own: Some(own), nodes, cut_off })
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
    /// Whether there is a place for one more listener of a tenant. If need be, somebody else gives up his.
    fn have_room_for(&mut self, realm: Realm) -> bool {
        let own = self.listeners.get(&realm).map_or(0, Vec::len);
        let others = self.listeners.iter().filter(|(of, _)| Some(**of) != self.operators);
        let taken: usize = others.clone().map(|(_, places)| places.len()).sum();
        if STREAMS_EACH_MAX <= own {
            return false;
        }
        if Some(realm) == self.operators || taken < STREAMS_SHARED_MAX {
            return true;
        }
        let most = others.max_by_key(|(_, places)| places.len()).filter(|(_, places)| own + 2 <= places.len());
        let Some(richest) = most.map(|(of, _)| *of) else { return false };
        self.listeners.get_mut(&richest).and_then(Vec::pop).is_some()
    }

    fn subscribe(&mut self, to: (Realm, Log)) -> broadcast::Receiver<Arc<Event>> {
        self.of.entry(to).or_insert_with(|| broadcast::Sender::new(BEHIND_MAX)).subscribe()
    }
}

impl Bounded for Streams {
    fn load(&self) -> Load {
        let channels = self.lock();
        Load::of(channels.listeners.values().map(Vec::len).sum(), STREAMS_MAX, channels.refused)
    }
}

/// One who listens.
pub(super) struct Listener {
    streams: Arc<Streams>,
    place: (Realm, u64),
    cut_off: oneshot::Receiver<Infallible>,
    /// Both `None` only while it is dropped.
    own: Option<broadcast::Receiver<Arc<Event>>>,
    nodes: Option<broadcast::Receiver<Arc<Event>>>,
}

impl Listener {
    /// What is told next; `None`: it has fallen too far behind, or has given up its place.
    pub(super) async fn next(&mut self) -> Option<Arc<Event>> {
        let told = tokio::select! {
            _ = &mut self.cut_off => return None,
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
        let (realm, number) = self.place;
        if let Some(places) = channels.listeners.get_mut(&realm) {
            places.retain(|(of, _)| *of != number);
        }
        channels.listeners.retain(|_, places| !places.is_empty());
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

    fn wish(realm: Realm, log: Log, and_node: bool) -> Wish {
        Wish { realm, is_operators: realm == Realm(1), log, and_node }
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
        let mut acme = streams.listen(wish(ACME, Log::Audit, false)).unwrap();
        let mut system = streams.listen(wish(Realm(1), Log::Audit, true)).unwrap();
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
        let mut slow = streams.listen(wish(ACME, Log::Audit, false)).unwrap();
        let mut beside = streams.listen(wish(BETA, Log::Audit, false)).unwrap();
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

    /// How many a tenant has got so far of those that it tried to have.
    fn take(streams: &Arc<Streams>, realm: u32, tries: usize) -> Vec<Listener> {
        (0..tries).filter_map(|_| streams.listen(wish(Realm(realm), Log::Error, false))).collect()
    }

    #[test]
    fn places_are_bounded_for_each_tenant_and_for_all() {
        let streams = Arc::<Streams>::default();
        let mut held: Vec<_> = (2..=4).map(|realm| take(&streams, realm, 20)).collect();
        assert!(held.iter().all(|of| of.len() == STREAMS_EACH_MAX));
        held.push(take(&streams, 1, 20));
        assert_eq!(held[3].len(), STREAMS_EACH_MAX, "the operators' are theirs");
        let load = streams.load();
        assert_eq!((load.used, load.limit, load.refused), (64, 64, 16));
        drop(held);
        assert_eq!((streams.load().used, streams.are_heard()), (0, false));
    }

    #[tokio::test]
    async fn who_has_many_places_gives_of_them_to_one_who_has_none() {
        let streams = Arc::<Streams>::default();
        let mut held: Vec<_> = (2..=4).map(|realm| take(&streams, realm, 16)).collect();
        let late = take(&streams, 5, 16);
        assert_eq!(late.len(), 12, "an equal part of what there is");
        assert_eq!(streams.load().used, 48);
        for of in &mut held {
            let mut cut_off = 0;
            for listener in of {
                cut_off += usize::from(heard(listener).await.as_deref() == Some("behind"));
            }
            assert_eq!(cut_off, 4);
        }
        let all: Vec<_> = (6..=60).flat_map(|realm| take(&streams, realm, 1)).collect();
        assert_eq!(all.len(), 44, "each has one, and none has more");
        assert!(take(&streams, 61, 1).is_empty());
        assert_eq!(take(&streams, 1, 16).len(), 16, "whoever else listens");
        drop((held, late, all));
        assert_eq!(streams.load().used, 0);
    }
}

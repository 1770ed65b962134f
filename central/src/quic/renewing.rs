//! New versions of the keys that encrypt with what a site or host had that is cut off.
//!
//! Not a list of work that could be lost: whoever comes here looks which keys there are to renew, and renews them. So it
//! goes on after a restart, and once more does no harm.
//!
//! Nobody who cuts something off has to remember to come here: each commit is looked at ([`Hub::renew_cut_off_since`]),
//! whoever made it. An operator's call comes all the same, to wait until it is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_actors::barrier::Snapshot;
use holdfast_actors::distribution::blast::{OpenKey, open_keys};
use holdfast_actors::key_store::FreshKey;
use holdfast_actors::key_store::quarantine::{RenewHeld, Renewed, renew_held};
use holdfast_actors::rows::{Refusal, Rows};
use holdfast_actors::site_registry::cut_off::{Place, cut_off, cut_off_since};
use holdfast_actors::site_registry::restored::refuse_while_stopped;
use holdfast_protocol::ids::{Realm, Revision, SiteName};
use tokio::sync::{Notify, oneshot};

use crate::quic::hub::Hub;

/// Before what could not be renewed is tried again: the disk may be full, or central a restored copy.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Renewed at the same time: one commit serves many.
const AT_ONCE: usize = 64;

/// Who wants keys to be renewed.
#[derive(Default)]
pub(super) struct Renewals {
    asked: Notify,
    /// Whether all places are to be looked at.
    all: AtomicBool,
    waiting: Mutex<BTreeMap<Place, Vec<oneshot::Sender<u64>>>>,
}

impl Renewals {
    /// Wants the keys of a place renewed, and to know how many are not.
    fn ask(&self, place: Place) -> oneshot::Receiver<u64> {
        let (tell, told) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).entry(place).or_default().push(tell);
        self.asked.notify_one();
        told
    }

    fn take(&self) -> BTreeMap<Place, Vec<oneshot::Sender<u64>>> {
        std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Renews: at the beginning what all places have had that are cut off, and then what it is asked for. What could not be
/// renewed is tried again with all.
pub(super) async fn keep_renewing(hub: Arc<Hub>) {
    hub.renewals.all.store(true, Ordering::SeqCst);
    let mut is_done = true;
    loop {
        for (place, waiting) in hub.renewals.take() {
            let left = hub.renew(vec![place]).await;
            is_done &= left == 0;
            for tell in waiting {
                let _ = tell.send(left);
            }
        }
        if hub.renewals.all.swap(false, Ordering::SeqCst) || !is_done {
            is_done = hub.renew_everywhere().await == 0;
        }
        let asked = hub.renewals.asked.notified();
        match is_done {
            true => asked.await,
            false => drop(tokio::time::timeout(RETRY_AFTER, asked).await),
        }
    }
}

impl Hub {
    /// Has the keys renewed that a place had. Returns when they are, wherever somebody is connected, or after a bounded
    /// time, with how many are not, or how many hosts have not confirmed them.
    pub(super) async fn keys_renewed(&self, place: Place, limit: Duration) -> u64 {
        match tokio::time::timeout(limit, self.renewals.ask(place.clone())).await {
            Ok(Ok(left)) => left,
            Ok(Err(_)) | Err(_) => 1,
        }
    }

    /// The same, without waiting for it, of whatever was cut off after a revision.
    ///
    /// # Errors
    /// The store's fault.
    pub(super) fn renew_cut_off_since(&self, rows: &Snapshot, after: Revision) -> Result<(), Refusal> {
        match cut_off_since(rows, after)? {
            Some(places) => places.into_iter().for_each(|place| drop(self.renewals.ask(place))),
            None => self.renew_all_keys(),
        }
        Ok(())
    }

    /// The same of all places that are cut off.
    pub(super) fn renew_all_keys(&self) {
        self.renewals.all.store(true, Ordering::SeqCst);
        self.renewals.asked.notify_one();
    }

    async fn renew_everywhere(self: &Arc<Self>) -> u64 {
        match self.snapshot().and_then(|rows| cut_off(&rows)) {
            Ok(places) => self.renew(places).await,
            // All of it begins again after the unsealing.
            Err(Refusal::Sealed) => 0,
            Err(error) => {
                tracing::error!(%error, "it can't be told what is cut off, so no keys are renewed");
                1
            }
        }
    }

    /// Renews what places have had, and has it hold at hosts. Gives what is left.
    async fn renew(self: &Arc<Self>, places: Vec<Place>) -> u64 {
        if places.is_empty() {
            return 0;
        }
        let (open, unknown) = self.open_keys_of(places).await;
        // A restored copy writes nothing until it is adopted; then all places are looked at.
        if self.is_stopped() {
            return open.len() as u64 + unknown;
        }
        let (mut realms, mut left) = (BTreeSet::new(), unknown);
        for some in open.chunks(AT_ONCE) {
            left += self.renew_some(some, &mut realms).await;
        }
        for realm in realms {
            left += self.bite(realm).await.0;
        }
        if left != 0 {
            tracing::warn!(left, "keys that a place has had which is cut off are not renewed everywhere yet");
        }
        left
    }

    /// The keys that encrypt with what places have had, and of how many places that can't be told. Many rows may have to be
    /// read for that, so it is done apart.
    async fn open_keys_of(&self, places: Vec<Place>) -> (Vec<(SiteName, OpenKey)>, u64) {
        let (tell, told) = oneshot::channel();
        let node = self.node.clone();
        (self.node.blocking)(Box::new(move || {
            let (mut found, mut unknown) = (Vec::new(), 0);
            for (site, host) in places {
                match node.barrier.snapshot().and_then(|rows| open_keys(&rows, &site, host.as_ref())) {
                    Ok(open) => found.extend(open.into_iter().map(|key| (site.clone(), key))),
                    Err(error) => {
                        tracing::error!(%site, %error, "it can't be told which keys were there");
                        unknown += 1;
                    }
                }
            }
            // Whoever hears of it may close the store next.
            drop(node);
            let _ = tell.send((found, unknown));
        }));
        told.await.unwrap_or((Vec::new(), 1))
    }

    /// Gives how many were not renewed.
    async fn renew_some(&self, some: &[(SiteName, OpenKey)], realms: &mut BTreeSet<Realm>) -> u64 {
        let submitted = some.iter().map(|(site, held)| {
            let (tell, told) = oneshot::channel();
            let clock = self.node.clock.clone();
            let cmd = RenewHeld { site: site.clone(), held: held.clone(), fresh: FreshKey::draw(&*self.node.entropy) };
            let decide = move |rows: &dyn Rows| {
                refuse_while_stopped(rows)?;
                renew_held(&cmd, rows, clock.now())
            };
            self.node.barrier.submit(decide, |renewed| drop(tell.send(renewed.map(|(renewed, _)| renewed))));
            (held.realm, told)
        });
        let mut left = 0;
        for (realm, told) in submitted.collect::<Vec<_>>() {
            match told.await {
                Ok(Ok(Renewed::Nothing)) => {}
                Ok(Ok(Renewed::Version(_) | Renewed::Stopped)) => drop(realms.insert(realm)),
                Ok(Err(error)) => {
                    tracing::error!(%error, "a key that a place has had which is cut off could not be renewed");
                    left += 1;
                }
                Err(_) => left += 1,
            }
        }
        left
    }
}

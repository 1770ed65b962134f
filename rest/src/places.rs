//! Places for peers that nobody knows yet: so many in all, and so many for each neighbourhood of addresses, so that one
//! stranger who takes places and does nothing with them does not shut out the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use holdfast_actors::shell::{Bounded, Load};
use tokio::sync::Notify;

/// The addresses that one stranger surely has: a single one of IPv4, a /64 of IPv6.
pub(crate) type Neighbourhood = u128;

pub(crate) fn neighbourhood(addr: IpAddr) -> Neighbourhood {
    let one = alone(addr);
    if addr.to_canonical().is_ipv4() { one } else { one & !u128::from(u64::MAX) }
}

/// An address that has no other beside it.
fn alone(addr: IpAddr) -> Neighbourhood {
    match addr.to_canonical() {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// A bounded number of places.
pub struct Places {
    all_max: usize,
    each_max: usize,
    /// Which addresses count as one.
    whose: fn(IpAddr) -> Neighbourhood,
    taken: Mutex<Taken>,
    left: Notify,
}

#[derive(Default)]
struct Taken {
    all: usize,
    each: HashMap<Neighbourhood, usize>,
    refused: u64,
}

impl Places {
    /// `all_max` places, of which those of one neighbourhood hold at most `each_max`.
    pub fn new(all_max: usize, each_max: usize) -> Arc<Self> {
        Self::counted(all_max, each_max, neighbourhood)
    }

    /// The same for addresses that are known: each counts for itself.
    pub fn of_known(all_max: usize, each_max: usize) -> Arc<Self> {
        Self::counted(all_max, each_max, alone)
    }

    fn counted(all_max: usize, each_max: usize, whose: fn(IpAddr) -> Neighbourhood) -> Arc<Self> {
        Arc::new(Self { all_max, each_max, whose, taken: Mutex::default(), left: Notify::new() })
    }

    /// Takes a place, if one is free for this address.
    pub fn take(self: &Arc<Self>, addr: IpAddr) -> Option<Place> {
        let place = self.take_free(addr);
        if place.is_none() {
            self.lock().refused += 1;
        }
        place
    }

    fn take_free(self: &Arc<Self>, addr: IpAddr) -> Option<Place> {
        let from = (self.whose)(addr);
        let mut taken = self.lock();
        let of_each = taken.each.get(&from).copied().unwrap_or_default();
        if self.all_max <= taken.all || self.each_max <= of_each {
            return None;
        }
        taken.all += 1;
        taken.each.insert(from, of_each + 1);
        Some(Place { places: self.clone(), from })
    }

    /// As [`Places::take`], and waits for a place at most so long.
    pub async fn take_within(self: &Arc<Self>, addr: IpAddr, limit: Duration) -> Option<Place> {
        let taking = async {
            loop {
                let left = self.left.notified();
                tokio::pin!(left);
                left.as_mut().enable();
                if let Some(place) = self.take_free(addr) {
                    return place;
                }
                left.await;
            }
        };
        let taken = tokio::time::timeout(limit, taking).await.ok();
        if taken.is_none() {
            self.lock().refused += 1;
        }
        taken
    }

    /// Places taken now.
    pub fn taken(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().expect("no holder of this lock panics")
    }
}

impl Bounded for Places {
    fn load(&self) -> Load {
        let taken = self.lock();
        Load::of(taken.all, self.all_max, taken.refused)
    }
}

/// A place, free again when this is dropped.
pub struct Place {
    places: Arc<Places>,
    from: Neighbourhood,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        if let Some(of_each) = taken.each.get_mut(&self.from) {
            *of_each -= 1;
            if *of_each == 0 {
                taken.each.remove(&self.from);
            }
        }
        drop(taken);
        self.places.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_neighbourhood_does_not_shut_out_the_others() {
        let places = Places::new(3, 2);
        let held = [places.take(addr("2001:db8::1")).unwrap(), places.take(addr("2001:db8::2")).unwrap()];
        assert!(places.take(addr("2001:db8::3")).is_none());
        let other = places.take(addr("192.0.2.1")).unwrap();
        assert!(places.take(addr("192.0.2.2")).is_none(), "all are taken");
        drop(other);
        let mapped = places.take(addr("::ffff:192.0.2.2")).unwrap();
        assert_eq!(neighbourhood(addr("192.0.2.2")), mapped.from);
        drop(held);
        assert_eq!(places.taken(), 1);
        drop(mapped);
        assert!(places.lock().each.is_empty());
    }

    #[tokio::test]
    async fn who_waits_gets_the_next_place() {
        let places = Places::new(1, 1);
        let first = places.take(addr("192.0.2.1")).unwrap();
        let waiting = places.clone();
        let waiter =
            tokio::spawn(
                async move { waiting.take_within(addr("192.0.2.2"), Duration::from_secs(30)).await.is_some() },
            );
        tokio::task::yield_now().await;
        drop(first);
        assert!(waiter.await.unwrap());
        let _held = places.take(addr("192.0.2.1")).unwrap();
        assert!(places.take_within(addr("192.0.2.1"), Duration::from_millis(1)).await.is_none());
    }
}

//! Who gets in to ask: places for handshakes, of which one address has few and strangers have not all, and one talk for
//! each host.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_protocol::ids::{HostGeneration, HostId};
use holdfast_protocol::wire::NoticedStanding;
use holdfast_rest::places::{Place, Places};
use tokio::sync::oneshot;

use crate::local::Local;

/// Handshakes in progress with whoever it may be; there are few hosts at a site.
const STRANGERS_MAX: usize = 32;
/// Of one address.
const EACH_MAX: usize = 4;
/// Besides these, handshakes in progress with addresses that central's permit names as those of siblings.
const SIBLINGS_MAX: usize = 32;

/// Places for handshakes.
pub struct Doors {
    strangers: Arc<Places>,
    siblings: Arc<Places>,
}

impl Default for Doors {
    fn default() -> Self {
        Self { strangers: Places::new(STRANGERS_MAX, EACH_MAX), siblings: Places::of_known(SIBLINGS_MAX, EACH_MAX) }
    }
}

impl Doors {
    /// A place, if one is free for this address, which has been found to be the asker's own. Where strangers have taken
    /// those for all, there are some that only siblings get: hosts and whoever stalls beside them may look alike.
    pub fn take(&self, from: IpAddr, is_siblings: impl FnOnce(IpAddr) -> bool) -> Option<Place> {
        let place = self.strangers.take(from);
        place.or_else(|| is_siblings(from).then(|| self.siblings.take(from))?)
    }
}

impl Local {
    /// Whether siblings are reached there, as central's permit has it.
    pub(super) fn is_siblings(&self, from: IpAddr) -> bool {
        let Ok(Some(permit)) = self.permit() else { return false };
        let addresses = permit.siblings.iter().filter_map(|sibling| sibling.address.as_ref()?.parse().ok());
        addresses.map(|at: SocketAddr| at.ip().to_canonical()).any(|ip| ip == from.to_canonical())
    }

    /// Whether this host knows of something that central holds against a sibling.
    pub(super) fn is_cut_off(&self, sibling: &HostId) -> bool {
        let held = self.boot.sibling_notice(&sibling.host).ok().flatten();
        let held = held.and_then(|held| self.trust.sibling_notice(&held).ok());
        held.is_some_and(|notice| notice.standing != NoticedStanding::Clear)
    }
}

/// A host as a machine: one that was replaced ends no talk of its replacement's.
type Machine = (HostId, HostGeneration);

/// The talks that go on.
#[derive(Default)]
pub struct Talks(Mutex<Ongoing>);

#[derive(Default)]
struct Ongoing {
    begun: u64,
    /// One for each host, and what ends it when it is dropped.
    talks: BTreeMap<Machine, (u64, oneshot::Sender<()>)>,
}

impl Talks {
    /// Begins a talk with a host that has shown its certificate. One with the same host that goes on still ends: a host
    /// that comes again has given it up, and has no more than one whatever it does.
    pub fn begin(&self, host: &HostId, generation: HostGeneration) -> Turn<'_> {
        let (ends, superseded) = oneshot::channel();
        let mut ongoing = self.lock();
        ongoing.begun += 1;
        let number = ongoing.begun;
        let machine = (host.clone(), generation);
        ongoing.talks.insert(machine.clone(), (number, ends));
        Turn { talks: self, machine, number, superseded }
    }

    fn lock(&self) -> MutexGuard<'_, Ongoing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A talk that goes on until this is dropped.
pub struct Turn<'a> {
    talks: &'a Talks,
    machine: Machine,
    number: u64,
    superseded: oneshot::Receiver<()>,
}

impl Turn<'_> {
    /// Waits until the same host begins another.
    pub async fn superseded(&mut self) {
        let _ = (&mut self.superseded).await;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut ongoing = self.talks.lock();
        if ongoing.talks.get(&self.machine).is_some_and(|(number, _)| *number == self.number) {
            ongoing.talks.remove(&self.machine);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn ip(last: usize) -> IpAddr {
        format!("192.0.2.{last}").parse().unwrap()
    }

    #[test]
    fn one_address_that_stalls_shuts_out_no_other() {
        let doors = Doors::default();
        let stalled: Vec<_> = (0..8).map(|_| doors.take(ip(1), |_| false)).collect();
        assert_eq!(stalled.iter().flatten().count(), EACH_MAX);
        assert!(doors.take(ip(2), |_| false).is_some(), "another address");
    }

    #[test]
    fn strangers_who_stall_from_everywhere_shut_out_no_sibling() {
        let doors = Doors::default();
        let stalled: Vec<_> = (0..200).map(|at| doors.take(ip(at), |_| false)).collect();
        assert_eq!(stalled.iter().flatten().count(), STRANGERS_MAX);
        assert!(doors.take(ip(201), |_| false).is_none(), "another stranger");
        let sibling = doors.take(ip(202), |from| from == ip(202));
        assert!(sibling.is_some());
        // One of them, cut off perhaps, that stalls shuts out no other.
        let greedy: Vec<_> = (0..8).map(|_| doors.take(ip(203), |_| true)).collect();
        assert_eq!(greedy.iter().flatten().count(), EACH_MAX);
        assert!(doors.take(ip(204), |_| true).is_some());
        // Beside a stranger in the same network of IPv6, which counts as one address.
        let doors = Doors::default();
        let beside = |last: usize| format!("fe80::{last}").parse::<IpAddr>().unwrap();
        let stalled: Vec<_> = (1..9).map(|at| doors.take(beside(at), |_| false)).collect();
        assert_eq!(stalled.iter().flatten().count(), EACH_MAX);
        assert!(doors.take(beside(9), |from| from == beside(9)).is_some());
    }

    fn has_ended(turn: &mut Turn<'_>) -> bool {
        pin!(turn.superseded()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_host_has_one_talk_and_the_newest_ends_the_one_before_and_no_other_s() {
        let talks = Talks::default();
        let begin = |name: &str, generation| {
            let host = HostId { site: "udc1".parse().unwrap(), host: name.parse().unwrap() };
            talks.begin(&host, HostGeneration(generation))
        };
        let (mut first, mut other, mut former) = (begin("a", 2), begin("b", 2), begin("a", 1));
        assert!(!has_ended(&mut first) && !has_ended(&mut other));
        let mut second = begin("a", 2);
        assert!(has_ended(&mut first) && !has_ended(&mut second) && !has_ended(&mut other) && !has_ended(&mut former));
        // That the first is put away says nothing about the second.
        drop(first);
        assert!(!has_ended(&mut second));
        assert_eq!(talks.lock().talks.len(), 3);
        drop((second, other, former));
        assert!(talks.lock().talks.is_empty());
    }
}

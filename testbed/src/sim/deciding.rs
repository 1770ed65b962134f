//! Operators' decisions about sites and hosts, with the promise that what was cut off is cut off when the call returns:
//! a mirror of central's `quic/control.rs`, in steps.

use holdfast_actors::attestation_verifier::core::{ConnId, Event as Seen};
use holdfast_actors::ports::draw_secret;
use holdfast_actors::rows::Refusal;
use holdfast_actors::site_registry::standing::{Decide, Decision, decide};
use holdfast_actors::site_registry::{HostState, host, hosts, site};
use holdfast_protocol::ids::{HostId, HostName, SiteName};
use holdfast_protocol::wire::CloseCode;

use crate::sim::sabotage::Sabotage;
use crate::sim::speaking::Out;
use crate::sim::world::{Event, World};

const WIPE_LIMIT_US: u64 = 2_000_000;
const END_LIMIT_US: u64 = 1_000_000;
const REKEY_LIMIT_US: u64 = 5_000_000;

/// A call that has not returned.
#[derive(Debug)]
pub struct Call {
    site: SiteName,
    host: Option<HostName>,
    conns: Vec<(ConnId, HostId)>,
    stage: Stage,
    until_us: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Wiping,
    Ending,
    Rekeying,
}

impl World {
    /// An operator decides about a site or a host.
    pub fn decide(&mut self, place: &SiteName, name: Option<&HostName>, decision: Decision) {
        let seed = draw_secret(&*self.central.entropy);
        let cmd = Decide { site: place.clone(), host: name.cloned(), decision, actor: "operator".to_owned(), seed };
        let now = self.central.now();
        let lines = self.lines_of_node();
        let decided = self.central.commit(move |rows| decide(&cmd, rows, now));
        match &decided {
            Ok(_) => self.check_one_line(lines, "decide"),
            Err(_) if self.central.engine.has_stopped() => return self.model.standing_is_unknown(),
            Err(_) => return,
        }
        let who = self.hosts_named(place, name);
        let Decision::Quarantine { wipe } = decision else {
            self.count("readmissions");
            return self.model.readmitted(place, name);
        };
        self.count("quarantines");
        self.model.fence_committed(place, name);
        for host in who {
            self.hosts[host].well_since_us = self.time.us();
        }
        let concerned = |id: &HostId| id.site == *place && name.is_none_or(|name| *name == id.host);
        let conns = if self.sabotaged(Sabotage::ForgetFence) { Vec::new() } else { self.cut_where(concerned) };
        for (conn, id) in &conns {
            if let Ok(Some(notice)) = self.central.notice(id) {
                self.put_out(*conn, Out::Notice(notice));
            }
        }
        let (number, until_us) = (self.next_id(), self.time.us() + if wipe { WIPE_LIMIT_US } else { 0 });
        let call = Call { site: place.clone(), host: name.cloned(), conns, stage: Stage::Wiping, until_us };
        self.calls.insert(number, call);
        self.schedule_at(until_us, Event::CallDue(number));
    }

    fn hosts_named(&self, place: &SiteName, name: Option<&HostName>) -> Vec<usize> {
        let named = |id: &HostId| id.site == *place && name.is_none_or(|name| *name == id.host);
        (0..self.hosts.len()).filter(|host| named(&self.hosts[*host].id)).collect()
    }

    /// A call's deadline: what it waits for is given up.
    pub fn call_due(&mut self, _: u64) {
        self.look_at_calls();
    }

    /// Moves on every call that has what it waits for, or has waited long enough.
    pub fn look_at_calls(&mut self) {
        let numbers: Vec<u64> = self.calls.keys().copied().collect();
        for number in numbers {
            let Some(call) = self.calls.remove(&number) else { continue };
            if let Some(call) = self.moved_on(number, call) {
                self.calls.insert(number, call);
            }
        }
    }

    fn moved_on(&mut self, number: u64, call: Call) -> Option<Call> {
        let late = call.until_us <= self.time.us();
        match call.stage {
            Stage::Wiping if late || call.conns.iter().all(|(_, id)| self.has_wiped(id)) => {
                for (conn, _) in call.conns.clone() {
                    self.close_conn(conn, CloseCode::Quarantined);
                }
                self.wait(number, call, Stage::Ending, END_LIMIT_US)
            }
            Stage::Ending => {
                let open =
                    |world: &Self, conn| world.central.hub.as_ref().is_some_and(|hub| hub.conns.contains_key(&conn));
                if late {
                    for (conn, _) in call.conns.clone() {
                        self.break_off(conn);
                    }
                } else if call.conns.iter().any(|(conn, _)| open(self, *conn)) {
                    return Some(call);
                }
                let (site, host) = (call.site.clone(), call.host.clone());
                if !self.sabotaged(Sabotage::ForgetFence) {
                    self.tell_verifier(Seen::CutOff { site, host, code: CloseCode::Quarantined });
                }
                // From here on nothing may go there, whatever the call still waits for.
                self.model.fence_returned(&call.site, call.host.as_ref());
                call.host.as_ref()?;
                self.epochs_advanced(&call.site.clone());
                self.wait(number, call, Stage::Rekeying, REKEY_LIMIT_US)
            }
            // Looked at now and then: it reads every host of the site.
            Stage::Rekeying if late => None,
            Stage::Rekeying if self.events().is_multiple_of(8) && matches!(self.siblings_behind(&call.site), Ok(0)) => {
                None
            }
            Stage::Wiping | Stage::Rekeying => Some(call),
        }
    }

    fn wait(&mut self, number: u64, mut call: Call, stage: Stage, limit_us: u64) -> Option<Call> {
        (call.stage, call.until_us) = (stage, self.time.us() + limit_us);
        self.schedule(limit_us, Event::CallDue(number));
        Some(call)
    }

    fn break_off(&mut self, conn: ConnId) {
        let link = self.central.hub.as_ref().and_then(|hub| hub.conns.get(&conn)).map(|of| of.link);
        if let Some(link) = link {
            self.conn_ended(conn);
            self.central_lets_go(link, Some(CloseCode::Quarantined));
        }
    }

    fn has_wiped(&self, id: &HostId) -> bool {
        let Ok(snapshot) = self.central.barrier.snapshot() else { return true };
        match (site(&snapshot, &id.site), host(&snapshot, id)) {
            (Ok(place), Ok(entry)) => entry.value.wipe_pending(&place.value).is_none(),
            _ => true,
        }
    }

    fn siblings_behind(&self, place: &SiteName) -> Result<u64, Refusal> {
        let snapshot = self.central.barrier.snapshot()?;
        let (row, all) = (site(&snapshot, place)?, hosts(&snapshot, place)?);
        let hub = self.central.hub.as_ref().ok_or(Refusal::Sealed)?;
        let behind = all.iter().filter(|(name, entry)| {
            if entry.is_cut_off(&row.value) || matches!(entry.state, HostState::Invited | HostState::Joined) {
                return false;
            }
            let id = HostId { site: place.clone(), host: (*name).clone() };
            let lag = hub.live.get(&id).filter(|live| live.conn.is_some()).map_or(0, |live| live.lag);
            entry.seal_epoch != Some(row.value.seal_epoch) || lag != 0
        });
        Ok(behind.count() as u64)
    }
}

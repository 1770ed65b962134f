//! Changes that must bite, on the hosts' side: distribution says when everybody has one; who is late is disconnected.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_actors::attestation_verifier::core::ConnId;
use holdfast_actors::distribution::core::Event;
use holdfast_actors::distribution::streams::tenant_refs;
use holdfast_actors::rows::Refusal;
use holdfast_protocol::ids::{HostId, Realm, TenantName};
use holdfast_protocol::wire::CloseCode;
use holdfast_rest::bite::Pending;
use tokio::sync::oneshot;

use crate::quic::hub::Hub;

/// How long hosts have to confirm such a change.
const BITE_LIMIT: Duration = Duration::from_secs(2);
/// For distribution itself to say that the time is over; one that says nothing has died.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// Who has not confirmed.
type Late = Vec<(HostId, ConnId)>;

/// Callers that wait, by their tickets.
#[derive(Default)]
pub(super) struct Bites {
    next: AtomicU64,
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<Late>>>,
}

impl Bites {
    fn wait(&self) -> (u64, oneshot::Receiver<Late>) {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        self.waiting.lock().expect("no holder of this lock panics").insert(ticket, tell);
        (ticket, told)
    }

    /// Distribution has spoken.
    pub(super) fn ended(&self, ticket: u64, late: Late) {
        if let Some(tell) = self.waiting.lock().expect("no holder of this lock panics").remove(&ticket) {
            let _ = tell.send(late);
        }
    }
}

impl Hub {
    /// Returns when what is committed in the tenant's realm holds at every connected host, or after two seconds, with
    /// those where it does not disconnected, and how many they are.
    pub(super) async fn bite(&self, realm: Realm) -> Pending {
        let tenant = match self.tenant_of(realm) {
            Ok(Some(tenant)) => tenant,
            Ok(None) => return Pending(0),
            // Sealed: every connection is closed.
            Err(_) => return Pending(0),
        };
        let connected = self.connected();
        let (ticket, told) = self.bites.wait();
        let until = self.node.clock.now().mono + BITE_LIMIT;
        let asked = async {
            let event = || Event::MustBite { ticket, tenant: tenant.clone(), until };
            self.distribution.insist(event).await.ok()?;
            told.await.ok()
        };
        let late = match tokio::time::timeout(ANSWER_LIMIT, asked).await {
            Ok(Some(late)) => late,
            // Whatever became of the machine, nobody has said that a host has it.
            Ok(None) | Err(_) => connected,
        };
        self.bites.ended(ticket, Vec::new());
        for (host, conn) in &late {
            tracing::warn!(%host, "host has not confirmed a change in time and is disconnected");
            self.connections.sever(*conn, CloseCode::Stale);
            self.change_live(host, |live| {
                if live.conn == Some(*conn) {
                    (live.conn, live.trusted_until) = (None, None);
                }
            });
        }
        Pending(late.len() as u64)
    }

    fn tenant_of(&self, realm: Realm) -> Result<Option<TenantName>, Refusal> {
        let known = tenant_refs(&self.snapshot()?)?;
        Ok(known.into_iter().find(|tenant| tenant.realm == realm).map(|tenant| tenant.name))
    }

    fn connected(&self) -> Late {
        self.live().into_iter().filter_map(|(host, live)| live.conn.map(|conn| (host, conn))).collect()
    }
}

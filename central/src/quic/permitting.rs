//! Gives trusted hosts what they may start with without central: their unseal permits, what is held against their
//! siblings, and where the site allows it their shares of its seal key.

use std::sync::Arc;
use std::time::Duration;

use holdfast_actors::attestation_verifier::core::ConnId;
use holdfast_actors::barrier::Barrier;
use holdfast_actors::rows::{Batch, Refusal, Rows};
use holdfast_actors::site_registry::authorities::unseal_authority;
use holdfast_actors::site_registry::host as host_entry;
use holdfast_actors::site_registry::shares::{PreparedShare, share_of};
use holdfast_actors::site_registry::unsealing::{GivenShare, Leave, PERMIT_VALID_S, leave, note_permit, unsealing};
use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::ids::{HostId, SiteName};
use holdfast_protocol::wire::{FromCentral, LocalShare};

use crate::quic::connections::Out;
use crate::quic::hub::Hub;

/// A permit is renewed when this part of its time is over.
const RENEWED_AFTER: u32 = 16;

/// What a host is to be given now.
struct Due {
    leave: Leave,
    share: Option<LocalShare>,
    /// Central has not written down yet that the host has a share of this split.
    is_new_share: bool,
    content: [u8; 32],
}

impl Due {
    fn shared(&self) -> Option<GivenShare> {
        let generation = self.leave.permit.generation;
        let given = |share: &LocalShare| GivenShare { generation, epoch: share.terms.epoch, set: share.terms.set };
        self.share.as_ref().map(given)
    }
}

/// Gives a host its permit, if it says something new or is to be renewed, and with it the share that it may have. Notices
/// about siblings go first. What is newer comes later: a host is given one after the other.
///
/// # Errors
/// Sealed, or a damaged store.
pub(super) async fn give(hub: &Hub, host: &HostId, conn: ConnId) -> Result<(), Refusal> {
    let turn = hub.permitting(host);
    let _turn = turn.lock().await;
    let Some(due) = due(hub, host)? else { return Ok(()) };
    for notice in &due.leave.notices {
        hub.connections.send(conn, Out::Plain(FromCentral::Sibling(Box::new(hub.sign(notice)))));
    }
    let (whom, until_us, shared, now) = (host.clone(), due.leave.permit.expires_us, due.shared(), hub.node.clock.now());
    let note = move |rows: &dyn Rows| note_permit(&whom, until_us, shared, rows, now);
    if due.is_new_share {
        let give = |is_written| send(hub, host, conn, due, is_written);
        if let Err(error) = written_first(&hub.node.barrier, note, give).await {
            tracing::warn!(%host, %error, "a share is not given: that it is could not be written down");
        }
        return Ok(());
    }
    send(hub, host, conn, due, true);
    // For the rehearsal, which is told beside the release: nobody waits for it.
    let whom = host.clone();
    hub.node.barrier.submit(note, move |noted| {
        if let Err(error) = noted {
            tracing::warn!(host = %whom, %error, "until when a host may be helped could not be noted");
        }
    });
    Ok(())
}

fn due(hub: &Hub, host: &HostId) -> Result<Option<Due>, Refusal> {
    if hub.is_stopped() {
        return Ok(None);
    }
    let (now, valid) = (hub.node.clock.now(), valid(hub));
    let rows = hub.snapshot()?;
    let Some(leave) = leave(host, valid, &rows, now)? else { return Ok(None) };
    let share = share_of(host, &rows, now)?.ok();
    let shared = share.as_ref().map(PreparedShare::content).unwrap_or_default();
    let content = sha256(&[&leave.content(), &shared]);
    let given = hub.permit_given(host);
    if given.is_some_and(|(given, at)| given == content && now.mono < at + valid / RENEWED_AFTER) {
        return Ok(None);
    }
    let authority = unseal_authority(&rows)?;
    let share = share.map(|share| share.encrypted(&authority, &*hub.node.entropy)).transpose()?;
    let known = unsealing(&rows, host, &host_entry(&rows, host)?.value)?.share;
    let due = Due { leave, share, is_new_share: false, content };
    Ok(Some(Due { is_new_share: is_new(due.shared(), known), ..due }))
}

/// Whether central has not written down that a host has this share.
fn is_new(given: Option<GivenShare>, known: Option<GivenShare>) -> bool {
    given.is_some() && given != known
}

fn valid(hub: &Hub) -> Duration {
    hub.node.config.unseal_permit.unwrap_or(Duration::from_secs(PERMIT_VALID_S))
}

/// Whom central has given a share, it knows: `give` is told whether that is written down.
async fn written_first(
    barrier: &Barrier,
    note: impl FnMut(&dyn Rows) -> Result<(Batch, ()), Refusal> + Send + 'static,
    give: impl FnOnce(bool),
) -> Result<(), Refusal> {
    let written = barrier.run(note).await;
    give(written.is_ok());
    written.map(drop)
}

/// Without the share the permit goes all the same, and both are due again.
fn send(hub: &Hub, host: &HostId, conn: ConnId, due: Due, with_share: bool) {
    let now = hub.node.clock.now().mono;
    // Writing takes its time, and the verdict may have ended meanwhile.
    if !hub.connections.is_trusted(conn, now) {
        return;
    }
    let Due { leave, share, content, .. } = due;
    if let Some(share) = share.filter(|_| with_share) {
        hub.connections.send(conn, Out::Plain(FromCentral::Share(Box::new(hub.sign(&share)))));
    }
    hub.connections.send(conn, Out::Plain(FromCentral::Permit(Box::new(hub.sign(&leave.permit)))));
    hub.change_live(host, |live| live.permit = with_share.then_some((content, now)));
}

/// The same for all hosts of a site that are trusted now: what one has said is in the permits of the others. Nobody waits
/// for it.
pub(super) fn give_site(hub: &Arc<Hub>, site: &SiteName) {
    let conns = hub.live().into_iter().filter(|(host, _)| host.site == *site);
    let conns: Vec<(HostId, ConnId)> = conns.filter_map(|(host, live)| Some((host, live.conn?))).collect();
    let hub = hub.clone();
    tokio::spawn(async move {
        for (host, conn) in conns {
            if hub.connections.is_trusted(conn, hub.node.clock.now().mono)
                && let Err(error) = give(&hub, &host, conn).await
            {
                tracing::warn!(%host, %error, "a permit could not be given");
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use holdfast_actors::audit_log::Line;
    use holdfast_actors::barrier::NoReads;
    use holdfast_actors::keyring::{Keyring, RealmKeys};
    use holdfast_actors::ports::draw_secret;
    use holdfast_actors::shell::OsEntropy;
    use holdfast_actors::store::Fault;
    use holdfast_actors::store::memory::{Injected, MemoryEngine};
    use holdfast_protocol::ids::{DeploymentId, HostGeneration, Realm, SealEpoch};

    use super::*;

    #[test]
    fn a_share_of_another_split_or_for_another_machine_is_written_down_anew() {
        let given = |generation, epoch, set| {
            Some(GivenShare { generation: HostGeneration(generation), epoch: SealEpoch(epoch), set: [set; 32] })
        };
        let known = given(1, 1, 1);
        for (share, new) in
            [(known, false), (None, false), (given(2, 1, 1), true), (given(1, 2, 1), true), (given(1, 1, 2), true)]
        {
            assert_eq!(is_new(share, known), new, "{share:?}");
        }
        assert!(is_new(known, None));
    }

    #[tokio::test]
    async fn a_share_that_can_not_be_written_down_is_not_given() {
        let engine = Arc::new(MemoryEngine::new());
        let barrier = Barrier::new(engine.clone(), Arc::new(OsEntropy), Arc::new(NoReads));
        let ring = Keyring::new(DeploymentId([1; 16]), draw_secret(&OsEntropy));
        let keys = RealmKeys::new(draw_secret(&OsEntropy), draw_secret(&OsEntropy));
        barrier.begin(barrier.first_realm(&ring, keys), vec![]).await.unwrap();
        barrier.unseal(ring);
        let note = |_: &dyn Rows| Ok((Batch::new(Realm::NODE, Line::done(0, "central", "host.share-given", "a")), ()));
        for (refused, sent) in [(true, 0), (false, 1)] {
            let commit = move |_: u64| if refused { Injected::Refuse(Fault::Full) } else { Injected::Pass };
            engine.inject(Box::new(commit));
            let (given, before) = (Cell::new(0), barrier.commit_head().unwrap().seq);
            let outcome = written_first(&barrier, note, |is_written| {
                let is_there = before < barrier.commit_head().unwrap().seq;
                assert_eq!(is_written, is_there, "given before it was written down");
                given.set(given.get() + u32::from(is_written));
            });
            assert_eq!((outcome.await.is_err(), given.get()), (refused, sent));
        }
    }
}

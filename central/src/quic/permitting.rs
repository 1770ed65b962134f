//! Gives trusted hosts what they may start with without central: their unseal permits, what is held against their
//! siblings, and where the site allows it their shares of its seal key.

use std::time::Duration;

use holdfast_actors::attestation_verifier::core::ConnId;
use holdfast_actors::rows::Refusal;
use holdfast_actors::site_registry::authorities::unseal_authority;
use holdfast_actors::site_registry::shares::{PreparedShare, share_of};
use holdfast_actors::site_registry::unsealing::{Leave, PERMIT_VALID_S, leave, note_permit};
use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::ids::{HostId, SealEpoch, SiteName};
use holdfast_protocol::wire::FromCentral;

use crate::quic::connections::Out;
use crate::quic::hub::Hub;

/// A permit is renewed when this part of its time is over.
const RENEWED_AFTER: u32 = 16;

/// Gives a host its permit, if it says something new or is to be renewed. Notices about siblings go first.
///
/// # Errors
/// Sealed, or a damaged store.
pub(super) fn give(hub: &Hub, host: &HostId, conn: ConnId) -> Result<(), Refusal> {
    let now = hub.node.clock.now();
    let valid = hub.node.config.unseal_permit.unwrap_or(Duration::from_secs(PERMIT_VALID_S));
    let rows = hub.snapshot()?;
    let Some(leave) = leave(host, valid, &rows, now)? else { return Ok(()) };
    let share = share_of(host, &rows, now)?.ok();
    let shared = share.as_ref().map(PreparedShare::content).unwrap_or_default();
    let content = sha256(&[&leave.content(), &shared]);
    let given = hub.permit_given(host);
    if given.is_some_and(|(given, at)| given == content && now.mono < at + valid / RENEWED_AFTER) {
        return Ok(());
    }
    let Leave { permit, notices } = leave;
    for notice in &notices {
        hub.connections.send(conn, Out::Plain(FromCentral::Sibling(Box::new(hub.sign(notice)))));
    }
    let given = share.as_ref().map(|share| (share.terms().epoch, share.terms().set));
    if let Some(share) = share {
        let share = share.encrypted(&unseal_authority(&rows)?, &*hub.node.entropy)?;
        hub.connections.send(conn, Out::Plain(FromCentral::Share(Box::new(hub.sign(&share)))));
    }
    hub.connections.send(conn, Out::Plain(FromCentral::Permit(Box::new(hub.sign(&permit)))));
    hub.change_live(host, |live| live.permit = Some((content, now.mono)));
    note(hub, host.clone(), permit.expires_us, given);
    Ok(())
}

/// The same for all hosts of a site that are trusted now: what one has said is in the permits of the others.
pub(super) fn give_site(hub: &Hub, site: &SiteName) {
    let now = hub.node.clock.now().mono;
    let conns = hub
        .live()
        .into_iter()
        .filter(|(host, _)| host.site == *site)
        .filter_map(|(host, live)| Some((host, live.conn?)));
    for (host, conn) in conns.filter(|(_, conn)| hub.connections.is_trusted(*conn, now)) {
        if let Err(error) = give(hub, &host, conn) {
            tracing::warn!(%host, %error, "a permit could not be given");
        }
    }
}

/// For the rehearsal, which is told beside the release: nobody waits for it.
fn note(hub: &Hub, host: HostId, until_us: i64, share: Option<(SealEpoch, [u8; 32])>) {
    let (barrier, now) = (hub.node.barrier.clone(), hub.node.clock.now());
    tokio::spawn(async move {
        let noted = barrier.run({
            let host = host.clone();
            move |rows| note_permit(&host, until_us, share, rows, now)
        });
        if let Err(error) = noted.await {
            tracing::warn!(%host, %error, "until when a host may be helped could not be noted");
        }
    });
}

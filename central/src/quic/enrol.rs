//! One connection of the enrolment protocol: a join, a re-enrolment, or the fetching of a notice. No client
//! certificate; everything is bounded and cheap until the request has shown a token or a pinned key.

use std::time::Duration;

use holdfast_actors::audit_log::Line;
use holdfast_actors::rows::{Refusal, Row};
use holdfast_actors::site_registry::enrolment::{self, Refused, Seeds, Serials};
use holdfast_actors::site_registry::{Host, host, standing};
use holdfast_protocol::codec;
use holdfast_protocol::ids::{HostId, Realm};
use holdfast_protocol::limits::ENROL_FRAME_BYTES_MAX;
use holdfast_protocol::pki::read::public_key_of;
use holdfast_protocol::signed;
use holdfast_protocol::wire::{
    CloseCode, EXPORTER_ENROL, Enrol, EnrolAnswer, EnrolRequest, RefusalCode, Signed, WipeReceipt,
};
use quinn::{Connection, RecvStream, SendStream};

use crate::quic::frames;
use crate::quic::hub::Hub;

/// From connection to the last answer; a TPM may take seconds for its part.
const LIMIT: Duration = Duration::from_secs(90);

/// Serves the connection to its end.
pub(super) async fn serve(hub: &Hub, connection: Connection) {
    let Ok(_place) = hub.enrolments.try_acquire() else {
        connection.close((CloseCode::Stale as u32).into(), b"too many enrolments at once");
        return;
    };
    let served = tokio::time::timeout(LIMIT, exchange(hub, &connection)).await;
    if let Ok(Err(error)) = served {
        tracing::debug!(peer = %connection.remote_address(), %error, "enrolment ended early");
    }
    connection.close((CloseCode::Done as u32).into(), b"");
}

async fn exchange(hub: &Hub, connection: &Connection) -> Result<(), frames::FrameError> {
    let (mut to, mut from) = connection.accept_bi().await.map_err(|_| frames::FrameError::Ended)?;
    let request = frames::read::<EnrolRequest>(&mut from, ENROL_FRAME_BYTES_MAX).await?;
    let answer = match request {
        EnrolRequest::Enrol(request) => enrol(hub, connection, &request, &mut to, &mut from).await?,
        EnrolRequest::Proof(_) => EnrolAnswer::Refused(RefusalCode::Malformed),
        EnrolRequest::Notice { host } => match hub.notice(&host) {
            Ok(notice) => EnrolAnswer::Notice(notice),
            // Whether there is such a host is nobody's business.
            Err(Refusal::NotFound(_)) => EnrolAnswer::Notice(None),
            Err(_) => EnrolAnswer::Refused(RefusalCode::Unavailable),
        },
        EnrolRequest::Wiped(receipt) => wiped(hub, &receipt).await,
    };
    frames::write(&mut to, &answer).await?;
    let _ = to.finish();
    let _ = to.stopped().await;
    Ok(())
}

async fn enrol(
    hub: &Hub,
    connection: &Connection,
    request: &Enrol,
    to: &mut SendStream,
    from: &mut RecvStream,
) -> Result<EnrolAnswer, frames::FrameError> {
    let mut exporter = [0; 32];
    if connection.export_keying_material(&mut exporter, EXPORTER_ENROL, b"").is_err() {
        return Ok(EnrolAnswer::Refused(RefusalCode::Unavailable));
    }
    let begun = match hub.snapshot() {
        Ok(snapshot) => {
            let seeds = Seeds::draw(&*hub.node.entropy);
            let (now, authorities) = (hub.node.clock.now(), &hub.node.config.ek_authorities);
            enrolment::begin(request, &codec::encode(request), &snapshot, authorities, seeds, now)
        }
        Err(_) => return Ok(EnrolAnswer::Refused(RefusalCode::Unavailable)),
    };
    let pending = match begun {
        Ok(pending) => pending,
        Err(refused) => return Ok(refuse(hub, &refused)),
    };
    frames::write(to, &pending.answer()).await?;
    let answer = frames::read::<EnrolRequest>(from, ENROL_FRAME_BYTES_MAX).await?;
    let EnrolRequest::Proof(proof) = answer else { return Ok(EnrolAnswer::Refused(RefusalCode::Malformed)) };
    let serials = Serials::draw(&*hub.node.entropy);
    let now = hub.node.clock.now();
    let complete = match enrolment::finish(pending, &proof, &exporter, serials, now) {
        Ok(complete) => complete,
        Err(refused) => return Ok(refuse(hub, &refused)),
    };
    match hub.node.barrier.run(move |rows| enrolment::complete(&complete, rows, now)).await {
        Ok((Ok(enrolled), _)) => {
            tracing::info!(host = %enrolled.host, generation = %enrolled.generation, "host enrolled");
            Ok(EnrolAnswer::Enrolled(enrolled))
        }
        Ok((Err(refused), _)) => Ok(refuse(hub, &refused)),
        Err(error) => {
            tracing::warn!(%error, "enrolment could not be recorded");
            Ok(EnrolAnswer::Refused(RefusalCode::Unavailable))
        }
    }
}

/// Journals a refusal before it is answered.
fn refuse(hub: &Hub, refused: &Refused) -> EnrolAnswer {
    if refused.reason.is_alarm() {
        tracing::error!(host = refused.line.object, reason = %refused.reason, "somebody else may hold a site bundle");
    } else {
        tracing::warn!(host = refused.line.object, reason = %refused.reason, "enrolment refused");
    }
    journal(hub, &refused.line);
    refused.answer()
}

fn journal(hub: &Hub, line: &Line) {
    let written = hub.snapshot().and_then(|snapshot| hub.node.journal.append(&snapshot, Realm::NODE, line));
    if let Err(error) = written {
        tracing::error!(%error, "a refusal could not be journaled");
    }
}

async fn wiped(hub: &Hub, receipt: &Signed) -> EnrolAnswer {
    match check_receipt(hub, receipt) {
        Ok(receipt) => {
            let now = hub.node.clock.now();
            let WipeReceipt { host, generation } = receipt;
            let named = host.clone();
            let recorded = hub.node.barrier.run(move |rows| standing::wiped(&named, generation, rows, now)).await;
            match recorded {
                Ok(_) => {
                    tracing::info!(%host, "host has wiped itself");
                    hub.progress.notify_waiters();
                    EnrolAnswer::Notice(None)
                }
                Err(_) => EnrolAnswer::Refused(RefusalCode::Unavailable),
            }
        }
        Err(code) => EnrolAnswer::Refused(code),
    }
}

/// A receipt counts if it is signed by the QUIC client key that was certified last, which it brings along.
fn check_receipt(hub: &Hub, receipt: &Signed) -> Result<WipeReceipt, RefusalCode> {
    let refused = RefusalCode::NotAccepted;
    let peer = holdfast_protocol::pki::read::peer_of(&receipt.signer).map_err(|_| refused)?;
    let snapshot = hub.snapshot().map_err(|_| RefusalCode::Unavailable)?;
    let entry: Row<Host> = host(&snapshot, &peer.host).map_err(|_| refused)?;
    let fingerprint = holdfast_protocol::pki::read::fingerprint(&receipt.signer);
    if entry.value.identity.is_none_or(|identity| identity.dist_fingerprint != fingerprint) {
        return Err(refused);
    }
    let key = public_key_of(&receipt.signer).map_err(|_| refused)?;
    let opened: WipeReceipt = signed::open(receipt, &key).map_err(|_| refused)?;
    let of_peer: &HostId = &opened.host;
    if *of_peer == peer.host { Ok(opened) } else { Err(refused) }
}

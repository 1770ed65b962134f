//! One connection of the enrolment protocol: a join, a re-enrolment, or the fetching of a notice. No client
//! certificate; everything is bounded and cheap until the request has shown a token or a pinned key.

use std::time::Duration;

use holdfast_actors::audit_log::Line;
use holdfast_actors::rows::{Refusal, Row};
use holdfast_actors::site_registry::enrolment::{self, Refused, Seeds, Serials};
use holdfast_actors::site_registry::{Host, host, standing};
use holdfast_protocol::ids::{HostId, Realm};
use holdfast_protocol::limits::ENROL_FRAME_BYTES_MAX;
use holdfast_protocol::pki::read::public_key_of;
use holdfast_protocol::signed;
use holdfast_protocol::wire::{
    CloseCode, EXPORTER_ENROL, Enrol, EnrolAnswer, EnrolRequest, RefusalCode, Signed, WipeReceipt,
};
use quinn::{Connection, RecvStream, SendStream};

use crate::quic::fleet::Fleet;
use crate::quic::frames;

/// From connection to the last answer; a TPM may take seconds for its part.
const LIMIT: Duration = Duration::from_secs(90);

/// Serves the connection to its end.
pub(super) async fn serve(fleet: &Fleet, connection: Connection) {
    let Ok(_place) = fleet.enrolments.try_acquire() else {
        connection.close((CloseCode::Stale as u32).into(), b"too many enrolments at once");
        return;
    };
    let served = tokio::time::timeout(LIMIT, exchange(fleet, &connection)).await;
    if let Ok(Err(error)) = served {
        tracing::debug!(peer = %connection.remote_address(), %error, "enrolment ended early");
    }
    connection.close((CloseCode::Done as u32).into(), b"");
}

async fn exchange(fleet: &Fleet, connection: &Connection) -> Result<(), frames::FrameError> {
    let (mut to, mut from) = connection.accept_bi().await.map_err(|_| frames::FrameError::Ended)?;
    let (request, bytes) = frames::read::<EnrolRequest>(&mut from, ENROL_FRAME_BYTES_MAX).await?;
    let answer = match request {
        EnrolRequest::Enrol(request) => enrol(fleet, connection, &request, &bytes, &mut to, &mut from).await?,
        EnrolRequest::Proof(_) => EnrolAnswer::Refused(RefusalCode::Malformed),
        EnrolRequest::Notice { host } => match fleet.notice(&host) {
            Ok(notice) => EnrolAnswer::Notice(notice),
            // Whether there is such a host is nobody's business.
            Err(Refusal::NotFound(_)) => EnrolAnswer::Notice(None),
            Err(_) => EnrolAnswer::Refused(RefusalCode::Unavailable),
        },
        EnrolRequest::Wiped(receipt) => wiped(fleet, &receipt).await,
    };
    frames::write(&mut to, &answer).await?;
    let _ = to.finish();
    let _ = to.stopped().await;
    Ok(())
}

async fn enrol(
    fleet: &Fleet,
    connection: &Connection,
    request: &Enrol,
    bytes: &[u8],
    to: &mut SendStream,
    from: &mut RecvStream,
) -> Result<EnrolAnswer, frames::FrameError> {
    let mut exporter = [0; 32];
    if connection.export_keying_material(&mut exporter, EXPORTER_ENROL, b"").is_err() {
        return Ok(EnrolAnswer::Refused(RefusalCode::Unavailable));
    }
    let begun = match fleet.snapshot() {
        Ok(snapshot) => {
            let seeds = Seeds::draw(&*fleet.parts.entropy);
            let (now, authorities) = (fleet.parts.clock.now(), &fleet.parts.ek_authorities);
            enrolment::begin(request, bytes, &snapshot, authorities, seeds, now)
        }
        Err(_) => return Ok(EnrolAnswer::Refused(RefusalCode::Unavailable)),
    };
    let pending = match begun {
        Ok(pending) => pending,
        Err(refused) => return Ok(refuse(fleet, &refused)),
    };
    frames::write(to, &pending.answer()).await?;
    let (answer, _) = frames::read::<EnrolRequest>(from, ENROL_FRAME_BYTES_MAX).await?;
    let EnrolRequest::Proof(proof) = answer else { return Ok(EnrolAnswer::Refused(RefusalCode::Malformed)) };
    let serials = Serials::draw(&*fleet.parts.entropy);
    let now = fleet.parts.clock.now();
    let complete = match enrolment::finish(pending, &proof, &exporter, serials, now) {
        Ok(complete) => complete,
        Err(refused) => return Ok(refuse(fleet, &refused)),
    };
    match fleet.parts.barrier.run(move |rows| enrolment::complete(&complete, rows, now)).await {
        Ok((Ok(enrolled), _)) => {
            tracing::info!(host = %enrolled.host, generation = %enrolled.generation, "host enrolled");
            Ok(EnrolAnswer::Enrolled(enrolled))
        }
        Ok((Err(refused), _)) => Ok(refuse(fleet, &refused)),
        Err(error) => {
            tracing::warn!(%error, "enrolment could not be recorded");
            Ok(EnrolAnswer::Refused(RefusalCode::Unavailable))
        }
    }
}

/// Journals a refusal before it is answered.
fn refuse(fleet: &Fleet, refused: &Refused) -> EnrolAnswer {
    if refused.reason.is_alarm() {
        tracing::error!(host = refused.line.object, reason = %refused.reason, "somebody else may hold a site bundle");
    } else {
        tracing::warn!(host = refused.line.object, reason = %refused.reason, "enrolment refused");
    }
    journal(fleet, &refused.line);
    refused.answer()
}

fn journal(fleet: &Fleet, line: &Line) {
    let written = fleet.snapshot().and_then(|snapshot| fleet.parts.journal.append(&snapshot, Realm::NODE, line));
    if let Err(error) = written {
        tracing::error!(%error, "a refusal could not be journaled");
    }
}

async fn wiped(fleet: &Fleet, receipt: &Signed) -> EnrolAnswer {
    match check_receipt(fleet, receipt) {
        Ok(receipt) => {
            let now = fleet.parts.clock.now();
            let WipeReceipt { host, generation } = receipt;
            let named = host.clone();
            let recorded = fleet.parts.barrier.run(move |rows| standing::wiped(&named, generation, rows, now)).await;
            match recorded {
                Ok(_) => {
                    tracing::info!(%host, "host has wiped itself");
                    fleet.progress.notify_waiters();
                    EnrolAnswer::Notice(None)
                }
                Err(_) => EnrolAnswer::Refused(RefusalCode::Unavailable),
            }
        }
        Err(code) => EnrolAnswer::Refused(code),
    }
}

/// A receipt counts if it is signed by the QUIC client key that was certified last, which it brings along.
fn check_receipt(fleet: &Fleet, receipt: &Signed) -> Result<WipeReceipt, RefusalCode> {
    let refused = RefusalCode::NotAccepted;
    let peer = holdfast_protocol::pki::read::peer_of(&receipt.signer).map_err(|_| refused)?;
    let snapshot = fleet.snapshot().map_err(|_| RefusalCode::Unavailable)?;
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

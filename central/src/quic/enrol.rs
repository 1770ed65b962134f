//! One connection of the enrolment protocol: a join, a re-enrolment, or the fetching of a notice. No client
//! certificate; everything is bounded and cheap until the request has shown a token or a pinned key.

use std::time::Duration;

use holdfast_actors::audit_log::Line;
use holdfast_actors::rows::{Refusal, Row};
use holdfast_actors::site_registry::enrolment::{self, PROOF_WITHIN, Refused, Seeds, Serials};
use holdfast_actors::site_registry::restored::Claims;
use holdfast_actors::site_registry::{Host, host, standing};
use holdfast_protocol::codec;
use holdfast_protocol::ids::{HostId, Realm};
use holdfast_protocol::limits::ENROL_FRAME_BYTES_MAX;
use holdfast_protocol::pki::read::public_key_of;
use holdfast_protocol::signed;
use holdfast_protocol::wire::{
    CloseCode, EXPORTER_ENROL, Enrol, EnrolAnswer, EnrolRequest, RefusalCode, Signed, WipeReceipt,
};
use holdfast_rest::places::Place;
use quinn::{Connection, RecvStream, SendStream};

use crate::quic::frames::{self, FrameError};
use crate::quic::hub::Hub;

/// From connection to the request.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// How long a request waits for its turn.
const TURN_LIMIT: Duration = Duration::from_secs(10);
/// How long the host may take to receive the last answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Serves the connection to its end.
pub(super) async fn serve(hub: &Hub, connection: Connection) {
    let Some(place) = hub.arrivals.take(connection.remote_address().ip()) else {
        connection.close((CloseCode::Stale as u32).into(), b"too many connections at once");
        return;
    };
    if let Err(error) = exchange(hub, &connection, place).await {
        tracing::debug!(peer = %connection.remote_address(), %error, "enrolment ended early");
    }
    connection.close((CloseCode::Done as u32).into(), b"");
}

async fn exchange(hub: &Hub, connection: &Connection, place: Place) -> Result<(), FrameError> {
    let asked = async {
        let (to, mut from) = connection.accept_bi().await.map_err(|_| FrameError::Ended)?;
        Ok((to, frames::read::<EnrolRequest>(&mut from, ENROL_FRAME_BYTES_MAX).await?, from))
    };
    let (mut to, request, mut from) = within(REQUEST_LIMIT, asked).await?;
    let (answer, _place) = match request {
        EnrolRequest::Enrol(request) => {
            // Who waits keeps the place of an arrival, so that those who wait are bounded too.
            let turn = hub.enrolments.take_within(connection.remote_address().ip(), TURN_LIMIT).await;
            drop(place);
            let Some(turn) = turn else {
                return reply(&mut to, &EnrolAnswer::Refused(RefusalCode::Unavailable)).await;
            };
            (enrol(hub, connection, &request, &mut to, &mut from).await?, turn)
        }
        EnrolRequest::Proof(_) => (EnrolAnswer::Refused(RefusalCode::Malformed), place),
        EnrolRequest::Notice { host, head, notice: held } => {
            // What it shows is central's own word, whoever shows it: a host that is cut off gets no further than here.
            let claims =
                Claims { host: &host, certificate: None, head: head.as_ref(), notice: held.as_ref(), positions: &[] };
            let _ = hub.look_at(claims).await;
            (notice(hub, &host), place)
        }
        EnrolRequest::Wiped(receipt) => (wiped(hub, &receipt).await, place),
    };
    reply(&mut to, &answer).await
}

async fn reply(to: &mut SendStream, answer: &EnrolAnswer) -> Result<(), FrameError> {
    within(ANSWER_LIMIT, async {
        frames::write(to, answer).await?;
        let _ = to.finish();
        let _ = to.stopped().await;
        Ok(())
    })
    .await
}

/// Who takes longer is as good as gone.
async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, FrameError>>) -> Result<T, FrameError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(FrameError::Ended))
}

fn notice(hub: &Hub, host: &HostId) -> EnrolAnswer {
    match hub.notice(host) {
        Ok(notice) => EnrolAnswer::Notice(notice),
        // Whether there is such a host is nobody's business.
        Err(Refusal::NotFound(_)) => EnrolAnswer::Notice(None),
        Err(_) => EnrolAnswer::Refused(RefusalCode::Unavailable),
    }
}

async fn enrol(
    hub: &Hub,
    connection: &Connection,
    request: &Enrol,
    to: &mut SendStream,
    from: &mut RecvStream,
) -> Result<EnrolAnswer, FrameError> {
    let mut exporter = [0; 32];
    if hub.is_stopped() || connection.export_keying_material(&mut exporter, EXPORTER_ENROL, b"").is_err() {
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
    let proving = async {
        frames::write(to, &pending.answer()).await?;
        frames::read::<EnrolRequest>(from, ENROL_FRAME_BYTES_MAX).await
    };
    let answer = within(PROOF_WITHIN, proving).await?;
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

/// A receipt counts if it is signed by the QUIC client key, and brings along a certificate that the host may come with.
fn check_receipt(hub: &Hub, receipt: &Signed) -> Result<WipeReceipt, RefusalCode> {
    let refused = RefusalCode::NotAccepted;
    let peer = holdfast_protocol::pki::read::peer_of(&receipt.signer).map_err(|_| refused)?;
    let snapshot = hub.snapshot().map_err(|_| RefusalCode::Unavailable)?;
    let entry: Row<Host> = host(&snapshot, &peer.host).map_err(|_| refused)?;
    let fingerprint = holdfast_protocol::pki::read::issued_sha256(&receipt.signer).map_err(|_| refused)?;
    if !entry.value.identity.is_some_and(|identity| identity.dist.is(&fingerprint)) {
        return Err(refused);
    }
    let key = public_key_of(&receipt.signer).map_err(|_| refused)?;
    let opened: WipeReceipt = signed::open(receipt, &key).map_err(|_| refused)?;
    let of_peer: &HostId = &opened.host;
    if *of_peer == peer.host { Ok(opened) } else { Err(refused) }
}

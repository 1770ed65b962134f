//! Following the logs: `/v1/log/audit` and `/v1/log/error`, and as clients of the older profile call them. A stream goes on
//! until its reader leaves, falls behind, has to make room for another tenant's, or may not listen any more, which is looked
//! at every second. A stream has no gaps: who has missed something is cut off, and can see by that that it did.
//!
//! Who listens hears of its own tenant. Requests of nobody whom a tenant knows (without a certificate, of strangers, of a
//! tenant that there is not) are told to administrators of `system` at central alone, as only they may read of them in the
//! audit log.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use holdfast_actors::access_control::identities::{Standing, identity};
use holdfast_actors::access_control::tokens::SYSTEM;
use holdfast_protocol::ids::Realm;
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::Kes;
use super::api::{Api, LOG_AUDIT, LOG_AUDIT_TRACE, LOG_ERROR, LOG_ERROR_TRACE, routes};
use super::call::{At, Call, op};
use super::fault::Fault;
use super::streams::{Listener, Log, Wish};
use crate::lasting::One;
use crate::openapi::operation::Operations;

/// Between two looks at whether the listener still may.
const LOOK: Duration = Duration::from_secs(1);
/// So many looks in a row may find a reader that takes nothing.
const STALLED_MAX: u32 = 30;
/// Lines that wait to be sent.
const WAITING_MAX: usize = 64;

/// What can be followed.
pub(super) fn operations() -> Operations<Kes> {
    let stream = |api: &'static Api, log: Log, summary| {
        let follow = move |call: Call, _: Body| follow(call, log);
        let dress = |operation: crate::openapi::operation::Operation<Kes>| operation.media(LINES);
        routes(api, move || op(api, follow).gives::<String>(), dress, summary)
    };
    stream(
        &LOG_AUDIT,
        Log::Audit,
        "Tells of every request of the tenant, a line each, for as long as it is listened to",
    )
    .and(stream(&LOG_AUDIT_TRACE, Log::Audit, "The same as lines of the older profile"))
    .and(stream(&LOG_ERROR, Log::Error, "Tells of what goes wrong here, a line each, for as long as it is listened to"))
    .and(stream(&LOG_ERROR_TRACE, Log::Error, "The same"))
}

const LINES: &str = "application/x-ndjson";

async fn follow(call: Call, log: Log) -> Result<Response, Fault> {
    let (realm, listener, hears_nodes) = call.read(|at| {
        let hears_nodes = hears_nodes(&call, at)?;
        let is_operators = at.number == SYSTEM.0;
        let wish = Wish { realm: at.realm, is_operators, log, and_node: hears_nodes };
        Ok((at.realm, call.streams().listen(wish).ok_or(Fault::TooManyReaders)?, hears_nodes))
    })?;
    let (to, lines) = mpsc::channel(WAITING_MAX);
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let lasts = call.lasts();
    let feed = Feed { is_old: call.api.is_trace(), call, realm, listener, hears_nodes, to, looks, stalled: 0 };
    tokio::spawn(feed.run(lasts));
    let media = (header::CONTENT_TYPE, HeaderValue::from_static(LINES));
    Ok(([media], Body::new(Lines(lines))).into_response())
}

/// Whether the caller hears of what is told of nobody.
fn hears_nodes(call: &Call, at: &At<'_>) -> Result<bool, Fault> {
    let known = identity(at.rows, at.realm, call.who()?)?;
    Ok(call.is_at_central() && at.realm == SYSTEM && known.assignment.standing == Standing::Admin)
}

/// From a log to a reader.
struct Feed {
    call: Call,
    is_old: bool,
    /// Where the tenant is at this node.
    realm: Realm,
    listener: Listener,
    hears_nodes: bool,
    to: mpsc::Sender<Bytes>,
    looks: Interval,
    stalled: u32,
}

impl Feed {
    async fn run(mut self, lasts: One) {
        let reader = self.to.clone();
        tokio::select! {
            () = lasts.has_to_end() => {}
            () = reader.closed() => {}
            () = self.feed() => {}
        }
    }

    /// Until it has fallen behind, or may not any more.
    async fn feed(&mut self) {
        loop {
            tokio::select! {
                _ = self.looks.tick() => if !self.still_may() { return },
                event = self.listener.next() => {
                    let Some(event) = event else { return };
                    if !self.send(event.line(self.is_old)).await {
                        return;
                    }
                }
            }
        }
    }

    /// Whether the reader took it.
    async fn send(&mut self, line: String) -> bool {
        loop {
            tokio::select! {
                biased;
                place = self.to.reserve() => {
                    let Ok(place) = place else { return false };
                    self.stalled = 0;
                    place.send(line.into());
                    return true;
                }
                _ = self.looks.tick() => {
                    self.stalled += 1;
                    if STALLED_MAX < self.stalled || !self.still_may() {
                        return false;
                    }
                }
            }
        }
    }

    fn still_may(&self) -> bool {
        // A full copy brings the tenant's content to another realm of this host, of which nothing would be heard here.
        let heard = self.call.look(|at| Ok((at.realm, hears_nodes(&self.call, at)?)));
        heard.is_ok_and(|heard| heard == (self.realm, self.hears_nodes))
    }
}

/// A body that is sent line by line.
struct Lines(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

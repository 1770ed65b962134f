//! What comes of a request's body when nobody takes it any more, mostly since the request was refused.
//!
//! It would be cut off by a reset of its stream (HTTP/2: RFC 9113, section 8.1) or by the end of the connection, and many
//! clients take that for a failure and lose the answer. So what may have been under way by then is read and thrown away.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::EXPECT;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::sync::Semaphore;

/// Bytes that are read of a body that nobody takes: what a client may have sent before anything was read of it.
const READ_MAX: usize = super::connection::H2_STREAM_WINDOW as usize;
/// How long.
const TIME_MAX: Duration = Duration::from_secs(5);
/// Of how many bodies of one listener at once. Others are cut off.
pub(super) const BODIES_MAX: usize = 1024;

/// The body of a request, read to its end, within bounds, also where its reader goes away.
pub(super) struct Unread {
    /// `None` at its end.
    body: Option<Incoming>,
    /// `None`: its client sends it only when it is asked to.
    places: Option<Arc<Semaphore>>,
}

impl Unread {
    /// The body of a request that comes with these headers.
    pub(super) fn new(body: Incoming, headers: &HeaderMap, places: &Arc<Semaphore>) -> Self {
        // To read it would be to ask for it (RFC 9110, section 10.1.1).
        let places = (!headers.contains_key(EXPECT)).then(|| places.clone());
        Self { body: Some(body), places }
    }
}

impl Body for Unread {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if frame.is_none() {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let (Some(body), Some(places)) = (self.body.take(), self.places.take()) else { return };
        if body.is_end_stream() || body.size_hint().lower() > READ_MAX as u64 {
            return;
        }
        let mut reading = Box::pin(read(body));
        if reading.as_mut().now_or_never().is_some() {
            return;
        }
        if let (Ok(place), Ok(runtime)) = (places.try_acquire_owned(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                let _place = place;
                let _ = tokio::time::timeout(TIME_MAX, reading).await;
            });
        }
    }
}

async fn read(mut body: Incoming) {
    let mut left = READ_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let read = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(read) {
            Some(less) => left = less,
            None => return,
        }
    }
}

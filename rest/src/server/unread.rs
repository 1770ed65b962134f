//! What comes of a request's body over HTTP/2 when nobody takes it any more, mostly since the request was refused.
//!
//! It is cut off by a reset of its stream (RFC 9113, section 8.1), and there are clients that take the reset for a failure
//! and lose the answer. So what may have been under way by then is read and thrown away.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

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
    body: Option<Incoming>,
    places: Arc<Semaphore>,
}

impl Unread {
    pub(super) fn new(body: Incoming, places: Arc<Semaphore>) -> Self {
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
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
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
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        if body.size_hint().lower() > READ_MAX as u64 {
            return;
        }
        let mut reading = Box::pin(read(body));
        if reading.as_mut().now_or_never().is_some() {
            return;
        }
        if let (Ok(place), Ok(runtime)) =
            (self.places.clone().try_acquire_owned(), tokio::runtime::Handle::try_current())
        {
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

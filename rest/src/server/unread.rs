//! What comes of a request's body after its answer, over HTTP/2.
//!
//! A body that nobody takes any more is cut off by a reset of its stream (RFC 9113, section 8.1), and there are clients
//! that take the reset for a failure and lose the answer. So a little more is read, and thrown away, of what was under way
//! when the answer was sent; HTTP/1.1 does the same by itself.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

/// Bytes that are read of a body whose request was answered: what a client may have sent before anything was read of it.
const READ_MAX: usize = super::connection::H2_STREAM_WINDOW as usize;
/// How long.
const TIME_MAX: Duration = Duration::from_secs(5);

/// The body of a request, read to its end, within bounds, also where its reader goes away.
pub(super) struct Unread(Option<Incoming>);

impl Unread {
    pub(super) fn new(body: Incoming) -> Self {
        Self(Some(body))
    }
}

impl Body for Unread {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let Some(body) = self.0.take().filter(|body| !body.is_end_stream()) else { return };
        if body.size_hint().lower() <= READ_MAX as u64
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(tokio::time::timeout(TIME_MAX, read(body)));
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

//! A reply that tells when the kernel has taken it.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

/// Calls `then` once the whole body of `response` has been handed over; never, if the client goes away before.
pub(super) fn when_handed(response: Response, then: impl FnOnce() + Send + 'static) -> Response {
    response.map(|body| Body::new(Handed { body, stage: Stage::Sending, then: Some(Box::new(then)) }))
}

struct Handed {
    body: Body,
    stage: Stage,
    then: Option<Box<dyn FnOnce() + Send>>,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Sending,
    Flushing,
    Done,
}

/// The connection flushes what it has whenever the body makes it wait. So the end is put off by one turn: when the
/// body is asked again, its bytes have left.
impl HttpBody for Handed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.stage {
            Stage::Sending => match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(None) => {
                    self.stage = Stage::Flushing;
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
                other => other,
            },
            Stage::Flushing => {
                self.stage = Stage::Done;
                if let Some(then) = self.then.take() {
                    then();
                }
                Poll::Ready(None)
            }
            Stage::Done => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Unknown on purpose: a connection that knew it would not ask again after the last byte.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use axum::response::IntoResponse;
    use http_body_util::BodyExt;

    use super::*;

    fn watched() -> (Response, Arc<AtomicBool>) {
        let told = Arc::new(AtomicBool::new(false));
        let telling = told.clone();
        (when_handed("abc".into_response(), move || telling.store(true, Ordering::SeqCst)), told)
    }

    #[tokio::test]
    async fn it_tells_after_the_last_byte() {
        let (response, told) = watched();
        let mut body = response.into_body();
        assert!(!body.is_end_stream());
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
        assert!(!told.load(Ordering::SeqCst));
        assert!(body.frame().await.is_none());
        assert!(told.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_reply_that_is_dropped_tells_nothing() {
        let (response, told) = watched();
        let mut body = response.into_body();
        assert!(body.frame().await.is_some());
        drop(body);
        assert!(!told.load(Ordering::SeqCst));
    }
}

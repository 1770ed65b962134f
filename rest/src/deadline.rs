//! Bounds on how long something may take.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Sleep;

/// Waits at most so long, from when there is something to wait for; `None`: that was too short. Most of what clients ask
/// for is there at once, and then no timer is made.
pub(crate) async fn within<F: Future>(limit: Duration, work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(Some(done));
        }
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        timer.as_mut().poll(context).map(|()| None)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_is_not_waited_for() {
        let takes = |ms| async move { tokio::time::sleep(Duration::from_millis(ms)).await };
        let limit = Duration::from_millis(100);
        assert_eq!(within(limit, async { 7 }).await, Some(7));
        assert_eq!(within(limit, takes(90)).await, Some(()));
        assert_eq!(within(limit, takes(110)).await, None);
        assert_eq!(within(limit, std::future::pending::<()>()).await, None);
        assert_eq!(within(Duration::ZERO, async { 7 }).await, Some(7));
    }
}

//! Bounds on how long something may take.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::task::coop::{Unconstrained, unconstrained};
use tokio::time::Sleep;

/// Waits at most so long, from when there is something to wait for; `None`: that was too short. Most of what clients ask
/// for is there at once, and then no timer is made.
pub(crate) async fn within<F: Future>(limit: Duration, work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    // Also work that never leaves others a turn has its end: the timer needs no turn.
    let mut timer: Option<Pin<Box<Unconstrained<Sleep>>>> = None;
    poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(Some(done));
        }
        let timer = timer.get_or_insert_with(|| Box::pin(unconstrained(tokio::time::sleep(limit))));
        timer.as_mut().poll(context).map(|()| None)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uses up what a task may do in one turn, in each of its turns.
    async fn greedy() {
        loop {
            tokio::task::consume_budget().await;
        }
    }

    #[tokio::test]
    async fn work_that_leaves_nothing_of_its_turn_ends_as_well() {
        assert_eq!(within(Duration::from_millis(1), greedy()).await, None);
    }

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

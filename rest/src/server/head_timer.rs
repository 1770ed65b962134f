//! The timer of a connection's request heads. It is set and unset with each request, and to have the runtime do so each
//! time costs as much as encrypting something. So the runtime's own timer is kept as it was set first, and set once more
//! only when it goes off too early.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use tokio::time;

/// One connection's: the runtime's timer while nobody waits for it.
#[derive(Clone, Default)]
pub(super) struct HeadTimer(Arc<Mutex<Option<Pin<Box<time::Sleep>>>>>);

impl HeadTimer {
    fn kept(&self) -> MutexGuard<'_, Option<Pin<Box<time::Sleep>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let until = time::Instant::from(deadline);
        let kept = self.kept().take().filter(|kept| kept.deadline() <= until);
        let runtime = kept.unwrap_or_else(|| Box::pin(time::sleep_until(until)));
        Box::pin(HeadSleep { until, runtime: Some(runtime), home: self.clone() })
    }

    fn now(&self) -> Instant {
        time::Instant::now().into()
    }
}

struct HeadSleep {
    until: time::Instant,
    /// `None` only once it is dropped.
    runtime: Option<Pin<Box<time::Sleep>>>,
    home: HeadTimer,
}

impl Sleep for HeadSleep {}

impl Future for HeadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let until = self.until;
        let Some(runtime) = &mut self.runtime else { return Poll::Pending };
        loop {
            ready!(runtime.as_mut().poll(context));
            if until <= runtime.deadline() {
                return Poll::Ready(());
            }
            runtime.as_mut().reset(until);
        }
    }
}

impl Drop for HeadSleep {
    fn drop(&mut self) {
        *self.home.kept() = self.runtime.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn each_sleep_ends_at_its_own_time_whatever_the_one_before_was_set_to() {
        let timer = HeadTimer::default();
        // Never waited for; dropped before its time; waited for past the time of the one before; a shorter one.
        drop(timer.sleep(LIMIT));
        for (dropped_after_s, limit_s) in [(0, 30), (10, 30), (29, 30), (31, 30), (100, 30), (1, 5)] {
            let dropped = time::timeout(Duration::from_secs(dropped_after_s), timer.sleep(LIMIT)).await;
            assert_eq!(dropped.is_ok(), LIMIT.as_secs() < dropped_after_s);
            let began = time::Instant::now();
            timer.sleep(Duration::from_secs(limit_s)).await;
            let took = began.elapsed();
            let limit = Duration::from_secs(limit_s);
            assert!((limit..limit + Duration::from_millis(5)).contains(&took), "{limit:?}: {took:?}");
        }
    }
}

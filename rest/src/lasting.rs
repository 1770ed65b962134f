//! Answers that go on for as long as there is something to tell. For as long as there is one, its connection is not closed
//! for its age; when the listener stops, all of them end at once.

use std::sync::Arc;

use tokio::sync::watch;

/// Those of one connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lasting(Arc<watch::Sender<State>>);

#[derive(Debug, Clone, Copy, Default)]
struct State {
    running: usize,
    is_ending: bool,
}

impl Lasting {
    /// One more, until what is given out is dropped.
    pub(crate) fn begin(&self) -> One {
        self.0.send_modify(|state| state.running += 1);
        One(self.0.clone())
    }

    /// Has all of them end.
    pub(crate) fn end(&self) {
        self.0.send_modify(|state| state.is_ending = true);
    }

    /// Waits until there is none.
    pub(crate) async fn none(&self) {
        // The sender is held here.
        let _ = self.0.subscribe().wait_for(|state| state.running == 0).await;
    }
}

/// One of them.
pub(crate) struct One(Arc<watch::Sender<State>>);

impl One {
    /// Waits until it has to end.
    pub(crate) async fn has_to_end(&self) {
        let _ = self.0.subscribe().wait_for(|state| state.is_ending).await;
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.send_modify(|state| state.running -= 1);
    }
}

//! Where those who ask a node wait while it is counted what they have asked.

use std::time::Duration;

use tokio::sync::watch;

/// For one request to be answered or lost.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
struct State {
    open: bool,
    /// Raised whenever it closes.
    closing: u64,
    /// How many wait since it closed last.
    waiting: usize,
}

/// The gate before one node.
#[derive(Debug)]
pub(crate) struct Gate {
    state: watch::Sender<State>,
    askers: usize,
}

impl Gate {
    /// Open, for so many that pass it, each before every request.
    pub(crate) fn of(askers: usize) -> Self {
        Self { state: watch::Sender::new(State { open: true, closing: 0, waiting: 0 }), askers }
    }

    /// Waits as long as it is closed.
    pub(crate) async fn pass(&self) {
        let mut seen = self.state.subscribe();
        let mut counted = 0;
        loop {
            let mut open = false;
            self.state.send_if_modified(|state| {
                open = state.open;
                let new = !open && counted != state.closing;
                if new {
                    counted = state.closing;
                    state.waiting += 1;
                }
                new
            });
            if open || seen.changed().await.is_err() {
                return;
            }
        }
    }

    /// Closes it; returns when nobody is on the other side any more.
    pub(crate) async fn close(&self) {
        self.state.send_modify(|state| *state = State { open: false, closing: state.closing + 1, waiting: 0 });
        let mut seen = self.state.subscribe();
        let all = seen.wait_for(|state| state.waiting == self.askers);
        let waited = tokio::time::timeout(PATIENCE, all).await;
        waited.expect("a request neither answered nor lost, or an asker has failed").expect("the gate is there");
    }

    /// Opens it.
    pub(crate) fn open(&self) {
        self.state.send_modify(|state| state.open = true);
    }
}

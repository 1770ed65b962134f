//! Who waits for which answer. Machines name requests by number; the callers' channels are kept here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use crate::shell::mailbox::CallError;

/// Callers by the number of their request.
pub struct Replies<R> {
    shared: Arc<Mutex<Waiting<R>>>,
}

struct Waiting<R> {
    last: u64,
    callers: HashMap<u64, oneshot::Sender<R>>,
}

impl<R> Default for Replies<R> {
    fn default() -> Self {
        Self { shared: Arc::new(Mutex::new(Waiting { last: 0, callers: HashMap::new() })) }
    }
}

impl<R> Clone for Replies<R> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<R> Replies<R> {
    /// Gives a request its number. Dropping the wait forgets it.
    pub fn expect(&self) -> Wait<R> {
        let (tell, told) = oneshot::channel();
        let mut waiting = self.lock();
        waiting.last += 1;
        let number = waiting.last;
        waiting.callers.insert(number, tell);
        drop(waiting);
        Wait { number, told, replies: self.clone() }
    }

    /// Answers a request; an answer that nobody waits for any more is dropped.
    pub fn answer(&self, number: u64, reply: R) {
        if let Some(caller) = self.lock().callers.remove(&number) {
            let _ = caller.send(reply);
        }
    }

    /// Tells every caller that its actor is gone.
    pub fn abandon(&self) {
        self.lock().callers.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<R>> {
        self.shared.lock().expect("no holder of this lock panics")
    }
}

/// One caller's wait.
pub struct Wait<R> {
    number: u64,
    told: oneshot::Receiver<R>,
    replies: Replies<R>,
}

impl<R> Wait<R> {
    /// The request's number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The answer.
    ///
    /// # Errors
    /// None came before `deadline`, or the actor died.
    pub async fn within(mut self, deadline: std::time::Duration) -> Result<R, CallError> {
        match tokio::time::timeout(deadline, &mut self.told).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(CallError::Gone),
            Err(_) => Err(CallError::Timeout),
        }
    }
}

impl<R> Drop for Wait<R> {
    fn drop(&mut self) {
        self.replies.lock().callers.remove(&self.number);
    }
}

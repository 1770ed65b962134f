//! One-for-one supervision: the budget decides, this actor obeys.
//!
//! A child that spent its budget fails its supervisor, whose other children are killed with it; whoever started the
//! supervisor hears of it by [`Supervision::ended`].

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::ports::Clock;
use crate::shell::restart_budget::{Decision, RestartBudget};

/// How long children may take to handle what they were sent before.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Starts a child, linked to the supervisor it is given.
pub type Spawn =
    Box<dyn Fn(ActorCell) -> Pin<Box<dyn Future<Output = Result<ActorCell, SpawnErr>> + Send>> + Send + Sync>;

/// A child and how often it may fail.
pub struct Child {
    /// For the log.
    pub name: &'static str,
    /// Its budget.
    pub budget: RestartBudget,
    /// Starts it, from what is on disk.
    pub spawn: Spawn,
}

impl Child {
    /// With the usual budget.
    pub fn new<F, S>(name: &'static str, spawn: F) -> Self
    where
        F: Fn(ActorCell) -> S + Send + Sync + 'static,
        S: Future<Output = Result<ActorCell, SpawnErr>> + Send + 'static,
    {
        Self { name, budget: RestartBudget::usual(), spawn: Box::new(move |supervisor| Box::pin(spawn(supervisor))) }
    }

    /// With another one.
    #[must_use]
    pub fn budget(mut self, budget: RestartBudget) -> Self {
        self.budget = budget;
        self
    }
}

/// A running supervisor.
pub struct Supervision {
    actor: ActorRef<Msg>,
    task: JoinHandle<()>,
    failure: watch::Receiver<Option<String>>,
}

impl Supervision {
    /// Starts the children in their order.
    ///
    /// # Errors
    /// A child did not start even once within its budget.
    pub async fn start(children: Vec<Child>, clock: Arc<dyn Clock>) -> Result<Self, SpawnErr> {
        let (tell, failure) = watch::channel(None);
        let arguments = Arguments { children, clock, tell };
        let (actor, task) = Actor::spawn(None, Supervisor, arguments).await?;
        Ok(Self { actor, task, failure })
    }

    /// Hears why it has ended by itself, should it; closes when it was stopped.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.clone()
    }

    /// Waits until it has ended by itself; says why.
    pub async fn ended(&self) -> String {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the supervisor has ended".to_owned(),
        }
    }

    /// Stops the children, each after what it has been sent, and the supervisor. Whoever is left after
    /// [`DRAIN_LIMIT`] is killed.
    pub async fn stop(self) {
        self.actor.stop(None);
        let _ = self.task.await;
    }
}

struct Supervisor;

struct Arguments {
    children: Vec<Child>,
    clock: Arc<dyn Clock>,
    tell: watch::Sender<Option<String>>,
}

struct State {
    children: Vec<Child>,
    running: HashMap<ActorId, usize>,
    clock: Arc<dyn Clock>,
    tell: watch::Sender<Option<String>>,
}

enum Msg {
    Restart(usize),
}

impl State {
    async fn start(&mut self, me: &ActorRef<Msg>, child: usize) -> Result<(), ActorProcessingErr> {
        match (self.children[child].spawn)(me.get_cell()).await {
            Ok(cell) => {
                self.running.insert(cell.get_id(), child);
                Ok(())
            }
            Err(error) => {
                tracing::warn!(child = self.children[child].name, %error, "child did not start");
                self.failed(me, child)
            }
        }
    }

    fn failed(&mut self, me: &ActorRef<Msg>, child: usize) -> Result<(), ActorProcessingErr> {
        let now = self.clock.now().mono;
        let Child { name, budget, .. } = &mut self.children[child];
        match budget.on_failure(now) {
            Decision::RestartAfter(delay) => {
                me.send_after(delay, move || Msg::Restart(child));
                Ok(())
            }
            Decision::Escalate => {
                let reason = format!("{name} failed too often");
                self.tell.send_replace(Some(reason.clone()));
                Err(reason.into())
            }
        }
    }
}

impl Actor for Supervisor {
    type Msg = Msg;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, me: ActorRef<Msg>, arguments: Arguments) -> Result<State, ActorProcessingErr> {
        let Arguments { children, clock, tell } = arguments;
        let mut state = State { children, running: HashMap::new(), clock, tell };
        for child in 0..state.children.len() {
            state.start(&me, child).await?;
        }
        Ok(state)
    }

    async fn handle(&self, me: ActorRef<Msg>, msg: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        let Msg::Restart(child) = msg;
        state.start(&me, child).await
    }

    /// The default would stop the supervisor at any child's end.
    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<Msg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let (who, reason) = match event {
            SupervisionEvent::ActorFailed(who, error) => (who, error.to_string()),
            SupervisionEvent::ActorTerminated(who, _, reason) => (who, reason.unwrap_or_else(|| "stopped".to_owned())),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        };
        let Some(child) = state.running.remove(&who.get_id()) else { return Ok(()) };
        tracing::warn!(child = state.children[child].name, reason, "child ended");
        state.failed(&me, child)
    }

    /// Left to ractor the children would be killed, mid-handler.
    async fn post_stop(&self, me: ActorRef<Msg>, _: &mut State) -> Result<(), ActorProcessingErr> {
        me.get_cell().drain_children_and_wait(Some(DRAIN_LIMIT)).await;
        Ok(())
    }
}

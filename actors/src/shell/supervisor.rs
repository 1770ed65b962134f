//! One-for-one supervision: the budget decides, this actor obeys.
//!
//! A child that spent its budget fails its supervisor, whose other children are killed with it; whoever started the
//! supervisor hears of it by [`Supervision::ended`].

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::ports::Clock;
use crate::shell::looping;
use crate::shell::machine::Failed;
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

    /// A loop that never ends by itself, with the usual budget.
    pub fn looping<F, S>(name: &'static str, work: F) -> Self
    where
        F: Fn() -> S + Send + Sync + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        Self::new(name, move |supervisor| looping::spawn(Box::pin(work()), supervisor))
    }

    /// With another one.
    #[must_use]
    pub fn budget(mut self, budget: RestartBudget) -> Self {
        self.budget = budget;
        self
    }
}

/// A child as it is now.
#[derive(Debug, Clone)]
pub struct Tended {
    /// Its name.
    pub name: &'static str,
    /// The actor, until its end is noticed.
    pub cell: Option<ActorCell>,
    /// How often it was started again.
    pub restarts: u64,
}

/// The children of one supervisor, for who shows them.
#[derive(Debug, Clone, Default)]
pub struct Roster(Arc<Mutex<Vec<Tended>>>);

impl Roster {
    /// Now.
    pub fn children(&self) -> Vec<Tended> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Tended>> {
        self.0.lock().expect("no holder of this lock panics")
    }

    fn change(&self, child: usize, change: impl FnOnce(&mut Tended)) {
        if let Some(tended) = self.lock().get_mut(child) {
            change(tended);
        }
    }
}

/// A running supervisor.
pub struct Supervision {
    actor: ActorRef<Msg>,
    task: JoinHandle<()>,
    failure: watch::Receiver<Option<String>>,
    roster: Roster,
}

impl Supervision {
    /// Starts the children in their order.
    ///
    /// # Errors
    /// A child did not start even once within its budget.
    pub async fn start(children: Vec<Child>, clock: Arc<dyn Clock>) -> Result<Self, SpawnErr> {
        let (tell, failure) = watch::channel(None);
        let tended = children.iter().map(|child| Tended { name: child.name, cell: None, restarts: 0 });
        let roster = Roster(Arc::new(Mutex::new(tended.collect())));
        let arguments = Arguments { children, clock, tell: Last::word(tell), roster: roster.clone() };
        let (actor, task) = Actor::spawn(None, Supervisor, arguments).await?;
        Ok(Self { actor, task, failure, roster })
    }

    /// The children.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The supervisor itself.
    pub fn cell(&self) -> ActorCell {
        self.actor.get_cell()
    }

    /// Hears why it has ended by itself, should it, however it did; closes when it was stopped.
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

/// Who ends without having been stopped has said why, or it is said here.
struct Last {
    tell: watch::Sender<Option<String>>,
    was_stopped: bool,
}

impl Last {
    fn word(tell: watch::Sender<Option<String>>) -> Self {
        Self { tell, was_stopped: false }
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        if !self.was_stopped {
            self.tell.send_if_modified(|reason| {
                let is_news = reason.is_none();
                reason.get_or_insert_with(|| "a supervisor has ended".to_owned());
                is_news
            });
        }
    }
}

struct Arguments {
    children: Vec<Child>,
    clock: Arc<dyn Clock>,
    tell: Last,
    roster: Roster,
}

struct State {
    children: Vec<Child>,
    running: HashMap<ActorId, usize>,
    clock: Arc<dyn Clock>,
    tell: Last,
    roster: Roster,
}

enum Msg {
    Restart(usize),
}

impl State {
    async fn start(&mut self, me: &ActorRef<Msg>, child: usize) -> Result<(), ActorProcessingErr> {
        match (self.children[child].spawn)(me.get_cell()).await {
            Ok(cell) => {
                self.running.insert(cell.get_id(), child);
                self.roster.change(child, |tended| tended.cell = Some(cell));
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
                self.start_after(me, child, delay);
                Ok(())
            }
            Decision::Escalate => {
                let reason = format!("{name} failed too often");
                self.tell.tell.send_replace(Some(reason.clone()));
                Err(reason.into())
            }
        }
    }

    fn start_after(&self, me: &ActorRef<Msg>, child: usize, delay: Duration) {
        self.roster.change(child, |tended| tended.restarts += 1);
        me.send_after(delay, move || Msg::Restart(child));
    }
}

impl Actor for Supervisor {
    type Msg = Msg;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, me: ActorRef<Msg>, arguments: Arguments) -> Result<State, ActorProcessingErr> {
        let Arguments { children, clock, tell, roster } = arguments;
        let mut state = State { children, running: HashMap::new(), clock, tell, roster };
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
        let (who, reason, is_passing) = match event {
            SupervisionEvent::ActorFailed(who, error) => {
                let is_passing = error.downcast_ref::<Failed>().is_some_and(Failed::is_passing);
                (who, error.to_string(), is_passing)
            }
            SupervisionEvent::ActorTerminated(who, _, reason) => {
                (who, reason.unwrap_or_else(|| "stopped".to_owned()), false)
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        };
        let Some(child) = state.running.remove(&who.get_id()) else { return Ok(()) };
        tracing::warn!(child = state.children[child].name, reason, "child ended");
        state.roster.change(child, |tended| tended.cell = None);
        if is_passing {
            let delay = state.children[child].budget.shortest_wait();
            state.start_after(&me, child, delay);
            return Ok(());
        }
        state.failed(&me, child)
    }

    /// Left to ractor the children would be killed, mid-handler.
    async fn post_stop(&self, me: ActorRef<Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.tell.was_stopped = true;
        me.get_cell().drain_children_and_wait(Some(DRAIN_LIMIT)).await;
        Ok(())
    }
}

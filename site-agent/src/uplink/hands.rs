//! The hands of the uplink: each attempt runs in a task of its own and reports its end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_actors::ports::{Clock, Now, draw_secret};
use holdfast_actors::shell::caught;
use holdfast_actors::shell::machine::{Failed, Machine, Perform};
use holdfast_actors::shell::mailbox::Mailbox;
use holdfast_protocol::ids::StandingGeneration;
use holdfast_protocol::secret::Secret;
use holdfast_protocol::wire::{RefusalCode, WipeReceipt};
use tokio::task::JoinHandle;

use crate::host::Host;
use crate::join::{HostKeys, JoinError, fetch_notice, tell_wiped};
use crate::quic::ClientIdentity;
use crate::unseal::climb::climb;
use crate::uplink::core::{Attempt, Effect, End, Event, Uplink};
use crate::uplink::session::{self, Observer};

impl Machine for Uplink {
    type Event = Event;
    type Effect = Effect;

    fn step(&mut self, event: Event, now: Now) -> Vec<Effect> {
        Self::step(self, event, now)
    }

    fn next_deadline(&self) -> Option<Duration> {
        Self::next_deadline(self)
    }

    fn time_passed(_: Secret<32>) -> Event {
        Event::TimePassed
    }
}

/// Performs the uplink's effects.
pub struct UplinkHands {
    host: Arc<Host>,
    mailbox: Mailbox<Event>,
    task: Mutex<Option<Task>>,
}

/// A task that ends with its handle.
struct Task<T = ()>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl UplinkHands {
    /// The hands of this host.
    pub fn new(host: Arc<Host>, mailbox: Mailbox<Event>) -> Self {
        Self { host, mailbox, task: Mutex::default() }
    }

    fn set_task(&self, task: Option<Task>) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = task;
    }
}

impl Perform<Uplink> for UplinkHands {
    async fn perform(&self, effect: Effect) -> Result<(), Failed> {
        let Effect::Try { number, attempt } = effect;
        let (host, mailbox) = (self.host.clone(), self.mailbox.clone());
        let task = tokio::spawn(async move {
            let end = watched(host.clone(), mailbox.clone(), attempt).await;
            // Whatever happens here, an uplink that never heard of the end would never dial again.
            let draw = async { draw_secret(&*host.entropy) };
            let seed = caught(draw).await.unwrap_or_else(|| Secret::fill_with(|bytes| bytes.fill(0)));
            let ended = || Event::Ended { attempt: number, end: end.clone(), seed: seed.duplicate() };
            let _ = mailbox.insist(ended).await;
        });
        self.set_task(Some(Task(task)));
        Ok(())
    }

    fn ended(&self) {
        self.set_task(None);
        // Its session has ended with it, and did not get to say so.
        self.host.status.change(|standing| (standing.connected, standing.trusted) = (false, false));
    }
}

/// Runs an attempt; a panic in it is its end too.
async fn watched(host: Arc<Host>, mailbox: Mailbox<Event>, attempt: Attempt) -> End {
    let status = host.status.clone();
    let mut task = Task(tokio::spawn(async move {
        match attempt {
            Attempt::Session => session_attempt(&host, mailbox).await,
            Attempt::Notice => notice_attempt(&host).await,
            Attempt::Enrol => enrol_attempt(&host).await,
        }
    }));
    match (&mut task.0).await {
        Ok(end) => end,
        Err(_) => {
            tracing::error!(?attempt, "an attempt panicked");
            status.change(|standing| {
                (standing.connected, standing.trusted) = (false, false);
                standing.error = Some("a fault of this agent".to_owned());
            });
            End::Lost
        }
    }
}

fn failed(host: &Host, what: &'static str, error: &dyn std::error::Error) {
    let text = error.to_string();
    let is_news = host.status.get().error.as_ref() != Some(&text);
    if is_news {
        tracing::warn!(error = text, "{what}");
    }
    host.status.change(|standing| standing.error = Some(text));
}

struct Tell {
    mailbox: Mailbox<Event>,
    host: Arc<Host>,
}

impl Observer for Tell {
    fn welcomed(&self) {
        let _ = self.mailbox.cast(Event::Welcomed);
    }

    fn passed(&self) {
        let _ = self.mailbox.cast(Event::Passed);
    }

    fn certified(&self) -> bool {
        match self.host.show_certificate() {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the newer REST certificate can't be shown; the old one stays");
                false
            }
        }
    }
}

async fn session_attempt(host: &Arc<Host>, mailbox: Mailbox<Event>) -> End {
    match host.first_attempt() {
        Ok(Attempt::Session) => {}
        Ok(Attempt::Enrol) => return End::Unenrolled,
        Ok(Attempt::Notice) => return End::CutOff,
        Err(error) => {
            failed(host, "this host's standing can't be read", &error);
            return End::Lost;
        }
    }
    let state = host.file.get();
    let Some(member) = &state.membership else { return End::Unenrolled };
    let keys = match HostKeys::open(&*host.tpm, &state).await {
        Ok(keys) => keys,
        Err(error) => {
            failed(host, "the QUIC key can't be opened", &error);
            return End::Lost;
        }
    };
    let identity = ClientIdentity { chain: &member.dist_chain, key: &keys.quic };
    match host.central().dial_sync(identity, &host.clock).await {
        Ok(link) => {
            let stop = session::run(host, link, &Tell { mailbox, host: host.clone() }).await;
            if stop.is_away() {
                climb(host, &stop.to_string()).await;
            }
            stop.end()
        }
        Err(lost) => {
            failed(host, "central can't be reached", &lost);
            if lost.is_away() {
                climb(host, &lost.to_string()).await;
            }
            End::Lost
        }
    }
}

async fn notice_attempt(host: &Arc<Host>) -> End {
    match notice(host).await {
        Ok(end) => end,
        Err(error) => {
            failed(host, "the notice can't be had or followed", &*error);
            End::Lost
        }
    }
}

async fn notice(host: &Arc<Host>) -> Result<End, Box<dyn std::error::Error + Send + Sync>> {
    if let Err(error) = host.resume_wipe().await {
        tracing::error!(%error, "an order to wipe could not be carried out; it is tried again");
    }
    let shown = (host.contact().head, host.boot.notice()?);
    let fetched = fetch_notice(&host.central(), &host.id(), shown, &host.clock).await?;
    let now = host.clock.now().mono;
    host.status.change(|standing| standing.contact = Some(now));
    if let Some(signed) = &fetched {
        let heeded = host.heed(signed).await?;
        if let Some(generation) = heeded.wiped {
            acknowledge(host, generation).await?;
        }
        if heeded.course.readmitted {
            return Ok(End::Readmitted);
        }
    }
    Ok(if host.is_barred()? { End::Barred } else { End::Free })
}

async fn acknowledge(host: &Host, generation: StandingGeneration) -> Result<(), JoinError> {
    let state = host.file.get();
    let Some(certificate) = state.membership.as_ref().and_then(|member| member.dist_chain.first()) else {
        return Ok(());
    };
    let keys = HostKeys::open(&*host.tpm, &state).await?;
    let receipt = WipeReceipt { host: state.host.clone(), generation };
    tell_wiped(&host.central(), &receipt, &keys.quic, certificate.clone(), &host.clock).await
}

async fn enrol_attempt(host: &Arc<Host>) -> End {
    match host.enrol_again().await {
        Ok(()) => {
            tracing::info!("enrolled again");
            End::Enrolled
        }
        Err(error) => {
            failed(host, "enrolling again failed", &error);
            let is_away = match &error {
                JoinError::Lost(lost) => lost.is_away(),
                JoinError::Refused(code) => *code == RefusalCode::Unavailable,
                _ => false,
            };
            if is_away {
                climb(host, &error.to_string()).await;
            }
            match error {
                JoinError::Refused(RefusalCode::NotAccepted) => End::NotAccepted,
                _ => End::Lost,
            }
        }
    }
}

//! The generic shell in paused time: mailboxes, restarts, timers.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_protocol::secret::Secret;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::mailbox::Admitted;
use super::strike::{Fault as Harm, Strike};
use super::*;
use crate::ports::{Clock, Entropy, Now};
use crate::store::Fault;

/// Tokio's clock, which tests pause.
struct Paused(Instant);

impl Clock for Paused {
    fn now(&self) -> Now {
        Now { mono: self.0.elapsed(), wall_us: 0 }
    }
}

struct Zeros;

impl Entropy for Zeros {
    fn fill(&self, into: &mut [u8]) {
        into.fill(0);
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(Paused(Instant::now()))
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Rings at the time it was set to.
#[derive(Default)]
struct Alarm {
    at: Option<Duration>,
    stepped: u64,
}

enum AlarmEvent {
    Set(Duration),
    Break,
    Write,
    TimePassed,
}

#[derive(Debug, PartialEq)]
enum AlarmEffect {
    Ring(Duration),
    Fail,
    FindDiskFull,
    Wait,
    Done,
}

impl Machine for Alarm {
    type Event = AlarmEvent;
    type Effect = AlarmEffect;
    fn step(&mut self, event: AlarmEvent, now: Now) -> Vec<AlarmEffect> {
        self.stepped += 1;
        match event {
            AlarmEvent::Set(at) => {
                self.at = Some(at);
                vec![AlarmEffect::Wait, AlarmEffect::Done]
            }
            AlarmEvent::Write => vec![AlarmEffect::FindDiskFull],
            AlarmEvent::Break => vec![AlarmEffect::Fail, AlarmEffect::Done],
            AlarmEvent::TimePassed if self.at.is_some_and(|at| at <= now.mono) => {
                self.at = None;
                vec![AlarmEffect::Ring(now.mono)]
            }
            AlarmEvent::TimePassed => Vec::new(),
        }
    }
    fn next_deadline(&self) -> Option<Duration> {
        self.at
    }
    fn time_passed(_: Secret<32>) -> AlarmEvent {
        AlarmEvent::TimePassed
    }
}

#[derive(Default)]
struct Hands {
    done: Mutex<Vec<AlarmEffect>>,
    gate: Option<Semaphore>,
    replies: Replies<u8>,
    starts: AtomicUsize,
}

impl Perform<Alarm> for Hands {
    async fn perform(&self, effect: AlarmEffect) -> Result<(), Failed> {
        if let (AlarmEffect::Wait, Some(gate)) = (&effect, &self.gate) {
            gate.acquire().await.expect("the gate is never closed").forget();
        }
        if effect == AlarmEffect::Fail {
            return Err(Failed::because("broken"));
        }
        if effect == AlarmEffect::FindDiskFull {
            return Err(Fault::Full.into());
        }
        self.done.lock().unwrap().push(effect);
        Ok(())
    }
    fn ended(&self) {
        self.replies.abandon();
    }
}

struct Ringing {
    hands: Arc<Hands>,
    mailbox: Mailbox<AlarmEvent>,
    supervision: Supervision,
}

impl Ringing {
    async fn start(hands: Hands, places: usize, budget: RestartBudget) -> Self {
        let (hands, mailbox, clock) = (Arc::new(hands), Mailbox::new(places), clock());
        let parts = MachineParts {
            performer: hands.clone(),
            mailbox: mailbox.clone(),
            clock: clock.clone(),
            entropy: Arc::new(Zeros),
        };
        let child = Child::new("alarm", move |supervisor: ActorCell| {
            let parts = parts.clone();
            async move {
                parts.performer.starts.fetch_add(1, SeqCst);
                parts.spawn(Alarm::default(), supervisor).await
            }
        });
        let supervision = Supervision::start(vec![child.budget(budget)], clock).await.unwrap();
        Self { hands, mailbox, supervision }
    }

    fn starts(&self) -> usize {
        self.hands.starts.load(SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn the_one_timer_follows_the_next_deadline() {
    let alarm = Ringing::start(Hands::default(), 8, RestartBudget::usual()).await;
    alarm.mailbox.cast(AlarmEvent::Set(s(100))).unwrap();
    tokio::time::sleep(s(1)).await;
    alarm.mailbox.cast(AlarmEvent::Set(s(10))).unwrap();
    tokio::time::sleep(s(200)).await;
    let done = alarm.hands.done.lock().unwrap();
    let rung: Vec<&AlarmEffect> = done.iter().filter(|effect| matches!(effect, AlarmEffect::Ring(_))).collect();
    let [AlarmEffect::Ring(at)] = rung[..] else { panic!("rung {} times", rung.len()) };
    assert_eq!(at.as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_place_is_held_until_its_effects_are_performed() {
    let hands = Hands { gate: Some(Semaphore::new(0)), ..Hands::default() };
    let alarm = Ringing::start(hands, 2, RestartBudget::usual()).await;
    for _ in 0..2 {
        alarm.mailbox.cast(AlarmEvent::Set(s(1000))).unwrap();
    }
    tokio::time::sleep(s(1)).await;
    assert_eq!(alarm.mailbox.cast(AlarmEvent::Set(s(1000))), Err(CallError::Overloaded));
    alarm.hands.gate.as_ref().unwrap().add_permits(2);
    tokio::time::sleep(s(1)).await;
    assert_eq!(alarm.mailbox.load(), Load { used: 0, limit: 2, refused: 1 });
    assert_eq!(alarm.hands.done.lock().unwrap().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_failed_effect_restarts_the_actor_and_its_callers_hear_of_it() {
    let alarm = Ringing::start(Hands::default(), 8, RestartBudget::new(3, s(60), s(1), s(8))).await;
    let wait = alarm.hands.replies.expect();
    alarm.mailbox.cast(AlarmEvent::Break).unwrap();
    assert_eq!(wait.within(s(30)).await, Err(CallError::Gone));
    assert_eq!(alarm.hands.done.lock().unwrap().len(), 0);
    tokio::time::sleep(s(2)).await;
    assert_eq!(alarm.starts(), 2);
    alarm.mailbox.cast(AlarmEvent::Set(s(1000))).unwrap();
    tokio::time::sleep(s(1)).await;
    assert_eq!(alarm.hands.done.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn restarts_back_off_and_a_spent_budget_ends_the_supervisor() {
    let alarm = Ringing::start(Hands::default(), 8, RestartBudget::new(3, s(60), s(1), s(8))).await;
    let began = Instant::now();
    let breaking = {
        let mailbox = alarm.mailbox.clone();
        tokio::spawn(async move {
            loop {
                let _ = mailbox.cast(AlarmEvent::Break);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    };
    assert_eq!(alarm.supervision.ended().await, "alarm failed too often");
    assert_eq!(began.elapsed().as_secs(), 1 + 2 + 4);
    assert_eq!(alarm.starts(), 4);
    breaking.abort();
}

#[tokio::test(start_paused = true)]
async fn stopping_lets_what_was_sent_be_handled() {
    let alarm = Ringing::start(Hands::default(), 8, RestartBudget::usual()).await;
    for _ in 0..3 {
        alarm.mailbox.cast(AlarmEvent::Set(s(1000))).unwrap();
    }
    alarm.supervision.stop().await;
    assert_eq!(alarm.hands.done.lock().unwrap().len(), 6);
    assert_eq!(alarm.hands.starts.load(SeqCst), 1);
    assert_eq!(alarm.mailbox.cast(AlarmEvent::Break), Err(CallError::Gone));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_given_once_and_not_waited_for_for_ever() {
    let replies = Replies::default();
    let (first, second) = (replies.expect(), replies.expect());
    assert_ne!(first.number(), second.number());
    replies.answer(second.number(), 2);
    replies.answer(second.number(), 3);
    assert_eq!(second.within(s(1)).await, Ok(2));
    assert_eq!(first.within(s(1)).await, Err(CallError::Timeout));
}

struct Slow;

impl Actor for Slow {
    type Msg = Admitted<RpcReplyPort<u8>>;
    type State = ();
    type Arguments = ();
    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
    async fn handle(&self, _: ActorRef<Self::Msg>, m: Self::Msg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        tokio::time::sleep(s(10)).await;
        let _ = m.msg.map(|reply| reply.send(7));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_mailbox_refuses_at_once_and_recovers() {
    let mailbox = Mailbox::new(2);
    assert_eq!(mailbox.call(s(1), |reply: RpcReplyPort<u8>| reply).await, Err(CallError::Gone));
    mailbox.connect(Actor::spawn(None, Slow, ()).await.unwrap().0);
    let call = |deadline| {
        let mailbox = mailbox.clone();
        tokio::spawn(async move { mailbox.call(s(deadline), |reply| reply).await })
    };
    let (first, second) = (call(60), call(1));
    tokio::task::yield_now().await;
    assert_eq!(mailbox.call(s(1), |reply| reply).await, Err(CallError::Overloaded));
    assert_eq!(second.await.unwrap(), Err(CallError::Timeout));
    assert_eq!(first.await.unwrap(), Ok(7));
    tokio::time::sleep(s(11)).await;
    assert_eq!(mailbox.call(s(60), |reply| reply).await, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_no_crash_loop() {
    let alarm = Ringing::start(Hands::default(), 8, RestartBudget::new(3, s(60), s(1), s(8))).await;
    for failures in 1..=20 {
        alarm.mailbox.cast(AlarmEvent::Write).unwrap();
        tokio::time::sleep(Duration::from_millis(1001)).await;
        assert_eq!(alarm.starts(), failures + 1);
    }
    assert_eq!(alarm.supervision.roster().children()[0].restarts, 20);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_panics_in_the_middle_of_its_effects_is_started_again() {
    let alarm = Ringing::start(Hands::default(), 8, RestartBudget::new(3, s(60), s(1), s(8))).await;
    let cell = alarm.supervision.roster().children()[0].cell.clone().unwrap();
    let strike = Strike { after_effects: Some(1), fault: Harm::Panic };
    cell.send_message(Admitted::<AlarmEvent>::strike(strike)).unwrap();
    let wait = alarm.hands.replies.expect();
    alarm.mailbox.cast(AlarmEvent::Set(s(1000))).unwrap();
    assert_eq!(wait.within(s(30)).await, Err(CallError::Gone));
    assert_eq!(*alarm.hands.done.lock().unwrap(), [AlarmEffect::Wait], "the second effect was not reached");
    tokio::time::sleep(s(2)).await;
    assert_eq!((alarm.starts(), alarm.mailbox.load().used), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_is_killed_is_heard_of_and_one_that_is_stopped_is_not() {
    let alarm = Ringing::start(Hands::default(), 8, RestartBudget::usual()).await;
    alarm.supervision.cell().kill();
    assert_eq!(alarm.supervision.ended().await, "a supervisor has ended");
    assert_eq!(alarm.mailbox.cast(AlarmEvent::Break), Err(CallError::Gone), "its children end with it");

    let alarm = Ringing::start(Hands::default(), 8, RestartBudget::usual()).await;
    let mut failure = alarm.supervision.failure();
    alarm.supervision.stop().await;
    assert!(failure.wait_for(Option::is_some).await.is_err());
}

/// A loop that counts its rounds, one a second.
async fn looping(budget: RestartBudget) -> (Supervision, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (starts, rounds) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (began, turned) = (starts.clone(), rounds.clone());
    let child = Child::looping("loop", move || {
        let turned = turned.clone();
        began.fetch_add(1, SeqCst);
        async move {
            loop {
                tokio::time::sleep(s(1)).await;
                turned.fetch_add(1, SeqCst);
            }
        }
    });
    (Supervision::start(vec![child.budget(budget)], clock()).await.unwrap(), starts, rounds)
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_ends_or_panics_or_is_killed_goes_on() {
    let (supervision, starts, rounds) = looping(RestartBudget::new(3, s(60), s(1), s(1))).await;
    let cell = || supervision.roster().children()[0].cell.clone().unwrap();
    for (number, harm) in [Some(Harm::Panic), Some(Harm::Fail), None].into_iter().enumerate() {
        match harm {
            Some(harm) => cell().send_message(harm).unwrap(),
            None => cell().kill(),
        }
        let before = rounds.load(SeqCst);
        tokio::time::sleep(s(5)).await;
        assert_eq!(starts.load(SeqCst), number + 2);
        assert!(before + 3 <= rounds.load(SeqCst) && rounds.load(SeqCst) <= before + 4, "one loop at a time");
    }
    cell().kill();
    assert_eq!(supervision.ended().await, "loop failed too often");
}

#[tokio::test(start_paused = true)]
async fn a_loop_has_ended_when_its_supervisor_has() {
    let (supervision, _, rounds) = looping(RestartBudget::usual()).await;
    supervision.stop().await;
    assert_eq!(Arc::strong_count(&rounds), 1);
}

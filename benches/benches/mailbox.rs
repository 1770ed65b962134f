//! A call and a cast through a mailbox to a machine in its shell, against a tokio channel to a task.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use holdfast_actors::ports::Now;
use holdfast_actors::shell::{Child, Failed, Machine, MachineParts, Mailbox, OsClock, OsEntropy, Perform, Supervision};
use holdfast_benches::world::runtime;
use holdfast_protocol::secret::Secret;
use ractor::RpcReplyPort;
use tokio::sync::{mpsc, oneshot};

/// Places in the queues.
const PLACES: usize = 1024;
/// Casts before the sender waits for them to be handled.
const CASTS: u64 = 512;
const DEADLINE: Duration = Duration::from_secs(5);

/// Counts, and tells how far it is.
#[derive(Default)]
struct Counter(u64);

enum Event {
    Add(u64),
    Ask(RpcReplyPort<u64>),
    TimePassed,
}

struct Answer(RpcReplyPort<u64>, u64);

impl Machine for Counter {
    type Event = Event;
    type Effect = Answer;

    fn step(&mut self, event: Event, _: Now) -> Vec<Answer> {
        match event {
            Event::Add(number) => self.0 += number,
            Event::Ask(reply) => return vec![Answer(reply, self.0)],
            Event::TimePassed => {}
        }
        Vec::new()
    }

    fn next_deadline(&self) -> Option<Duration> {
        None
    }

    fn time_passed(_: Secret<32>) -> Event {
        Event::TimePassed
    }
}

struct Hands;

impl Perform<Counter> for Hands {
    async fn perform(&self, Answer(reply, number): Answer) -> Result<(), Failed> {
        reply.send(number).map_err(Failed::because)
    }
}

async fn start() -> (Mailbox<Event>, Supervision) {
    let mailbox = Mailbox::new(PLACES);
    let clock = Arc::new(OsClock::start());
    let parts = MachineParts {
        performer: Arc::new(Hands),
        mailbox: mailbox.clone(),
        clock: clock.clone(),
        entropy: Arc::new(OsEntropy),
    };
    let child = Child::new("counter", move |supervisor| parts.clone().spawn(Counter::default(), supervisor));
    (mailbox, Supervision::start(vec![child], clock).await.expect("a machine that starts"))
}

enum RawEvent {
    Add(u64),
    Ask(oneshot::Sender<u64>),
}

fn start_raw() -> mpsc::Sender<RawEvent> {
    let (sender, mut events) = mpsc::channel(PLACES);
    tokio::spawn(async move {
        let mut sum = 0;
        while let Some(event) = events.recv().await {
            match event {
                RawEvent::Add(number) => sum += number,
                RawEvent::Ask(reply) => drop(reply.send(sum)),
            }
        }
    });
    sender
}

async fn ask_raw(sender: &mpsc::Sender<RawEvent>) -> u64 {
    let (reply, answer) = oneshot::channel();
    sender.try_send(RawEvent::Ask(reply)).map_err(drop).expect("there is room");
    answer.await.expect("the task answers")
}

fn mailboxes(c: &mut Criterion) {
    let runtime = runtime();
    let (mailbox, supervision) = runtime.block_on(start());
    let raw = runtime.block_on(async { start_raw() });
    let ask = || async { mailbox.call(DEADLINE, Event::Ask).await.expect("it answers") };

    let mut group = c.benchmark_group("call");
    group.bench_function("raw tokio mpsc and oneshot", |b| b.iter(|| black_box(runtime.block_on(ask_raw(&raw)))));
    group.bench_function("mailbox to machine", |b| b.iter(|| black_box(runtime.block_on(ask()))));
    group.finish();

    let mut group = c.benchmark_group("cast");
    group.throughput(Throughput::Elements(CASTS));
    group.bench_function("raw tokio mpsc", |b| {
        b.iter(|| {
            (0..CASTS).for_each(|number| raw.try_send(RawEvent::Add(number)).map_err(drop).expect("there is room"));
            runtime.block_on(ask_raw(&raw))
        });
    });
    group.bench_function("mailbox to machine", |b| {
        b.iter(|| {
            (0..CASTS).for_each(|number| mailbox.cast(Event::Add(number)).expect("there is room"));
            runtime.block_on(ask())
        });
    });
    group.finish();
    runtime.block_on(supervision.stop());
}

criterion_group!(benches, mailboxes);
criterion_main!(benches);

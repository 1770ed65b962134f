//! Durable writes and reads through engine and barrier, against LMDB used directly.
//!
//! The files lie in the target folder: what is measured is the disk that it is on.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use holdfast_actors::audit_log::Line;
use holdfast_actors::barrier::Barrier;
use holdfast_actors::rows::{Batch, Kind, ReadRows, Record};
use holdfast_actors::store::lmdb::LmdbEngine;
use holdfast_actors::store::{Decide, Engine, Fault, Op, View};
use holdfast_benches::raw::{RawLmdb, RawWriter};
use holdfast_benches::world::{barrier, engine, journal, runtime};
use holdfast_benches::{Numbers, amount};
use holdfast_protocol::ids::{Realm, Revision};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

const VALUE_BYTES: usize = 200;
/// Rows written by one transaction while filling a store.
const FILL: usize = 90;

/// A row like a small secret's.
#[derive(Serialize, Deserialize)]
struct Value(Vec<u8>);

impl Record for Value {
    const KIND: Kind = Kind::Secret;
}

fn value() -> Value {
    Value(vec![5; VALUE_BYTES])
}

/// What the engine stores for a [`Value`]: with its path, in its envelope.
fn stored_value() -> Vec<u8> {
    vec![5; VALUE_BYTES + 80]
}

struct Puts {
    ops: Vec<Op>,
    done: oneshot::Sender<Revision>,
}

impl Decide for Puts {
    fn decide(&mut self, _: &dyn View) -> Option<Vec<Op>> {
        Some(self.ops.clone())
    }
    fn done(self: Box<Self>, outcome: Result<Revision, Fault>) {
        let _ = self.done.send(outcome.expect("the disk has room"));
    }
}

async fn put_engine(engine: &LmdbEngine, keys: Vec<Vec<u8>>) {
    let (done, is_done) = oneshot::channel();
    let ops = keys.into_iter().map(|key| Op::Put { key, value: stored_value() }).collect();
    engine.submit(Box::new(Puts { ops, done }));
    is_done.await.expect("the engine answers");
}

/// With a line in the audit log, unless it only fills the store.
async fn put_barrier(barrier: &Barrier, names: Vec<String>, noted: bool) {
    let decided = barrier.run(move |_| {
        let line = Line::done(0, "bench", "secret.write", names[0].as_str());
        let mut batch = if noted { Batch::new(Realm::NODE, line) } else { Batch::housekeeping() };
        names.iter().for_each(|name| batch.put(Realm::NODE, &["stage", name], &value()));
        Ok((batch, ()))
    });
    decided.await.expect("nothing speaks against it");
}

/// All three with the same number of rows.
struct Stores {
    raw: RawLmdb,
    writer: Arc<RawWriter>,
    engine: Arc<LmdbEngine>,
    barrier: Barrier,
    keys: Vec<Vec<u8>>,
    runtime: Runtime,
}

fn name(number: usize) -> String {
    format!("password-{number}")
}

impl Stores {
    fn new(folder: &Path) -> Self {
        let rows = amount(100_000, 200);
        let runtime = runtime();
        let mut numbers = Numbers::from_seed(1);
        let keys: Vec<Vec<u8>> = (0..rows).map(|_| numbers.key()).collect();
        let raw_folder = folder.join("raw");
        std::fs::create_dir(&raw_folder).expect("the folder is new");
        let raw = RawLmdb::create(&raw_folder, keys.iter().map(|key| (key.clone(), stored_value())));
        let writer = Arc::new(RawWriter::start(raw.clone()));
        let engine = Arc::new(engine(&folder.join("engine")));
        let barrier = barrier(&folder.join("barrier"), &journal(folder), &runtime);
        runtime.block_on(async {
            let mut filling = JoinSet::new();
            for (number, keys) in keys.chunks(FILL).enumerate() {
                let (engine, barrier, keys, first) = (engine.clone(), barrier.clone(), keys.to_vec(), number * FILL);
                filling.spawn(async move {
                    let names = (first..first + keys.len()).map(name).collect();
                    put_engine(&engine, keys).await;
                    put_barrier(&barrier, names, false).await;
                });
            }
            filling.join_all().await;
        });
        Self { raw, writer, engine, barrier, keys, runtime }
    }

    /// `writers` at once, each of which writes `each` rows one after the other.
    fn write(&self, writers: usize, each: usize, put: impl AsyncFn(u64) + Clone + 'static) {
        let local = tokio::task::LocalSet::new();
        for writer in 0..writers {
            let put = put.clone();
            local.spawn_local(async move {
                let mut numbers = Numbers::from_seed(u64::try_from(writer).expect("a usize fits"));
                for _ in 0..each {
                    put(numbers.draw()).await;
                }
            });
        }
        self.runtime.block_on(local);
    }
}

/// Writes replace rows that are there, at random.
fn writes(group: &mut BenchmarkGroup<'_, WallTime>, stores: &Stores, writers: usize, each: usize) {
    let rows = stores.keys.len();
    let pick = move |number: u64| Numbers::from_seed(number).below(rows);
    let keys = Arc::new(stores.keys.clone());
    let (raw, engine, barrier) = (stores.writer.clone(), stores.engine.clone(), stores.barrier.clone());
    let raw_keys = keys.clone();
    let raw_put = async move |number| raw.put(raw_keys[pick(number)].clone(), stored_value()).await;
    let engine_put = async move |number| put_engine(&engine, vec![keys[pick(number)].clone()]).await;
    let barrier_put = async move |number| put_barrier(&barrier, vec![name(pick(number))], true).await;
    group.bench_function("raw LMDB, group commit", |b| b.iter(|| stores.write(writers, each, raw_put.clone())));
    group.bench_function("engine", |b| b.iter(|| stores.write(writers, each, engine_put.clone())));
    group.bench_function("barrier, with audit line", |b| {
        b.iter(|| stores.write(writers, each, barrier_put.clone()));
    });
}

fn reads(group: &mut BenchmarkGroup<'_, WallTime>, stores: &Stores) {
    let mut numbers = Numbers::from_seed(2);
    let rows = stores.keys.len();
    let mut key = || &stores.keys[numbers.below(rows)];
    group.bench_function("raw LMDB", |b| b.iter(|| black_box(stores.raw.get(key()).expect("it is there"))));
    group.bench_function("engine", |b| {
        b.iter(|| {
            let view = stores.engine.snapshot().expect("it runs");
            black_box(view.get(key()).expect("readable").expect("it is there"))
        });
    });
    let mut numbers = Numbers::from_seed(2);
    group.bench_function("barrier", |b| {
        b.iter(|| {
            let rows_of = stores.barrier.snapshot().expect("it is unsealed");
            let name = name(numbers.below(rows));
            black_box(rows_of.read::<Value>(Realm::NODE, &["stage", &name]).expect("readable").expect("it is there"))
        });
    });
}

fn stores(c: &mut Criterion) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target folder can be written");
    let stores = Stores::new(folder.path());
    let mut group = c.benchmark_group("read a row");
    reads(&mut group, &stores);
    group.finish();

    let mut group = c.benchmark_group("durable write, 1 writer");
    writes(&mut group, &stores, 1, 1);
    group.finish();

    let each = amount(8, 1);
    let mut group = c.benchmark_group("durable write, 64 writers");
    group.sample_size(30);
    group.throughput(Throughput::Elements(64 * u64::try_from(each).expect("a usize fits")));
    writes(&mut group, &stores, 64, each);
    group.finish();
}

criterion_group!(benches, stores);
criterion_main!(benches);

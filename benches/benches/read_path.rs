//! A secret read as a front does it, in process: token, policy, secret and audit line, against one LMDB get of the same
//! size among as many rows.

use std::hint::black_box;
use std::thread;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use holdfast_actors::access_control::{Caller, VerifiedTokens, verify};
use holdfast_actors::audit_log::Line;
use holdfast_actors::barrier::Snapshot;
use holdfast_actors::distribute::Gate;
use holdfast_actors::rows::Refusal;
use holdfast_actors::secret_store::{SecretPath, SecretView, read_secret};
use holdfast_benches::raw::RawLmdb;
use holdfast_benches::world::{BOX, REALM, World};
use holdfast_benches::{Numbers, amount};
use holdfast_protocol::ids::Realm;
use holdfast_rest::node::Deed;

/// Bytes of the row of one of the world's secrets.
const ROW_BYTES: usize = 400;
/// Reads of each thread in one go.
const READS: usize = 256;

fn read(world: &World, path: &SecretPath) -> Result<SecretView, Refusal> {
    let deed = Deed::read("secret.read", "app/stage/db/password");
    world.node.consult(Some(&world.token), &deed, |view| read_secret(view.rows, view.caller, view.gate, BOX, path))
}

/// The parts of [`read`], each by itself.
struct Parts<'a> {
    world: &'a World,
    rows: Snapshot,
    verified: VerifiedTokens,
}

impl<'a> Parts<'a> {
    fn new(world: &'a World) -> Self {
        let rows = world.node.barrier().snapshot().expect("it is unsealed");
        Self { world, rows, verified: VerifiedTokens::default() }
    }

    fn token(&self, verified: &VerifiedTokens) -> Caller {
        let locate = |tenant| Some(Realm(tenant));
        verify(&self.world.token, &locate, &self.rows, self.world.node.now(), verified).expect("a good token")
    }

    fn secret(&self, caller: &Caller, path: &SecretPath) -> SecretView {
        read_secret(&self.rows, caller, &Gate::CENTRAL, BOX, path).expect("alice may")
    }

    fn line(&self) {
        let line = Line::done(self.world.node.now().wall_us, "alice", "secret.read", "app/stage/db/password");
        self.world.journal.append(&self.rows, REALM, &line).expect("the disk has room");
    }
}

fn read_path(c: &mut Criterion) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target folder can be written");
    let secrets = amount(100_000, 100);
    let world = World::new(folder.path(), secrets);
    let raw_folder = folder.path().join("raw");
    std::fs::create_dir(&raw_folder).expect("the folder is new");
    let mut numbers = Numbers::from_seed(1);
    let keys: Vec<Vec<u8>> = (0..secrets).map(|_| numbers.key()).collect();
    let raw = RawLmdb::create(&raw_folder, keys.iter().map(|key| (key.clone(), vec![5; ROW_BYTES])));
    let paths: Vec<SecretPath> = (0..secrets).map(World::path).collect();
    let mut path = || &paths[numbers.below(secrets)];

    let mut group = c.benchmark_group("secret read");
    let mut others = Numbers::from_seed(2);
    group.bench_function("raw LMDB get", |b| {
        b.iter(|| black_box(raw.get(&keys[others.below(secrets)]).expect("it is there")));
    });
    group.bench_function("whole", |b| b.iter(|| black_box(read(&world, path()).expect("alice may"))));
    let parts = Parts::new(&world);
    group.bench_function("part: token seen before", |b| b.iter(|| black_box(parts.token(&parts.verified))));
    group.bench_function("part: token not seen before", |b| {
        b.iter(|| black_box(parts.token(&VerifiedTokens::default())));
    });
    let caller = parts.token(&parts.verified);
    group.bench_function("part: box and secret", |b| b.iter(|| black_box(parts.secret(&caller, path()))));
    group.bench_function("part: audit line", |b| b.iter(|| parts.line()));
    group.finish();
    drop(parts);

    let mut group = c.benchmark_group("secret read, 2 threads");
    group.throughput(Throughput::Elements(u64::try_from(2 * READS).expect("a usize fits")));
    group.bench_function("raw LMDB get", |b| {
        b.iter(|| both(|number| drop(black_box(raw.get(&keys[number % secrets])))));
    });
    group.bench_function("whole", |b| {
        b.iter(|| both(|number| drop(black_box(read(&world, &paths[number % secrets])).expect("alice may"))));
    });
    group.finish();
}

/// Does `work` [`READS`] times on each of two threads.
fn both(work: impl Fn(usize) + Sync) {
    let work = &work;
    thread::scope(|scope| {
        for seed in [3, 4] {
            scope.spawn(move || {
                let mut numbers = Numbers::from_seed(seed);
                (0..READS).for_each(|_| work(numbers.below(1 << 20)));
            });
        }
    });
}

criterion_group!(benches, read_path);
criterion_main!(benches);

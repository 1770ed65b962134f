//! What is done with a transit key, against the bare cryptography: the same derivation and cipher by the library below,
//! with keys that need no looking up, no form and no place to write to.

use std::hint::black_box;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use criterion::{Criterion, criterion_group, criterion_main};
use holdfast_actors::access_control::Authority;
use holdfast_actors::access_control::globs::Globbing;
use holdfast_actors::access_control::identities::{AssignPolicy, assign_policy, judge};
use holdfast_actors::access_control::policies::{Origin, Rules, WritePolicy, write_policy};
use holdfast_actors::barrier::Barrier;
use holdfast_actors::distribute::{Distribute, Gate};
use holdfast_actors::key_store::{
    CreateKey, FreshKey, HotRealm, KeyVersion, Material, TransitKey, VersionState, Why, create_key, decrypt, encrypt,
    lookup,
};
use holdfast_actors::ports::Clock;
use holdfast_actors::rows::{Batch, Refusal, Rows, decode_body, encode_body};
use holdfast_actors::secret_store::Stamp;
use holdfast_actors::shell::OsClock;
use holdfast_benches::raw::RawLmdb;
use holdfast_benches::{Numbers, amount, world};
use holdfast_protocol::crypto::transit::{Cipher, Salt};
use holdfast_protocol::ids::Realm;
use holdfast_protocol::kes::{Form, Identity, KeyName, PolicyName};
use holdfast_protocol::secret::Secret;
use tokio::runtime::Runtime;

const SALT: Salt = Salt { vector: [1; 16], nonce: [2; 12] };
/// As long as the context that MinIO gives for an object.
const CONTEXT: [u8; 60] = [7; 60];
const PLAINTEXT: [u8; 32] = [3; 32];

fn secret(fill: u8) -> Secret<32> {
    Secret::fill_with(|bytes| bytes.fill(fill))
}

fn key(cipher: Cipher, versions: u8) -> TransitKey {
    let version = |number: u8| KeyVersion {
        number: number.into(),
        hint: [number | 0x80; 4],
        state: match number == versions {
            true => VersionState::Active,
            false => VersionState::DecryptOnly { since_us: 1, why: Why::Rotated },
        },
        created: Stamp { by: "a".repeat(64), at_us: 1 },
        material: Material::fresh(cipher, &FreshKey { key: secret(number), hmac_key: secret(number) }),
    };
    let versions: Vec<KeyVersion> = (1..=versions).map(version).collect();
    TransitKey { distribute: Distribute::default(), origin: Origin::Api, next: 100, versions }
}

/// The key of a ciphertext, as KES derives it.
fn derived(vector: &[u8]) -> LessSafeKey {
    let own = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]), vector);
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, own.as_ref()).expect("32 bytes make a key"))
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key(SALT.nonce)
}

fn raw_seal(plaintext: &[u8]) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(plaintext.len() + 44);
    buffer.extend_from_slice(plaintext);
    derived(&SALT.vector).seal_in_place_append_tag(nonce(), Aad::from(&CONTEXT), &mut buffer).expect("far below");
    buffer.extend_from_slice(&SALT.vector);
    buffer.extend_from_slice(&SALT.nonce);
    buffer
}

fn raw_open(sealed: &[u8]) -> Vec<u8> {
    let mut buffer = sealed[..sealed.len() - 28].to_vec();
    let vector = &sealed[sealed.len() - 28..][..16];
    let len = derived(vector).open_in_place(nonce(), Aad::from(&CONTEXT), &mut buffer).expect("it was sealed so").len();
    buffer.truncate(len);
    buffer
}

fn transit(c: &mut Criterion) {
    let (aes, chacha, many) = (key(Cipher::Aes256Gcm, 1), key(Cipher::ChaCha20Poly1305, 1), key(Cipher::Aes256Gcm, 64));
    let data_key = secret(3);

    let mut group = c.benchmark_group("transit encrypt 32 B");
    group.bench_function("raw HMAC and AES-256-GCM", |b| b.iter(|| raw_seal(black_box(&PLAINTEXT))));
    let sealed = |key: &TransitKey, form| encrypt(key, SALT, &CONTEXT, black_box(&PLAINTEXT), form).expect("it may").0;
    group.bench_function("generate", |b| {
        b.iter(|| encrypt(&aes, SALT, &CONTEXT, black_box(data_key.expose()), Form::Raw))
    });
    group.bench_function("encrypt", |b| b.iter(|| sealed(&aes, Form::Raw)));
    group.bench_function("encrypt, JSON", |b| b.iter(|| sealed(&aes, Form::Json)));
    group.bench_function("encrypt, ChaCha20", |b| b.iter(|| sealed(&chacha, Form::Raw)));
    group.bench_function("encrypt, 64 versions", |b| b.iter(|| sealed(&many, Form::Raw)));
    group.finish();

    let mut group = c.benchmark_group("transit decrypt 32 B");
    let raw = raw_seal(&PLAINTEXT);
    group.bench_function("raw HMAC and AES-256-GCM", |b| b.iter(|| raw_open(black_box(&raw))));
    for (name, key, form) in [
        ("decrypt", &aes, Form::Raw),
        ("decrypt, JSON", &aes, Form::Json),
        ("decrypt, ChaCha20", &chacha, Form::Raw),
        ("decrypt, newest of 64 versions", &many, Form::Raw),
    ] {
        let text = sealed(key, form);
        group.bench_function(name, |b| b.iter(|| decrypt(key, &CONTEXT, black_box(&text)).expect("it was sealed so")));
    }
    // Its vector has no hint: version 1 of 64 is tried last.
    group.bench_function("decrypt, by KES, oldest of 64 versions", |b| {
        b.iter(|| decrypt(&many, &CONTEXT, black_box(&raw)).expect("it was sealed so"));
    });
    group.finish();

    let mut group = c.benchmark_group("transit row");
    let rows = [encode_body(&aes), encode_body(&many)];
    group.bench_function("raw copy", |b| b.iter(|| black_box(rows[0].expose()).to_vec()));
    for (name, row) in [("decode 1 version", &rows[0]), ("decode 64 versions", &rows[1])] {
        group.bench_function(name, |b| b.iter(|| decode_body::<TransitKey>(black_box(row.expose())).expect("a row")));
    }
    group.finish();
}

const TENANT: Realm = Realm(2);
const NODE: Authority = Authority::Node { realm: TENANT, part: "bench" };
const CLIENT: Identity = Identity([0xa1; 32]);
const PATH: &str = "/v1/key/decrypt/key-7";

/// A store with keys, and a client that may use them.
fn store(folder: &Path, keys: usize) -> (Barrier, Runtime) {
    let runtime = world::runtime();
    let barrier = world::barrier(folder, &world::journal(folder), &runtime);
    let now = OsClock::start().now();
    let run = |decide: Box<Deciding>| _ = runtime.block_on(barrier.run(decide)).expect("nothing speaks against it");
    run(Box::new(|_| {
        let mut batch = Batch::housekeeping();
        batch.create_realm(TENANT, secret(4), secret(5));
        Ok((batch, ()))
    }));
    let rules = Rules { allow: vec!["/v1/key/*/*".to_owned()], deny: Vec::new(), globbing: Globbing::Segments };
    let policy: PolicyName = "app".parse().expect("a name");
    let write = WritePolicy { by: NODE, name: policy.clone(), rules };
    run(Box::new(move |rows| write_policy(&write, rows, now)));
    let assign = AssignPolicy { by: NODE, identity: CLIENT, policy };
    run(Box::new(move |rows| assign_policy(&assign, rows, now)));
    for number in 0..keys {
        let fresh = FreshKey { key: secret(1), hmac_key: secret(2) };
        let (name, cipher) = (name(number), Cipher::Aes256Gcm);
        let create = CreateKey { by: NODE, name, cipher, fresh, distribute: Distribute::default() };
        run(Box::new(move |rows| create_key(&create, rows, now)));
    }
    (barrier, runtime)
}

type Deciding = dyn FnMut(&dyn Rows) -> Result<(Batch, ()), Refusal> + Send;

fn name(number: usize) -> KeyName {
    format!("key-{number}").parse().expect("a name")
}

/// From a connection's identity to a key that may be used: what each request begins with.
fn reading(c: &mut Criterion) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target folder can be written");
    let keys = amount(1000, 10);
    let (barrier, _runtime) = store(folder.path(), keys);
    let raw_folder = folder.path().join("raw");
    std::fs::create_dir(&raw_folder).expect("the folder is new");
    let mut numbers = Numbers::from_seed(1);
    let raw_keys: Vec<Vec<u8>> = (0..keys).map(|_| numbers.key()).collect();
    let raw = RawLmdb::create(&raw_folder, raw_keys.iter().map(|key| (key.clone(), vec![5; 350])));
    let names: Vec<KeyName> = (0..keys).map(name).collect();

    let mut group = c.benchmark_group("transit judge and look up");
    group.bench_function("raw LMDB get", |b| b.iter(|| raw.get(&raw_keys[numbers.below(keys)]).expect("it is there")));
    group.bench_function("read", |b| {
        b.iter(|| {
            let rows = barrier.snapshot().expect("it is unsealed");
            judge(&rows, TENANT, CLIENT, black_box(PATH)).expect("it may");
            lookup(&rows, TENANT, &Gate::CENTRAL, &names[numbers.below(keys)]).expect("it is there")
        });
    });
    group.bench_function("kept", |b| {
        b.iter(|| {
            let rows = barrier.snapshot().expect("it is unsealed");
            let hot = HotRealm::new(&rows, TENANT).expect("it is there");
            hot.judge(CLIENT, black_box(PATH)).expect("it may");
            hot.lookup(&Gate::CENTRAL, &names[numbers.below(keys)]).expect("it is there").next
        });
    });
    group.finish();
}

criterion_group!(benches, transit, reading);
criterion_main!(benches);

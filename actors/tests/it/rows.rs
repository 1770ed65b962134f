//! The bytes of rows that stores of every release must go on reading, one file in `tests/golden` for each.
//!
//! `UPDATE_GOLDEN=1 cargo test -p holdfast-actors --test it rows` writes the files anew; what it changes must be an
//! addition, or the row's version has to be raised.

use std::fs;
use std::path::Path;

use holdfast_actors::access_control::configured::Served;
use holdfast_actors::access_control::globs::Globbing;
use holdfast_actors::access_control::identities::{Assignment, Standing};
use holdfast_actors::access_control::policies::{Origin, Policy};
use holdfast_actors::distribute::{Distribute, Placement};
use holdfast_actors::key_store::records::HmacKey;
use holdfast_actors::key_store::{KeyVersion, Material, TransitKey, VersionState, Why};
use holdfast_actors::rows::{Kind, Record, decode_body, encode_body};
use holdfast_actors::secret_store::Stamp;
use holdfast_protocol::crypto::transit::Cipher;
use holdfast_protocol::ids::Realm;
use holdfast_protocol::secret::Secret;

/// A row: its file's name, its kind, its bytes, and how they are read and written again.
struct Golden {
    name: &'static str,
    kind: Kind,
    bytes: Vec<u8>,
    reread: fn(&[u8]) -> Option<Vec<u8>>,
}

fn golden<T: Record>(name: &'static str, row: &T) -> Golden {
    let reread = |bytes: &[u8]| decode_body::<T>(bytes).ok().map(|row| encode_body(&row).expose().to_vec());
    Golden { name, kind: T::KIND, bytes: encode_body(row).expose().to_vec(), reread }
}

fn stamp(by: &str) -> Stamp {
    Stamp { by: by.to_owned(), at_us: 1_800_000_000_000_000 }
}

fn secret(fill: u8) -> Secret<32> {
    Secret::fill_with(|bytes| bytes.fill(fill))
}

fn version(number: u32, state: VersionState, cipher: Cipher, hmac_key: Option<HmacKey>) -> KeyVersion {
    let fill = u8::try_from(number).unwrap();
    let material = Material { cipher, key: secret(fill), hmac_key };
    KeyVersion { number, hint: [fill; 4], state, created: stamp("ann"), material }
}

fn transit_key() -> TransitKey {
    let decrypts = |why| VersionState::DecryptOnly { since_us: 1_800_000_000_000_001, why };
    let hmac_key = |fill| Some(HmacKey(secret(fill)));
    TransitKey {
        distribute: Distribute { to: Placement::Sites(["udc1".parse().unwrap()].into()), offline_s: Some(3600) },
        origin: Origin::Config,
        next: 5,
        versions: vec![
            version(1, decrypts(Why::Rotated), Cipher::Aes256Gcm, None),
            version(3, decrypts(Why::Quarantined), Cipher::ChaCha20Poly1305, hmac_key(0x13)),
            version(4, VersionState::Active, Cipher::Aes256Gcm, hmac_key(0x14)),
        ],
    }
}

fn policy() -> Policy {
    Policy {
        allow: vec!["/v1/key/generate/app-*".to_owned(), "/v1/key/decrypt/*".to_owned()],
        deny: vec!["/v1/key/decrypt/app-2".to_owned()],
        globbing: Globbing::Prefixes,
        instance: 7,
        origin: Origin::Api,
        written: stamp("root"),
    }
}

fn all() -> Vec<Golden> {
    let assigned = Standing::Policy { name: "app".parse().unwrap(), instance: 7 };
    let assignment = |standing, origin| Assignment { standing, origin, assigned: stamp("configuration") };
    vec![
        golden("transit-key.hex", &transit_key()),
        golden("policy.hex", &policy()),
        golden("policy.segments.hex", &Policy { globbing: Globbing::Segments, origin: Origin::Config, ..policy() }),
        golden("identity.policy.hex", &assignment(assigned, Origin::Api)),
        golden("identity.admin.hex", &assignment(Standing::Admin, Origin::Config)),
        golden("served.hex", &Served { realms: [Realm(1), Realm(300)].into() }),
    ]
}

fn to_text(bytes: &[u8]) -> String {
    bytes.chunks(32).map(|line| hex::encode(line) + "\n").collect()
}

#[test]
fn rows_have_the_bytes_of_their_files_and_back() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1");
    for Golden { name, bytes, reread, .. } in all() {
        let path = folder.join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, to_text(&bytes)).unwrap();
        }
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(text, to_text(&bytes), "{name}: earlier stores would not be understood");
        assert_eq!(reread(&bytes), Some(bytes), "{name}");
    }
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let strays: Vec<String> = files.filter(|file| !all().iter().any(|golden| golden.name == file)).collect();
    assert_eq!(strays, Vec::<String>::new());
}

#[test]
fn kinds_of_rows_keep_their_numbers() {
    let numbers: Vec<(&str, u8)> = all().iter().map(|golden| (golden.name, golden.kind as u8)).collect();
    let expected = [
        ("transit-key.hex", 0x38),
        ("policy.hex", 0x2c),
        ("policy.segments.hex", 0x2c),
        ("identity.policy.hex", 0x2d),
        ("identity.admin.hex", 0x2d),
        ("served.hex", 0x50),
    ];
    assert_eq!(numbers, expected);
}

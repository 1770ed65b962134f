//! What a quarantine does to keys that a site has had.

use holdfast_protocol::crypto::transit::Salt;
use holdfast_protocol::kes::Form;

use super::*;
use crate::distribution::blast::OpenKey;
use crate::key_store::quarantine::{RenewHeld, Renewed, renew_held};

const SALT: Salt = Salt { vector: [1; 16], nonce: [2; 12] };

impl World {
    /// A key whose newest version the site has.
    fn held(&self, key: &str) -> OpenKey {
        let number = self.key(key).newest().unwrap().number;
        OpenKey { realm: TENANT, name: key.parse().unwrap(), number }
    }

    fn renew(&mut self, held: OpenKey) -> Renewed {
        let cmd = RenewHeld { site: "udc1".parse().unwrap(), held, fresh: self.draw() };
        self.rows.run(|rows| renew_held(&cmd, rows, at(90))).unwrap()
    }
}

#[test]
fn a_key_that_a_site_has_had_is_renewed_and_what_it_encrypted_decrypts() {
    let mut world = World::new();
    for key in ["a", "b", "c", "unsent"] {
        world.create(key);
    }
    world.rotate("a", None, false).unwrap();
    let (text, mac) = {
        let key = world.key("a");
        (encrypt(&key, SALT, b"", b"x", Form::Raw).unwrap().0, hmac(&key, None, b"m").unwrap())
    };
    let gone = world.held("c");
    world.delete("c").unwrap();
    let lines = world.rows.lines.len();
    let held = [world.held("a"), world.held("b"), gone];
    let renewed = held.map(|held| world.renew(held));
    assert_eq!(renewed, [Renewed::Version(3), Renewed::Version(2), Renewed::Nothing]);
    assert_eq!(world.rows.lines.len(), lines + 2);
    let (actor, action, object) = world.last_line();
    assert_eq!((actor.as_str(), action.as_str()), ("quarantine", "key.renew"));
    assert_eq!(object, "b version 2: site udc1 had the one before");
    assert_eq!(world.versions("a"), [(1, false), (2, false), (3, true)]);
    let key = world.key("a");
    assert_eq!(key.versions[0].state, VersionState::DecryptOnly { since_us: 20_000_000, why: Why::Rotated });
    assert_eq!(key.versions[1].state, VersionState::DecryptOnly { since_us: 90_000_000, why: Why::Quarantined });
    assert_eq!(decrypt(&key, b"", &text).unwrap().1, 2);
    assert_ne!(hmac(&key, None, b"m").unwrap(), mac, "what the site knows makes no HMAC that counts");
    assert_eq!(world.versions("unsent"), [(1, true)]);
}

#[test]
fn what_was_renewed_or_rotated_is_not_renewed_once_more() {
    let mut world = World::new();
    for key in ["a", "b"] {
        world.create(key);
        let held = world.held(key);
        match key {
            "a" => assert_eq!(world.renew(held.clone()), Renewed::Version(2)),
            _ => drop(world.rotate(key, None, true).unwrap()),
        }
        assert_eq!(world.renew(held), Renewed::Nothing);
        assert_eq!(world.versions(key), [(1, false), (2, true)]);
    }
}

#[test]
fn a_key_without_room_for_a_version_encrypts_no_more() {
    let mut world = World::new();
    world.create("a");
    for _ in 1..VERSIONS_MAX {
        world.rotate("a", None, false).unwrap();
    }
    // Quarantines have room that rotations have not.
    for number in VERSIONS_MAX + 1..=VERSIONS_HELD_MAX {
        let held = world.held("a");
        assert_eq!(world.renew(held), Renewed::Version(u32::try_from(number).unwrap()));
    }
    let held = world.held("a");
    assert_eq!(world.renew(held.clone()), Renewed::Stopped);
    assert!(world.key("a").encrypting().is_none());
    let number = world.key("a").newest().unwrap().number;
    let known_there = hmac(&world.key("a"), Some(number), b"m").unwrap();
    assert_eq!(world.renew(held), Renewed::Nothing);
    let first: Vec<u32> = (1..=40).collect();
    world.erase("a", &first).unwrap();
    world.rotate("a", None, false).unwrap();
    assert!(world.key("a").encrypting().is_some());
    assert_ne!(hmac(&world.key("a"), None, b"m").unwrap(), known_there, "whoever rotates it, whatever was asked for");
}

#[test]
fn a_row_with_all_its_versions_fits_the_store() {
    let mut world = World::new();
    world.create("a");
    let mut key = world.key("a");
    let by = "x".repeat(128);
    for fill in 1..VERSIONS_HELD_MAX {
        let created = Stamp { by: by.clone(), at_us: i64::MAX };
        let material = Material::fresh(Cipher::Aes256Gcm, &fresh(u8::try_from(fill).unwrap()));
        key.push(material, created, (i64::MAX, Why::Quarantined));
    }
    let bytes = crate::rows::encode_body(&key).expose().len();
    assert!(bytes < 64 << 10, "{bytes}");
}

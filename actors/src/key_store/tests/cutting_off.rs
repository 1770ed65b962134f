//! What a quarantine does to keys that a site has had.

use holdfast_protocol::crypto::transit::Salt;
use holdfast_protocol::ids::{Seq, TenantName};
use holdfast_protocol::kes::Form;

use super::*;
use crate::distribution::Holding;
use crate::distribution::holdings::{HeldVersion, ValueDigest};
use crate::key_store::quarantine::{HeldKey, RenewHeld, Renewed, held_keys, renew_held};

const SALT: Salt = Salt { vector: [1; 16], nonce: [2; 12] };

fn site() -> SiteName {
    "udc1".parse().unwrap()
}

fn tenant() -> TenantName {
    "acme".parse().unwrap()
}

impl World {
    /// Notes that the site was sent the key's row as it is now.
    fn send(&mut self, key: &str, left: bool) {
        let version = self.rows.read::<TransitKey>(TENANT, &[key]).unwrap().map_or(1, |row| row.version);
        let (digest, since, until) = (ValueDigest::default(), Seq(1), left.then_some((Seq(2), 1)));
        let sent = HeldVersion { version, id: String::new(), digest, since, since_us: 0, until };
        let (kind, path, versions) = (Kind::TransitKey as u8, vec![key.to_owned()], vec![sent]);
        let holding = Holding { kind, path, realm: TENANT, left, versions, unlisted: 0 };
        self.rows
            .run(|_| {
                let mut batch = Batch::housekeeping();
                batch.put(Realm::NODE, &["udc1", "acme", key], &holding);
                Ok((batch, ()))
            })
            .unwrap();
    }

    fn held(&self) -> Vec<HeldKey> {
        held_keys(&self.rows, &site(), (&tenant(), TENANT)).unwrap()
    }

    fn renew(&mut self, held: HeldKey) -> Renewed {
        let cmd = RenewHeld { site: site(), realm: TENANT, held, fresh: self.draw() };
        self.rows.run(|rows| renew_held(&cmd, rows, at(90))).unwrap()
    }

    /// The whole job.
    fn renew_all(&mut self) -> Vec<Renewed> {
        self.held().into_iter().map(|held| self.renew(held)).collect()
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
    world.send("a", false);
    world.send("b", true);
    world.send("c", false);
    world.delete("c").unwrap();
    let names: Vec<_> = world.held().into_iter().map(|held| held.name.to_string()).collect();
    assert_eq!(names, ["a", "b"], "one that was taken away from the site again is known there, too");
    let lines = world.rows.lines.len();
    assert_eq!(world.renew_all(), [Renewed::Version(3), Renewed::Version(2)]);
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
fn a_job_that_is_begun_again_renews_nothing_twice() {
    let mut world = World::new();
    world.create("a");
    world.create("b");
    world.send("a", false);
    world.send("b", false);
    let held = world.held();
    assert_eq!(world.renew(held[0].clone()), Renewed::Version(2));
    // It was cut short here; another begins with the list that it finds, and perhaps with the old one.
    assert_eq!(world.held(), held[1..]);
    assert_eq!(world.renew_all(), [Renewed::Version(2)]);
    assert_eq!(world.held(), []);
    let revision = world.versions("a");
    assert_eq!(held.into_iter().map(|held| world.renew(held)).collect::<Vec<_>>(), [Renewed::Nothing; 2]);
    assert_eq!(world.versions("a"), revision);
}

#[test]
fn a_key_with_a_newer_version_than_the_site_was_sent_stays_as_it_is() {
    let mut world = World::new();
    world.create("a");
    world.send("a", true);
    world.rotate("a", None, true).unwrap();
    assert_eq!(world.held(), []);
    // Nor does a change of where it goes make the old version a new one.
    world.create("b");
    world.distribute("b", Distribute::default()).unwrap();
    world.send("b", true);
    world.distribute("b", everywhere()).unwrap();
    assert_eq!(world.renew_all(), [Renewed::Version(2)]);
}

#[test]
fn a_key_made_anew_under_the_name_of_one_that_was_sent_was_not_sent() {
    let mut world = World::new();
    world.create("a");
    world.send("a", false);
    world.delete("a").unwrap();
    world.create("a");
    assert_eq!(world.held(), []);
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
        world.send("a", false);
        assert_eq!(world.renew_all(), [Renewed::Version(u32::try_from(number).unwrap())]);
    }
    world.send("a", false);
    assert_eq!(world.renew_all(), [Renewed::Stopped]);
    assert!(world.key("a").encrypting().is_none());
    let number = world.key("a").newest().unwrap().number;
    let known_there = hmac(&world.key("a"), Some(number), b"m").unwrap();
    assert_eq!(world.held(), []);
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
        key.push(material, u64::MAX, created, (i64::MAX, Why::Quarantined));
    }
    let bytes = crate::rows::encode_body(&key).expose().len();
    assert!(bytes < 64 << 10, "{bytes}");
}

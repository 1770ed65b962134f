//! Keys: made, rotated, taken apart, used at central and at a site, and renewed after a quarantine.

mod cutting_off;
mod keeping;
mod racing;
mod using;

use holdfast_protocol::crypto::transit::Cipher;
use holdfast_protocol::ids::{Realm, SiteName};
use holdfast_protocol::kes::{Identity, KeyName};
use proptest::prelude::*;

use super::records::{VERSIONS_HELD_MAX, VERSIONS_MAX};
use super::*;
use crate::access_control::Authority;
use crate::access_control::identities::set_admin;
use crate::access_control::policies::Origin;
use crate::distribute::{Distribute, Gate, Placement};
use crate::rows::{Batch, Kind, ReadRows, Refusal, Rows};
use crate::secret_store::Stamp;
use crate::tally::{Tally, tally};
use crate::testing::{MapRows, at, secret};

const TENANT: Realm = Realm(2);
const OTHER_TENANT: Realm = Realm(3);
const NODE: Authority = Authority::Node { realm: TENANT, part: "test" };
const ADMIN: Identity = Identity([0xad; 32]);

fn name(text: &str) -> KeyName {
    text.parse().unwrap()
}

fn admin() -> Authority {
    Authority::Client { realm: TENANT, identity: ADMIN, path: "/v1/key/x".to_owned() }
}

fn stranger() -> Authority {
    Authority::Client { realm: TENANT, identity: Identity([1; 32]), path: "/v1/key/x".to_owned() }
}

fn everywhere() -> Distribute {
    Distribute { to: Placement::All, offline_s: None }
}

fn fresh(fill: u8) -> FreshKey {
    FreshKey { key: secret(fill), hmac_key: secret(fill ^ 0x80) }
}

/// Two tenants, the first with an administrator.
struct World {
    rows: MapRows,
    drawn: u8,
}

impl World {
    fn new() -> Self {
        let mut rows = MapRows::new();
        rows.run(|_| {
            let mut batch = Batch::housekeeping();
            batch.create_realm(TENANT, secret(1), secret(2));
            batch.create_realm(OTHER_TENANT, secret(3), secret(4));
            Ok((batch, ()))
        })
        .unwrap();
        rows.run(|rows| set_admin(&NODE, ADMIN, rows, at(1))).unwrap();
        Self { rows, drawn: 0 }
    }

    fn draw(&mut self) -> FreshKey {
        self.drawn = self.drawn.wrapping_add(1);
        fresh(self.drawn)
    }

    fn create_by(&mut self, by: Authority, key: &str, distribute: Distribute) -> Result<(), Refusal> {
        let cmd = CreateKey { by, name: name(key), cipher: Cipher::Aes256Gcm, fresh: self.draw(), distribute };
        self.rows.run(|rows| create_key(&cmd, rows, at(10)))
    }

    fn create(&mut self, key: &str) {
        self.create_by(admin(), key, everywhere()).unwrap();
    }

    fn rotate(&mut self, key: &str, cipher: Option<Cipher>, renew_hmac: bool) -> Result<u32, Refusal> {
        let cmd = RotateKey { by: admin(), name: name(key), cipher, fresh: self.draw(), renew_hmac };
        self.rows.run(|rows| rotate_key(&cmd, rows, at(20)))
    }

    fn erase(&mut self, key: &str, numbers: &[u32]) -> Result<(), Refusal> {
        let cmd = EraseVersions { by: admin(), name: name(key), numbers: numbers.iter().copied().collect() };
        self.rows.run(|rows| erase_versions(&cmd, rows, at(30)))
    }

    fn distribute(&mut self, key: &str, distribute: Distribute) -> Result<(), Refusal> {
        let cmd = SetDistribute { by: admin(), name: name(key), distribute };
        self.rows.run(|rows| set_distribute(&cmd, rows, at(40)))
    }

    fn delete(&mut self, key: &str) -> Result<(), Refusal> {
        self.rows.run(|rows| delete_key(&admin(), &name(key), rows, at(50)))
    }

    fn key(&self, key: &str) -> TransitKey {
        lookup(&self.rows, TENANT, &Gate::CENTRAL, &name(key)).unwrap()
    }

    /// Numbers of the versions, and whether each encrypts.
    fn versions(&self, key: &str) -> Vec<(u32, bool)> {
        let key = self.key(key);
        key.versions.iter().map(|version| (version.number, version.state == VersionState::Active)).collect()
    }

    fn last_line(&self) -> (String, String, String) {
        let (realm, line) = self.rows.lines.last().unwrap();
        assert_eq!(*realm, TENANT);
        (line.actor.clone(), line.action.clone(), line.object.clone())
    }
}

#[test]
fn a_key_is_made_once_and_again_after_it_was_deleted() {
    let mut world = World::new();
    world.create("k");
    assert_eq!(world.last_line(), (ADMIN.to_string(), "key.create".to_owned(), "k".to_owned()));
    assert!(matches!(world.create_by(admin(), "k", everywhere()), Err(Refusal::Exists("key"))));
    let key = world.key("k");
    let newest = key.newest().unwrap();
    assert_eq!((newest.number, newest.material.key.expose()), (1, &[1; 32]));
    assert_eq!((newest.created.by.clone(), newest.created.at_us), (ADMIN.to_string(), 10_000_000));
    assert_eq!(key.origin, Origin::Api);
    world.delete("k").unwrap();
    assert_eq!(world.last_line().1, "key.delete");
    assert!(matches!(world.delete("k"), Err(Refusal::NotFound("key"))));
    assert!(matches!(lookup(&world.rows, TENANT, &Gate::CENTRAL, &name("k")), Err(Refusal::NotFound("key"))));
    world.create("k");
    assert_ne!(world.key("k").newest().unwrap().material.key.expose(), &[1; 32], "another key of the same name");
}

#[test]
fn an_imported_key_keeps_what_is_known_of_it() {
    let mut world = World::new();
    for (key, created, has_hmac) in
        [("old", Some(Stamp { by: "kes".to_owned(), at_us: 7 }), false), ("new", None, true)]
    {
        let hmac_key = has_hmac.then(|| records::HmacKey(secret(8)));
        let material = Material { cipher: Cipher::ChaCha20Poly1305, key: secret(7), hmac_key };
        let distribute = Distribute::default();
        let cmd = ImportKey { by: admin(), name: name(key), material, created: created.clone(), distribute };
        world.rows.run(|rows| import_key(&cmd, rows, at(60))).unwrap();
        assert!(matches!(world.rows.run(|rows| import_key(&cmd, rows, at(60))), Err(Refusal::Exists("key"))));
        assert_eq!(world.last_line().1, "key.import");
        let found = world.key(key);
        let newest = found.newest().unwrap();
        let expected = created.unwrap_or_else(|| Stamp { by: ADMIN.to_string(), at_us: 60_000_000 });
        assert_eq!(newest.created, expected);
        assert_eq!((newest.material.cipher, newest.material.key.expose()), (Cipher::ChaCha20Poly1305, &[7; 32]));
        assert_eq!(hmac(&found, None, b"").is_ok(), has_hmac);
    }
}

#[test]
fn a_rotated_key_encrypts_with_its_newest_version() {
    let mut world = World::new();
    world.create("k");
    assert_eq!(world.rotate("k", None, false).unwrap(), 2);
    assert_eq!(world.last_line(), (ADMIN.to_string(), "key.rotate".to_owned(), "k version 2".to_owned()));
    assert_eq!(world.rotate("k", Some(Cipher::ChaCha20Poly1305), false).unwrap(), 3);
    assert_eq!(world.versions("k"), [(1, false), (2, false), (3, true)]);
    let key = world.key("k");
    assert_eq!(key.versions[0].state, VersionState::DecryptOnly { since_us: 20_000_000, why: Why::Rotated });
    let ciphers: Vec<Cipher> = key.versions.iter().map(|version| version.material.cipher).collect();
    assert_eq!(ciphers, [Cipher::Aes256Gcm, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305]);
    assert!(matches!(world.rotate("none", None, false), Err(Refusal::NotFound("key"))));
}

#[test]
fn an_hmac_comes_out_the_same_after_a_rotation_unless_it_shall_not() {
    let mut world = World::new();
    world.create("k");
    let mac = |world: &World, version| hmac(&world.key("k"), version, b"message").unwrap();
    let first = mac(&world, None);
    world.rotate("k", None, false).unwrap();
    assert_eq!(mac(&world, None), first);
    world.rotate("k", None, true).unwrap();
    let renewed = mac(&world, None);
    assert_ne!(renewed, first);
    assert_eq!([1, 2, 3].map(|number| mac(&world, Some(number))), [first, first, renewed]);
    assert_eq!(hmac(&world.key("k"), Some(4), b""), Err(Unusable::NoSuchVersion));
}

#[test]
fn erased_versions_are_gone_and_their_numbers_do_not_come_back() {
    let mut world = World::new();
    world.create("k");
    (0..3).for_each(|_| _ = world.rotate("k", None, false).unwrap());
    world.erase("k", &[1, 3]).unwrap();
    assert_eq!(world.last_line().2, "k versions 1, 3");
    assert_eq!(world.versions("k"), [(2, false), (4, true)]);
    assert!(matches!(world.erase("k", &[4]), Err(Refusal::Conflict(_))));
    assert!(matches!(world.erase("k", &[2, 4]), Err(Refusal::Conflict(_))));
    for missing in [&[1][..], &[9], &[1, 2], &[]] {
        assert!(matches!(world.erase("k", missing), Err(Refusal::NotFound("version"))), "{missing:?}");
    }
    assert_eq!(world.rotate("k", None, false).unwrap(), 5);
}

#[test]
fn versions_have_a_bound_that_erasing_makes_room_below() {
    let mut world = World::new();
    world.create("k");
    for number in 2..=u32::try_from(VERSIONS_MAX).unwrap() {
        assert_eq!(world.rotate("k", None, false).unwrap(), number);
    }
    assert!(matches!(world.rotate("k", None, false), Err(Refusal::Conflict(_))));
    world.erase("k", &[1]).unwrap();
    world.rotate("k", None, false).unwrap();
}

#[test]
fn only_who_may_changes_anything() {
    let mut world = World::new();
    world.create("k");
    world.rotate("k", None, false).unwrap();
    let (revision, lines) = (world.rows.revision(), world.rows.lines.len());
    let (by, name) = (stranger(), name("k"));
    let outcomes = [
        world.create_by(stranger(), "other", everywhere()),
        world.rows.run(|rows| delete_key(&by, &name, rows, at(1))),
        world.rows.run(|rows| set_origin(&admin(), &name, Origin::Config, rows, at(1))),
        world.rows.run(|rows| {
            let cmd = RotateKey { by: stranger(), name: name.clone(), cipher: None, fresh: fresh(9), renew_hmac: true };
            rotate_key(&cmd, rows, at(1)).map(|(batch, _)| (batch, ()))
        }),
        world.rows.run(|rows| {
            let cmd = EraseVersions { by: stranger(), name: name.clone(), numbers: [1].into() };
            erase_versions(&cmd, rows, at(1))
        }),
        world.rows.run(|rows| {
            let cmd = SetDistribute { by: stranger(), name: name.clone(), distribute: Distribute::default() };
            set_distribute(&cmd, rows, at(1))
        }),
    ];
    for outcome in outcomes {
        assert!(matches!(outcome, Err(Refusal::Denied)), "{outcome:?}");
    }
    assert_eq!((world.rows.revision(), world.rows.lines.len()), (revision, lines));
}

#[test]
fn a_key_of_one_tenant_is_none_of_another() {
    let mut world = World::new();
    world.create("k");
    let theirs = |world: &World| lookup(&world.rows, OTHER_TENANT, &Gate::CENTRAL, &name("k"));
    assert!(matches!(theirs(&world), Err(Refusal::NotFound("key"))));
    assert!(key_names(&world.rows, OTHER_TENANT).unwrap().is_empty());
    let by = Authority::Node { realm: OTHER_TENANT, part: "test" };
    assert!(matches!(world.rows.run(|rows| delete_key(&by, &name("k"), rows, at(1))), Err(Refusal::NotFound("key"))));
    world.create_by(by, "k", everywhere()).unwrap();
    let bytes = |key: TransitKey| *key.newest().unwrap().material.key.expose();
    assert_ne!(bytes(world.key("k")), bytes(theirs(&world).unwrap()));
}

#[test]
fn a_key_is_served_where_it_is_placed_as_long_as_its_lease_runs() {
    let mut world = World::new();
    world.create("all");
    world.create_by(admin(), "none", Distribute::default()).unwrap();
    let (here, there): (SiteName, SiteName) = ("udc1".parse().unwrap(), "udc2".parse().unwrap());
    let brief = Distribute { to: Placement::Sites([here.clone()].into()), offline_s: Some(60) };
    world.create_by(admin(), "here", brief).unwrap();
    let served = |site: &SiteName, key: &str, lease_ok: bool| {
        let gate = Gate { site: Some(site), lease_ok: &|offline_s| offline_s.is_none() || lease_ok, read: &|_, _| {} };
        lookup(&world.rows, TENANT, &gate, &name(key))
    };
    for (site, key, lease_ok, outcome) in [
        (&here, "all", false, "served"),
        (&there, "all", false, "served"),
        (&here, "here", true, "served"),
        (&here, "here", false, "lease"),
        (&there, "here", true, "none"),
        (&here, "none", true, "none"),
    ] {
        let found = match served(site, key, lease_ok) {
            Ok(_) => "served",
            Err(Refusal::LeaseExpired) => "lease",
            Err(Refusal::NotFound("key")) => "none",
            Err(other) => panic!("{other}"),
        };
        assert_eq!(found, outcome, "{site} {key}");
    }
    let gate = Gate { site: Some(&there), lease_ok: &|_| true, read: &|_, _| {} };
    let all = key_names(&world.rows, TENANT).unwrap();
    let listed: Vec<_> = all.iter().filter(|key| gate.is_placed(&key.of)).map(|key| &key.name).collect();
    assert_eq!(listed, ["all"]);
}

#[test]
fn where_a_key_goes_can_be_changed_within_bounds() {
    let mut world = World::new();
    world.create_by(admin(), "k", Distribute::default()).unwrap();
    world.distribute("k", everywhere()).unwrap();
    assert_eq!((world.key("k").distribute, world.last_line().1.as_str()), (everywhere(), "key.distribute"));
    let never = Distribute { to: Placement::All, offline_s: Some(0) };
    assert!(matches!(world.distribute("k", never.clone()), Err(Refusal::Invalid(_))));
    assert!(matches!(world.create_by(admin(), "other", never), Err(Refusal::Invalid(_))));
    assert!(matches!(world.distribute("none", everywhere()), Err(Refusal::NotFound("key"))));
}

#[test]
fn more_keys_than_fit_a_page_are_listed_completely() {
    let mut world = World::new();
    for number in 0..1100 {
        world.create(&format!("key-{number:04}"));
    }
    let all = key_names(&world.rows, TENANT).unwrap();
    let first = Listing::prefix("key-*").unwrap().page(&all, listing::PAGE_NAMES);
    let rest = Listing::prefix(&first.continue_at.clone().unwrap()).unwrap();
    let rest = rest.page(&all, listing::PAGE_NAMES);
    assert_eq!((first.found.len(), rest.found.len(), rest.continue_at), (1024, 76, None));
    assert_eq!([first.found, rest.found].concat(), all);
}

#[test]
fn a_tenant_has_so_many_keys_and_no_more() {
    let mut world = World::new();
    world.create("first");
    world.create("second");
    let full = Tally { count: records::KEYS.max };
    let count = |world: &World| tally::<TransitKey>(&world.rows, TENANT).unwrap();
    assert_eq!(count(&world), 2);
    world.delete("second").unwrap();
    assert_eq!(count(&world), 1);
    world.rotate("first", None, false).unwrap();
    assert_eq!(count(&world), 1, "a version is no key");
    world
        .rows
        .run(|_| {
            let mut batch = Batch::housekeeping();
            batch.put(TENANT, &[&(Kind::TransitKey as u8).to_string()], &full);
            Ok((batch, ()))
        })
        .unwrap();
    let refused = world.create_by(admin(), "more", everywhere()).unwrap_err().to_string();
    assert_eq!(refused, "a tenant has at most 10000 keys");
    world.create_by(NODE, "configured", everywhere()).unwrap();
    assert_eq!(count(&world), records::KEYS.max + 1);
    for key in ["first", "configured"] {
        world.rows.run(|rows| delete_key(&NODE, &name(key), rows, at(50))).unwrap();
    }
    world.create("more");
}

#[test]
fn keys_from_before_they_were_counted_are_counted_once() {
    let mut world = World::new();
    for key in ["first", "second", "third"] {
        world.create(key);
    }
    world.delete("third").unwrap();
    let uncounted = |_: &dyn Rows| {
        let mut batch = Batch::housekeeping();
        batch.forget::<Tally>(TENANT, &[&(Kind::TransitKey as u8).to_string()]);
        Ok((batch, ()))
    };
    let written = |world: &World| {
        let row = world.rows.read::<Tally>(TENANT, &[&(Kind::TransitKey as u8).to_string()]);
        row.unwrap().map(|row| row.value.count)
    };
    world.rows.run(uncounted).unwrap();
    assert_eq!((tally::<TransitKey>(&world.rows, TENANT).unwrap(), written(&world)), (2, None));
    world.create("more");
    assert_eq!(written(&world), Some(3));
    world.rows.run(uncounted).unwrap();
    world.delete("first").unwrap();
    assert_eq!(written(&world), Some(2));
}

#[test]
fn nothing_of_a_key_is_printed() {
    let mut world = World::new();
    world.create("k");
    let shown = format!("{:?} {:?}", world.key("k"), fresh(1));
    assert!(shown.contains("[redacted]") && !shown.contains("1, 1"), "{shown}");
}

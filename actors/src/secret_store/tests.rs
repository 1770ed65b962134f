//! Boxes and secrets as ledgers: tables, and a model checked by random operations.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_protocol::ids::{Realm, SiteName};
use holdfast_protocol::secret::SecretBytes;
use proptest::prelude::*;

use super::boxes::categories;
use super::reading::read_box_by_id;
use super::secrets::{CheckedData, SECRET_BYTES_MAX};
use super::*;
use crate::access_control::tenants::{CreateTenant, create_tenant};
use crate::access_control::{Caller, Principal, TenantKind, TokenId, TokenKind};
use crate::audit_log::Line;
use crate::distribute::{Distribute, Gate, Placement};
use crate::rows::{Batch, Kind, ReadRows, Refusal};
use crate::testing::{MapRows, at, secret};

mod vaults;

const APP: &str = "f7ff85a0-faaa-11e5-a8a9-7fa3b294cd46";
const REALM: Realm = Realm(2);

fn rows() -> MapRows {
    let mut rows = MapRows::new();
    let (base, key, token_seed) = (secret(1), secret(2), secret(3));
    let (name, kind) = ("acme".parse().unwrap(), TenantKind::ApplicationOwner);
    let cmd = CreateTenant { name, kind, base, key, token_seed, by: "test".into() };
    rows.run(|rows| create_tenant(&cmd, rows, at(1))).unwrap();
    rows
}

/// A user of the tenant, made known to the rows.
fn user(rows: &mut MapRows, name: &str, groups: &[&str]) -> Caller {
    let groups: BTreeSet<String> = groups.iter().map(|group| (*group).to_owned()).collect();
    let principal = Principal { groups: groups.clone(), disabled: false };
    rows.run(|_| {
        let mut batch = Batch::new(REALM, Line::done(0, "test", "user.write", name));
        batch.put(REALM, &[name], &principal);
        Ok((batch, ()))
    })
    .unwrap();
    Caller {
        realm: REALM,
        tenant: REALM.0,
        principal: name.to_owned(),
        groups,
        kind: TokenKind::User,
        token_id: TokenId([1; 16]),
        issued_us: 0,
        expires_us: 0,
    }
}

fn new_box(name: &str) -> NewBox {
    NewBox { name: name.into(), category_id: APP.into(), owner: "owners".into(), ..NewBox::default() }
}

fn make(rows: &mut MapRows, caller: &Caller, new: NewBox) -> Result<DepositBox, Refusal> {
    let checked = new.check(&categories(rows, caller)?)?;
    let permission_ids = (0..checked.permissions()).map(|number| format!("p{number}")).collect();
    let cmd = CreateBox { caller: caller.clone(), id: format!("id-of-{}", rows.lines.len()), checked, permission_ids };
    rows.run(|rows| create_box(&cmd, rows, at(2)))
}

fn path(text: &str) -> SecretPath {
    SecretPath::new(text.split('/').map(str::to_owned).collect()).unwrap()
}

fn write(rows: &mut MapRows, caller: &Caller, slug: &str, at_path: &str, data: &str, id: u32) -> Result<(), Refusal> {
    let cmd = WriteSecret {
        caller: caller.clone(),
        at: ("app".into(), slug.into()),
        path: path(at_path),
        data: CheckedData::new(SecretBytes::from(data.to_owned()))?,
        version_id: format!("v{id}"),
    };
    rows.run(|rows| write_secret(&cmd, rows, at(i64::from(id))))
}

fn delete(rows: &mut MapRows, caller: &Caller, slug: &str, at_path: &str) -> Result<(), Refusal> {
    let cmd = DeleteSecret { caller: caller.clone(), at: ("app".into(), slug.into()), path: path(at_path) };
    rows.run(|rows| delete_secret(&cmd, rows, at(99)))
}

fn read(rows: &MapRows, caller: &Caller, slug: &str, at_path: &str) -> Result<String, Refusal> {
    let view = read_secret(rows, caller, &Gate::CENTRAL, ("app", slug), &path(at_path))?;
    Ok(String::from_utf8(view.data.expose().to_vec()).unwrap())
}

#[test]
fn a_box_is_checked_as_a_whole_and_by_cerberus_codes() {
    let categories = default_categories(0);
    let long = |length: usize| "x".repeat(length);
    let group = |name: &str, role: Role| (name.to_owned(), role.id().to_owned());
    let arn = "arn:aws:iam::1:role/r".to_owned();
    let cases: Vec<(NewBox, &[u32])> = vec![
        (new_box("Stage"), &[]),
        (NewBox { description: Some(long(1000)), ..new_box(&long(100)) }, &[]),
        (new_box(""), &[99208]),
        (new_box("  "), &[99208]),
        (new_box("!?"), &[99208]),
        (new_box(&long(101)), &[99212]),
        (NewBox { description: Some(long(1001)), ..new_box("a") }, &[99213]),
        (NewBox { category_id: "nope".into(), ..new_box("a") }, &[99207]),
        (NewBox { owner: " ".into(), ..new_box("a") }, &[99209]),
        (NewBox { owner: long(256), ..new_box("a") }, &[99214]),
        (NewBox { groups: vec![group(" ", Role::Read)], ..new_box("a") }, &[99202]),
        (NewBox { groups: vec![("g".into(), "nope".into())], ..new_box("a") }, &[99203]),
        (NewBox { groups: vec![group("g", Role::Owner)], ..new_box("a") }, &[99203]),
        (NewBox { groups: vec![group("g", Role::Read), group("g", Role::Write)], ..new_box("a") }, &[99218]),
        (NewBox { groups: vec![group("owners", Role::Read)], ..new_box("a") }, &[99220]),
        (NewBox { principals: vec![(arn.clone(), Role::Owner.id().into())], ..new_box("a") }, &[]),
        (NewBox { principals: vec![("arn:x".into(), Role::Read.id().into())], ..new_box("a") }, &[99226]),
        (NewBox { principals: vec![(arn.clone(), "nope".into())], ..new_box("a") }, &[99206]),
        (
            NewBox {
                principals: vec![(arn.clone(), Role::Read.id().into()), (arn, Role::Read.id().into())],
                ..new_box("a")
            },
            &[99227],
        ),
        (NewBox { distribute: Distribute { to: Placement::All, offline_s: Some(0) }, ..new_box("a") }, &[99999]),
        (NewBox { owner: String::new(), category_id: String::new(), ..new_box("") }, &[99208, 99207, 99209]),
    ];
    for (new, expected) in cases {
        let shown = format!("{new:?}");
        let codes: Vec<u32> = match new.check(&categories) {
            Ok(_) => Vec::new(),
            Err(invalid) => invalid.faults().iter().map(|fault| fault.code).collect(),
        };
        assert_eq!(codes, expected, "{shown}");
    }
}

#[test]
fn a_slug_is_taken_once_over_all_categories() {
    let mut rows = rows();
    let caller = user(&mut rows, "alice", &[]);
    let made = make(&mut rows, &caller, new_box("My Box")).unwrap();
    assert_eq!((made.path().as_str(), made.created.by.as_str()), ("app/my-box/", "alice"));
    let shared = default_categories(0)[1].id.clone();
    let again = make(&mut rows, &caller, NewBox { category_id: shared, ..new_box("MY BOX") });
    assert!(matches!(again, Err(Refusal::Exists(_))));
}

#[test]
fn roles_come_from_groups_and_not_from_being_an_administrator() {
    let mut rows = rows();
    let owner = user(&mut rows, "olga", &["owners"]);
    let groups = vec![("writers".into(), Role::Write.id().into()), ("readers".into(), Role::Read.id().into())];
    let made = make(&mut rows, &owner, NewBox { groups, ..new_box("a") }).unwrap();
    let mut root = user(&mut rows, "root", &[]);
    root.kind = TokenKind::Root;
    let cases: [(&[&str], Option<Role>); 6] = [
        (&["owners"], Some(Role::Owner)),
        (&["writers"], Some(Role::Write)),
        (&["readers"], Some(Role::Read)),
        (&["readers", "writers", "x"], Some(Role::Write)),
        (&["admins"], None),
        (&[], None),
    ];
    for (groups, role) in cases {
        let caller = user(&mut rows, "someone", groups);
        assert_eq!(role_of(&made, &caller), role, "{groups:?}");
        let outcomes = [
            (write(&mut rows, &caller, "a", "s", "{}", 5).is_ok(), Role::Write),
            (read(&rows, &caller, "a", "s").is_ok(), Role::Read),
            (read_box_by_id(&rows, &caller, &made.id).is_ok(), Role::Read),
            (delete(&mut rows, &caller, "a", "s").is_ok(), Role::Write),
        ];
        write(&mut rows, &owner, "a", "s", "{}", 6).unwrap();
        for (allowed, needed) in outcomes {
            assert_eq!(allowed, role.is_some_and(|role| needed <= role), "{groups:?} {needed:?}");
        }
    }
    assert_eq!(role_of(&made, &root), Some(Role::Owner));
    let outsider = user(&mut rows, "outsider", &[]);
    assert!(matches!(read(&rows, &outsider, "a", "s"), Err(Refusal::Denied)));
}

#[test]
fn what_is_overwritten_or_deleted_remains_as_a_version() {
    let mut rows = rows();
    let olga = user(&mut rows, "olga", &["owners"]);
    let alice = user(&mut rows, "alice", &["owners"]);
    make(&mut rows, &olga, new_box("a")).unwrap();
    write(&mut rows, &olga, "a", "x/y", r#"{"n":1}"#, 10).unwrap();
    write(&mut rows, &alice, "a", "x/y", r#"{"n":2}"#, 20).unwrap();
    let view = read_secret(&rows, &olga, &Gate::CENTRAL, ("app", "a"), &path("x/y")).unwrap();
    assert_eq!(view.data.expose(), br#"{"n":2}"#);
    assert_eq!((view.created.by.as_str(), view.updated.by.as_str()), ("olga", "alice"));
    assert_eq!((view.created.at_us, view.updated.at_us), (10_000_000, 20_000_000));
    delete(&mut rows, &olga, "a", "x/y").unwrap();
    assert!(matches!(read(&rows, &olga, "a", "x/y"), Err(Refusal::NotFound("secret"))));
    assert!(matches!(delete(&mut rows, &olga, "a", "x/y"), Err(Refusal::NotFound("secret"))));
    let versions = rows.list::<SecretVersion>(REALM, &["a", "x", "y"]).unwrap();
    let told: Vec<_> = versions
        .iter()
        .map(|row| (row.name(), row.value.action, row.value.written.by.as_str(), row.value.ended.by.as_str()))
        .collect();
    assert_eq!(
        told,
        [("v10", VersionAction::Update, "olga", "alice"), ("v20", VersionAction::Delete, "alice", "olga")]
    );
}

#[test]
fn a_site_serves_what_is_placed_there_while_the_lease_runs() {
    let mut central = rows();
    let olga = user(&mut central, "olga", &["owners"]);
    let (here, there): (SiteName, SiteName) = ("udc1".parse().unwrap(), "udc2".parse().unwrap());
    let distribute = Distribute { to: Placement::Sites([here.clone()].into()), offline_s: Some(60) };
    make(&mut central, &olga, NewBox { distribute, ..new_box("a") }).unwrap();
    write(&mut central, &olga, "a", "s", r#"{"n":1}"#, 10).unwrap();
    let (mut site, local) = (MapRows::new(), Realm(9));
    central.copy_to(&[Kind::Box, Kind::Secret, Kind::Principal], REALM, &mut site, local);
    let caller = Caller { realm: local, ..olga };
    let read_at = |site_name: &SiteName, lease: bool, category: &str, slug: &str| {
        let gate = Gate { site: Some(site_name), lease_ok: &|_| lease, read: &|_, _| {} };
        read_secret(&site, &caller, &gate, (category, slug), &path("s")).map(|view| view.data)
    };
    assert_eq!(read_at(&here, true, "app", "a").unwrap().expose(), br#"{"n":1}"#);
    assert!(matches!(read_at(&here, false, "app", "a"), Err(Refusal::LeaseExpired)));
    let absent = read_at(&here, true, "app", "b").unwrap_err().to_string();
    assert_eq!(read_at(&there, true, "app", "a").unwrap_err().to_string(), absent);
    assert_eq!(read_at(&here, true, "shared", "a").unwrap_err().to_string(), absent);
}

#[test]
fn a_secret_is_an_object_within_bounds_at_a_path_within_bounds() {
    let filled = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
    let check = |text: String| CheckedData::new(SecretBytes::from(text)).is_ok();
    assert!(check(filled(SECRET_BYTES_MAX)));
    assert!(!check(filled(SECRET_BYTES_MAX + 1)));
    assert!(!check("[1]".into()));
    let make = |segments: &[&str]| SecretPath::new(segments.iter().map(|s| (*s).to_owned()).collect()).is_ok();
    let (long, longest) = ("x".repeat(256), "x".repeat(255));
    assert!(make(&["a"]) && make(&["a"; 14]) && make(&[&longest]) && make(&["ä b", "%2F", ".."]));
    for bad in [&[][..], &["a"; 15], &[""], &["a", ""], &[&long], &[&longest, "a"], &["a\n"], &["a/b"]] {
        assert!(!make(bad), "{bad:?}");
    }
}

#[test]
fn nothing_is_written_for_a_caller_whose_token_ended_meanwhile() {
    let mut rows = rows();
    let olga = user(&mut rows, "olga", &["owners"]);
    make(&mut rows, &olga, new_box("a")).unwrap();
    let ended = Caller { expires_us: 1, ..olga.clone() };
    assert!(matches!(write(&mut rows, &ended, "a", "s", "{}", 5), Err(Refusal::Unauthenticated)));
    user(&mut rows, "olga", &[]);
    assert!(matches!(write(&mut rows, &olga, "a", "s", "{}", 5), Err(Refusal::Denied)));
    assert!(matches!(make(&mut rows, &ended, new_box("b")), Err(Refusal::Unauthenticated)));
}

#[derive(Debug, Clone)]
enum Step {
    Write(usize, usize, u8),
    Delete(usize, usize),
}

const BOXES: [&str; 3] = ["a", "a-b", "a_b"];
const PATHS: [&str; 6] = ["s", "s/t", "s/t/u", "t", "s-t", "s/v"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write = (0..BOXES.len(), 0..PATHS.len(), any::<u8>()).prop_map(|(b, p, n)| Step::Write(b, p, n));
    let delete = (0..BOXES.len(), 0..PATHS.len()).prop_map(|(b, p)| Step::Delete(b, p));
    prop::collection::vec(prop_oneof![3 => write, 1 => delete], 0..40)
}

/// What a folder lists, worked out from full paths.
fn listed<'a>(paths: impl Iterator<Item = &'a str>, folder: &str) -> BTreeSet<String> {
    paths
        .filter_map(|path| path.strip_prefix(folder))
        .map(|rest| rest.split_once('/').map_or(rest.to_owned(), |(name, _)| format!("{name}/")))
        .collect()
}

proptest! {
    #[test]
    fn reads_lists_and_versions_follow_a_model(steps in steps()) {
        let mut rows = rows();
        let olga = user(&mut rows, "olga", &["owners"]);
        for name in BOXES {
            make(&mut rows, &olga, new_box(name)).unwrap();
        }
        let (mut model, mut ended) = (BTreeMap::new(), 0);
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Write(b, p, n) => {
                    let data = format!("{{\"n\":{n}}}");
                    let id = 100 + u32::try_from(number).unwrap();
                    write(&mut rows, &olga, BOXES[b], PATHS[p], &data, id).unwrap();
                    ended += usize::from(model.insert((BOXES[b], PATHS[p]), data).is_some());
                }
                Step::Delete(b, p) => {
                    let was = model.remove(&(BOXES[b], PATHS[p])).is_some();
                    prop_assert_eq!(delete(&mut rows, &olga, BOXES[b], PATHS[p]).is_ok(), was);
                    ended += usize::from(was);
                }
            }
        }
        for slug in BOXES {
            for at_path in PATHS {
                prop_assert_eq!(read(&rows, &olga, slug, at_path).ok(), model.get(&(slug, at_path)).cloned());
            }
            for folder in ["", "s/", "s/t/"] {
                let here = model.keys().filter(|(b, _)| *b == slug).map(|(_, p)| *p);
                let within = (!folder.is_empty()).then(|| path(folder.trim_end_matches('/')));
                let names = list_secrets(&rows, &olga, &Gate::CENTRAL, ("app", slug), within.as_ref()).unwrap();
                prop_assert_eq!(names, listed(here, folder));
            }
        }
        prop_assert_eq!(rows.list::<SecretVersion>(REALM, &[]).unwrap().len(), ended);
    }

    #[test]
    fn a_path_from_anywhere_is_refused_or_stored(segments in prop::collection::vec(".{0,40}", 0..18)) {
        if let Ok(path) = SecretPath::new(segments) {
            prop_assert!(crate::rows::RowKey::of::<SecretVersion>(REALM, &[&path.below(&"x".repeat(100))[..], &["v"]].concat()).check().is_ok());
        }
    }
}

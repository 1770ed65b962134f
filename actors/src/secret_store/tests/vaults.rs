//! What boxes can do as vaults: conditions on writes, bounds on versions, changes, removal.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::rows::{Expected, RowKey, Rows};
use crate::secret_store::changing::{EMPTIED_MAX, content_of};

fn vault(name: &str, max_versions: Option<u32>) -> NewBox {
    NewBox { max_versions, ..new_box(name) }
}

fn put_on(
    rows: &mut MapRows,
    caller: &Caller,
    at_path: &str,
    content: Content,
    terms: Terms,
) -> Result<Written, Refusal> {
    let number = rows.lines.len();
    let cmd = PutSecret {
        caller: caller.clone(),
        at: ("app".into(), "a".into()),
        path: path(at_path),
        content,
        terms,
        version_id: format!("id-{number}"),
    };
    rows.run(|rows| put_secret(&cmd, rows, at(i64::try_from(number).unwrap())))
}

fn data(text: &str) -> Content {
    Content::Whole(CheckedData::new(SecretBytes::from(text.to_owned())).unwrap(), Marks::default())
}

fn put(rows: &mut MapRows, caller: &Caller, text: &str, terms: Terms) -> Result<Written, Refusal> {
    put_on(rows, caller, "s", data(text), terms)
}

fn remove(rows: &mut MapRows, caller: &Caller, expected: Expected) -> Result<(), Refusal> {
    let at_box = ("app".into(), "a".into());
    let cmd = RemoveSecret { caller: caller.clone(), at: at_box, path: path("s"), expected };
    rows.run(|rows| remove_secret(&cmd, rows, at(9)))
}

fn update(
    rows: &mut MapRows,
    caller: &Caller,
    expected: Expected,
    patch: BoxPatch,
) -> Result<(DepositBox, u64), Refusal> {
    let permission_ids = (0..patch.permissions()).map(|number| format!("new-{number}")).collect();
    let cmd = UpdateBox { caller: caller.clone(), slug: "a".into(), expected, patch, permission_ids };
    rows.run(|rows| update_box(&cmd, rows, at(50)))
}

fn expecting(version: u64) -> Terms {
    Terms { expected: Expected::Versions(vec![version]), ..Terms::default() }
}

/// Numbers of the earlier versions that lie there, and of those that the history names.
fn kept(rows: &MapRows) -> (Vec<u64>, Vec<u64>) {
    let mut there: Vec<u64> =
        rows.list::<SecretVersion>(REALM, &["a", "s"]).unwrap().iter().map(|row| row.value.version).collect();
    there.sort_unstable();
    let history = rows.read::<SecretHistory>(REALM, &["a", "s"]).unwrap().map(|row| row.value).unwrap_or_default();
    (there, history.kept.iter().map(|kept| kept.version).collect())
}

#[test]
fn a_write_goes_only_where_the_version_is_as_expected() {
    let mut rows = rows();
    let olga = user(&mut rows, "olga", &["owners"]);
    make(&mut rows, &olga, vault("a", Some(1))).unwrap();
    let new = Terms { must_be_new: true, ..Terms::default() };
    let absent = Terms { expected: Expected::Absent, ..Terms::default() };
    let old = Terms { must_exist: true, ..Terms::default() };
    assert!(matches!(put(&mut rows, &olga, "{}", old.clone()), Err(Refusal::NotFound("secret"))));
    assert!(matches!(put(&mut rows, &olga, "{}", expecting(1)), Err(Refusal::Changed)));
    assert_eq!(put(&mut rows, &olga, "{}", new.clone()).unwrap(), Written { version: 1, created: true });
    assert!(matches!(put(&mut rows, &olga, "{}", new), Err(Refusal::Exists("secret"))));
    assert!(matches!(put(&mut rows, &olga, "{}", absent.clone()), Err(Refusal::Changed)));
    assert_eq!(put(&mut rows, &olga, "{}", expecting(1)).unwrap(), Written { version: 2, created: false });
    assert!(matches!(put(&mut rows, &olga, "{}", expecting(1)), Err(Refusal::Changed)));
    assert_eq!(put(&mut rows, &olga, "{}", old).unwrap().version, 3);
    assert!(matches!(remove(&mut rows, &olga, Expected::Versions(vec![2])), Err(Refusal::Changed)));
    remove(&mut rows, &olga, Expected::Versions(vec![3])).unwrap();
    assert!(matches!(remove(&mut rows, &olga, Expected::Present), Err(Refusal::Changed)));
    assert!(matches!(remove(&mut rows, &olga, Expected::Anything), Err(Refusal::NotFound("secret"))));
    // No number comes back, so nobody replaces by mistake what was made anew.
    assert_eq!(put(&mut rows, &olga, "{}", absent).unwrap(), Written { version: 5, created: true });
}

#[test]
fn a_vault_may_demand_to_be_told_what_is_replaced() {
    let mut rows = rows();
    let olga = user(&mut rows, "olga", &["owners"]);
    make(&mut rows, &olga, NewBox { cas_required: true, ..vault("a", None) }).unwrap();
    for careless in [Terms::default(), Terms { expected: Expected::Present, ..Terms::default() }] {
        let refused = put(&mut rows, &olga, "{}", careless);
        assert!(matches!(refused, Err(Refusal::Invalid(_) | Refusal::Changed)), "{refused:?}");
    }
    assert!(matches!(write(&mut rows, &olga, "a", "s", "{}", 5), Err(Refusal::Invalid(_))), "by no dialect");
    put(&mut rows, &olga, "{}", Terms { expected: Expected::Absent, ..Terms::default() }).unwrap();
    put(&mut rows, &olga, "{}", expecting(1)).unwrap();
}

#[test]
fn a_merge_changes_what_it_names_and_base64_wins() {
    let mut rows = rows();
    let olga = user(&mut rows, "olga", &["owners"]);
    make(&mut rows, &olga, vault("a", Some(1))).unwrap();
    let marks = Marks { binary: BTreeSet::from(["b".to_owned(), "c".to_owned()]), image_access: vec!["*".into()] };
    let whole = CheckedData::new(SecretBytes::from(r#"{"a":"1","b":"Yg==","c":"Yw==","n":1.50}"#.to_owned())).unwrap();
    put_on(&mut rows, &olga, "s", Content::Whole(whole, marks), Terms::default()).unwrap();
    let mut patch = SecretPatch::default();
    patch.texts.set_text("b", "plain");
    patch.texts.set_text("d", "loses");
    patch.binary.set_text("d", "ZA==");
    put_on(&mut rows, &olga, "s", Content::Merged(patch), Terms::default()).unwrap();
    let view = read_secret(&rows, &olga, &Gate::CENTRAL, ("app", "a"), &path("s")).unwrap();
    assert_eq!(view.data.expose(), br#"{"a":"1","b":"plain","c":"Yw==","d":"ZA==","n":1.50}"#);
    let binary = BTreeSet::from(["c".to_owned(), "d".to_owned()]);
    assert_eq!((&view.marks.binary, view.marks.image_access.as_slice()), (&binary, &["*".to_owned()][..]));
    // A dialect that knows no binary members makes texts of all; who may be given the secret stays.
    write(&mut rows, &olga, "a", "s", r#"{"c":"text"}"#, 70).unwrap();
    let view = read_secret(&rows, &olga, &Gate::CENTRAL, ("app", "a"), &path("s")).unwrap();
    assert_eq!((view.version, view.marks.binary.len(), view.marks.image_access.len()), (3, 0, 1));
}

#[test]
fn a_secret_and_what_stands_beside_it_fit_one_record() {
    let filled = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
    let names: BTreeSet<String> = (0..100).map(|number| format!("{number:0>97}")).collect();
    let marks = Marks { binary: names, image_access: vec!["*".into()] };
    let beside = |bytes: usize| CheckedData::new(SecretBytes::from(filled(bytes))).unwrap().beside(&marks).is_ok();
    assert!(beside(SECRET_BYTES_MAX - 100 * 100 - 4));
    assert!(!beside(SECRET_BYTES_MAX - 100 * 100 - 3));
    let mut rows = rows();
    let olga = user(&mut rows, "olga", &["owners"]);
    make(&mut rows, &olga, vault("a", Some(2))).unwrap();
    let fits = CheckedData::new(SecretBytes::from(filled(SECRET_BYTES_MAX - 100 * 100 - 4))).unwrap();
    put_on(&mut rows, &olga, "s", Content::Whole(fits, marks), Terms::default()).unwrap();
    let body = rows.load(&RowKey::of::<CurrentSecret>(REALM, &["a", "s"])).unwrap().unwrap().body.unwrap();
    assert!(body.expose().len() <= holdfast_protocol::limits::RECORD_BYTES_MAX);
    let many = Marks { image_access: vec!["x".into(); 65], ..Marks::default() };
    assert!(CheckedData::new(SecretBytes::from("{}".to_owned())).unwrap().beside(&many).is_err());
}

#[test]
fn a_lowered_bound_takes_the_oldest_versions_away_step_by_step() {
    let mut rows = rows();
    let olga = user(&mut rows, "olga", &["owners"]);
    make(&mut rows, &olga, vault("a", Some(100))).unwrap();
    for _ in 0..100 {
        put(&mut rows, &olga, "{}", Terms::default()).unwrap();
    }
    assert_eq!(kept(&rows).0, (1..100).collect::<Vec<_>>());
    let patch = BoxPatch { max_versions: Some(Some(1)), ..BoxPatch::default() };
    update(&mut rows, &olga, Expected::Anything, patch).unwrap();
    put(&mut rows, &olga, "{}", Terms::default()).unwrap();
    assert_eq!(kept(&rows).0.len(), 99 - 64);
    put(&mut rows, &olga, "{}", Terms::default()).unwrap();
    assert_eq!(kept(&rows), (vec![], vec![]));
    assert!(rows.read::<SecretHistory>(REALM, &["a", "s"]).unwrap().is_none());
}

#[test]
fn only_an_owner_changes_a_box_and_only_as_he_saw_it() {
    let mut rows = rows();
    let olga = user(&mut rows, "olga", &["owners"]);
    let writer = user(&mut rows, "wim", &["writers"]);
    let groups = vec![("writers".into(), Role::Write.id().into()), ("old".into(), Role::Read.id().into())];
    let made = make(&mut rows, &olga, NewBox { groups, ..new_box("a") }).unwrap();
    let patch = |description: &str| BoxPatch { description: Some(Some(description.into())), ..BoxPatch::default() };
    let refused = update(&mut rows, &writer, Expected::Anything, patch("x"));
    assert!(matches!(refused, Err(Refusal::Denied)));
    assert!(matches!(update(&mut rows, &olga, Expected::Versions(vec![9]), patch("x")), Err(Refusal::Changed)));
    let (changed, version) = update(&mut rows, &olga, Expected::Versions(vec![1]), patch("new")).unwrap();
    assert_eq!((version, changed.description.as_deref()), (2, Some("new")));
    assert_eq!((&changed.id, &changed.slug, &changed.created), (&made.id, &made.slug, &made.created));
    assert_ne!(changed.updated, made.updated);
    let merge = Groups::Merge(vec![
        ("writers".into(), Some(Role::Read.id().into())),
        ("old".into(), None),
        ("fresh".into(), Some(Role::Write.id().into())),
    ]);
    let patch = BoxPatch { groups: Some(merge), ..BoxPatch::default() };
    let (changed, _) = update(&mut rows, &olga, Expected::Anything, patch).unwrap();
    let told: Vec<_> = changed.user_group_permissions.iter().map(|given| (given.name.as_str(), given.role)).collect();
    assert_eq!(told, [("writers", Role::Read), ("fresh", Role::Write)]);
    assert_eq!(changed.user_group_permissions[0].id, made.user_group_permissions[0].id, "it is the same permission");
    let bad = BoxPatch { max_versions: Some(Some(0)), ..BoxPatch::default() };
    assert!(matches!(update(&mut rows, &olga, Expected::Anything, bad), Err(Refusal::Invalid(_))));
    let none = BoxPatch { groups: Some(Groups::Replace(vec![])), ..BoxPatch::default() };
    assert!(update(&mut rows, &olga, Expected::Anything, none).unwrap().0.user_group_permissions.is_empty());
}

#[test]
fn a_box_goes_with_all_that_is_in_it() {
    let mut rows = rows();
    let olga = user(&mut rows, "olga", &["owners"]);
    let made = make(&mut rows, &olga, vault("a", Some(2))).unwrap();
    make(&mut rows, &olga, vault("a-b", None)).unwrap();
    write(&mut rows, &olga, "a-b", "s", "{}", 5).unwrap();
    for number in 0..EMPTIED_MAX {
        put_on(&mut rows, &olga, &format!("s{number}"), data("{}"), Terms::default()).unwrap();
    }
    put_on(&mut rows, &olga, "s0", data("{}"), Terms::default()).unwrap();
    let wim = user(&mut rows, "wim", &[]);
    let removal = |caller: &Caller, expected| RemoveBox { caller: caller.clone(), slug: "a".into(), expected };
    assert!(matches!(
        rows.run(|rows| remove_box(&removal(&wim, Expected::Anything), rows, at(8))),
        Err(Refusal::Denied)
    ));
    let stale = removal(&olga, Expected::Versions(vec![7]));
    assert!(matches!(rows.run(|rows| remove_box(&stale, rows, at(8))), Err(Refusal::Changed)));
    // The secrets, the earlier version of one, and its history.
    let (batch, left) = remove_box(&removal(&olga, Expected::Anything), &rows, at(8)).unwrap();
    assert_eq!((left.len(), batch.is_empty()), (EMPTIED_MAX + 2, true), "that is too much for one transaction");
    let theirs = RowKey::of::<CurrentSecret>(REALM, &["a-b", "s"]);
    let keys = left.into_iter().take(EMPTIED_MAX - 1).chain([theirs]).collect();
    let step = EmptyBox { caller: olga.clone(), slug: "a".into(), expected: Expected::Anything, keys };
    rows.run(|rows| empty_box(&step, rows, at(8))).unwrap();
    assert_eq!(content_of(&rows, &olga, "a").unwrap().len(), 3);
    assert!(rows.run(|rows| remove_box(&removal(&olga, Expected::Anything), rows, at(8))).unwrap().is_empty());
    assert!(content_of(&rows, &olga, "a").unwrap().is_empty());
    assert!(matches!(read_box_by_id(&rows, &olga, &made.id), Err(Refusal::NotFound(_))));
    assert_eq!(read(&rows, &olga, "a-b", "s").unwrap(), "{}", "a neighbour's is not taken along");
    // One of the same name begins empty.
    make(&mut rows, &olga, vault("a", Some(2))).unwrap();
    assert!(matches!(read(&rows, &olga, "a", "s0"), Err(Refusal::NotFound("secret"))));
}

proptest! {
    #[test]
    fn as_many_versions_are_kept_as_the_vault_says(
        bound in 1u32..5, steps in prop::collection::vec(prop_oneof![3 => Just(true), 1 => Just(false)], 0..24),
    ) {
        let mut rows = rows();
        let olga = user(&mut rows, "olga", &["owners"]);
        make(&mut rows, &olga, vault("a", Some(bound))).unwrap();
        let (mut now, mut earlier, mut number) = (None, VecDeque::new(), 0u64);
        for write in steps {
            if write {
                number += 1;
                prop_assert_eq!(put(&mut rows, &olga, "{}", Terms::default()).unwrap().version, number);
            } else if now.is_some() {
                number += 1;
                remove(&mut rows, &olga, Expected::Anything).unwrap();
            } else {
                continue;
            }
            earlier.extend(now.take());
            now = write.then_some(number);
            while usize::try_from(bound - 1).unwrap() < earlier.len() {
                earlier.pop_front();
            }
            let expected: Vec<u64> = earlier.iter().copied().collect();
            prop_assert_eq!(kept(&rows), (expected.clone(), expected));
        }
        let lines: BTreeMap<String, usize> = rows.lines.iter().fold(BTreeMap::new(), |mut count, (_, line)| {
            *count.entry(line.action.clone()).or_default() += 1;
            count
        });
        let changes = lines.get("secret.write").unwrap_or(&0) + lines.get("secret.delete").unwrap_or(&0);
        prop_assert_eq!(u64::try_from(changes).unwrap(), number);
    }
}

//! Rows as their users see them: lists, versions, limits, changes.

use super::*;

#[test]
fn a_list_is_a_directory_in_order_of_names() {
    let store = Store::new();
    for path in [&["b"][..], &["a", "z"], &["a"], &["a", "b", "c"], &["ab"], &["a", "b"], &["B"]] {
        store.put(TENANT, path, b"x");
    }
    store.write(|batch| batch.put(TENANT, &["a", "other"], &Label("another kind".into()))).unwrap();
    store.put(OTHER, &["a", "foreign"], b"x");
    assert_eq!(store.names(TENANT, &[]), ["B", "a", "a/b", "a/b/c", "a/z", "ab", "b"]);
    assert_eq!(store.names(TENANT, &["a"]), ["a/b", "a/b/c", "a/z"]);
    assert_eq!(store.names(TENANT, &["a", "b"]), ["a/b/c"]);
    assert_eq!(store.names(TENANT, &["a", "b", "c"]), [""; 0]);
    assert_eq!(store.names(TENANT, &["absent"]), [""; 0]);
}

#[test]
fn a_directory_of_several_pages_is_listed_whole() {
    let store = Store::new();
    for page in 0..12 {
        store
            .write(|batch| {
                for row in 0..90 {
                    batch.put(TENANT, &["d", &format!("{:05}", page * 90 + row)], &Note(vec![]));
                }
            })
            .unwrap();
    }
    let names = store.names(TENANT, &["d"]);
    assert_eq!(names.len(), 1080);
    assert!(names.is_sorted());
}

#[test]
fn a_tombstone_keeps_counting_versions() {
    let store = Store::new();
    let version = |store: &Store| {
        let key = RowKey::of::<Note>(TENANT, &["a"]);
        store.barrier.snapshot().unwrap().load(&key).unwrap().map(|row| (row.version, row.body.is_some()))
    };
    assert_eq!(version(&store), None);
    store.put(TENANT, &["a"], b"1");
    store.write(|batch| batch.delete::<Note>(TENANT, &["a"])).unwrap();
    assert_eq!(version(&store), Some((2, false)));
    assert_eq!(store.read(TENANT, &["a"]).unwrap(), None);
    assert_eq!(store.names(TENANT, &[]), [""; 0]);
    store.put(TENANT, &["a"], b"2");
    assert_eq!(version(&store), Some((3, true)));
    store.write(|batch| batch.delete::<Note>(TENANT, &["never-there"])).unwrap();
    assert_eq!(store.read(TENANT, &["never-there"]).unwrap(), None);
}

#[test]
fn a_row_written_twice_by_one_batch_ends_as_its_last_write() {
    let store = Store::new();
    store.put(TENANT, &["a"], b"0");
    store
        .write(|batch| {
            batch.put(TENANT, &["a"], &Note(b"1".to_vec()));
            batch.delete::<Note>(TENANT, &["a"]);
            batch.put(TENANT, &["a"], &Note(b"2".to_vec()));
        })
        .unwrap();
    assert_eq!(store.read(TENANT, &["a"]).unwrap().as_deref(), Some(&b"2"[..]));
}

#[test]
fn a_batch_over_the_limits_is_refused_without_effect() {
    let store = Store::new();
    let before = store.raw();
    let many = |rows: usize, bytes: usize| {
        store.write(|batch| {
            for row in 0..rows {
                batch.put(TENANT, &[&row.to_string()], &Note(vec![0; bytes]));
            }
        })
    };
    assert!(matches!(many(DECIDE_OPS_MAX + 1, 1), Err(Refusal::Fault(Fault::TooLarge))));
    assert!(matches!(many(4, 200 << 10), Err(Refusal::Fault(Fault::TooLarge))));
    assert!(matches!(many(1, RECORD_BYTES_MAX), Err(Refusal::Invalid(_))));
    let long = "x".repeat(256);
    for path in [&[][..], &[""], &[long.as_str()], &["x"; 17]] {
        assert!(matches!(store.write(|batch| batch.put(TENANT, path, &Note(vec![]))), Err(Refusal::Invalid(_))));
    }
    assert_eq!(store.raw(), before);
    many(DECIDE_OPS_MAX, 1).unwrap();
    let longest = "x".repeat(255);
    store.write(|batch| batch.put(TENANT, &[longest.as_str(); 16], &Note(vec![0; 255 << 10]))).unwrap();
    assert_eq!(store.read(TENANT, &[longest.as_str(); 16]).unwrap().unwrap().len(), 255 << 10);
}

#[test]
fn a_line_about_something_endless_is_cut_and_kept() {
    let store = Store::new();
    let mut batch = Some(Batch::new(TENANT, Line::done(1, "ä".repeat(1 << 20), "a", "b")));
    store.decide(move |_| Ok((batch.take().unwrap(), ()))).unwrap();
    assert_eq!(verify_store(&*store.engine.snapshot().unwrap()).unwrap().changes, 1);
}

#[test]
fn changes_are_told_per_realm_each_row_once_in_order() {
    let store = Store::new();
    let start = store.put(TENANT, &["before"], b"0");
    store.put(TENANT, &["a"], b"1");
    store.put(OTHER, &["foreign"], b"2");
    store.put(TENANT, &["b"], b"3");
    let deleted = store.write(|batch| batch.delete::<Note>(TENANT, &["a"])).unwrap();
    let changes = |after| store.barrier.snapshot().unwrap().changes(TENANT, after).unwrap().unwrap();
    let told: Vec<_> =
        changes(start).into_iter().map(|changed| (changed.key.path.join("/"), changed.row.body.is_some())).collect();
    assert_eq!(told, [("b".to_owned(), true), ("a".to_owned(), false)]);
    assert!(changes(deleted).is_empty());
    store.engine.compact(deleted).unwrap();
    assert!(store.barrier.snapshot().unwrap().changes(TENANT, start).unwrap().is_none());
}

//! The suite that every engine passes. Each check gets a fresh, empty engine.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use holdfast_actors::store::{Change, ChangesError, CommitEnd, Engine, Entry, Fault, Op, VALUE_BYTES_MAX, View};
use holdfast_protocol::ids::Revision;
use holdfast_protocol::limits::{KEY_BYTES_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_OPS_MAX};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::test_runner::{Config, TestRunner};
use proptest::{option, prop_oneof};

use super::{delete, put, soon, submit, value, write};

/// Runs everything.
pub(super) fn suite(make: &dyn Fn() -> Arc<dyn Engine>) {
    let checks: &[fn(&dyn Engine)] = &[
        an_empty_store_has_revision_zero,
        puts_count_versions_from_the_last_creation,
        a_range_is_ordered_and_bounded,
        a_refused_decision_writes_nothing,
        what_changes_nothing_takes_no_revision,
        later_decisions_see_earlier_ones,
        one_decision_may_touch_a_key_twice,
        changes_tell_the_last_one_of_each_key,
        changes_never_split_a_revision,
        compacted_changes_are_refused,
        a_key_may_return_after_its_deletion_was_compacted,
        nothing_is_told_of_what_was_erased,
        a_snapshot_does_not_move,
        decisions_beyond_the_limits_fail_alone,
        keys_that_can_not_exist_are_absent,
        each_commit_is_closed_once,
        watchers_learn_of_each_commit,
    ];
    for check in checks {
        check(&*make());
    }
    random_histories_match_the_model(make);
}

fn an_empty_store_has_revision_zero(engine: &dyn Engine) {
    let view = engine.snapshot().unwrap();
    assert_eq!(view.revision(), Revision(0));
    assert_eq!(view.get(b"a").unwrap(), None);
    assert_eq!(view.range(b"", b"\xff", 10).unwrap(), []);
    assert_eq!(view.changes(Revision(0), 10).unwrap(), []);
}

fn puts_count_versions_from_the_last_creation(engine: &dyn Engine) {
    let entry = || engine.snapshot().unwrap().get(b"a").unwrap();
    let expected = |value: &str, created, modified, version| {
        Some(Entry { value: value.into(), created: Revision(created), modified: Revision(modified), version })
    };
    assert_eq!(write(engine, vec![put("a", "1")]), Ok(Revision(1)));
    assert_eq!(entry(), expected("1", 1, 1, 1));
    assert_eq!(write(engine, vec![put("a", "2"), put("b", "")]), Ok(Revision(2)));
    assert_eq!(entry(), expected("2", 1, 2, 2));
    assert_eq!(write(engine, vec![delete("a")]), Ok(Revision(3)));
    assert_eq!(entry(), None);
    assert_eq!(value(engine, "b"), Some(vec![]));
    assert_eq!(write(engine, vec![put("a", "4")]), Ok(Revision(4)));
    assert_eq!(entry(), expected("4", 4, 4, 1));
}

fn a_range_is_ordered_and_bounded(engine: &dyn Engine) {
    write(engine, ["c", "a", "b\0", "b", "d", "\u{ff}"].map(|key| put(key, key)).into()).unwrap();
    let view = engine.snapshot().unwrap();
    let keys = |from: &str, until: &str, limit| -> Vec<String> {
        let rows = view.range(from.as_bytes(), until.as_bytes(), limit).unwrap();
        rows.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
    };
    assert_eq!(keys("b", "d", 10), ["b", "b\0", "c"]);
    assert_eq!(keys("", "c", 10), ["a", "b", "b\0"]);
    assert_eq!(keys("aa", "cc", 2), ["b", "b\0"]);
    assert_eq!(keys("a", "z", 0), [""; 0]);
    assert_eq!(keys("b", "b", 10), [""; 0]);
    assert_eq!(keys("d", "b", 10), [""; 0]);
    assert_eq!(keys("a", "", 10), [""; 0]);
}

fn a_refused_decision_writes_nothing(engine: &dyn Engine) {
    let first = submit(engine, |_| Some(vec![put("a", "1")]));
    let refused = submit(engine, |_| None);
    let last = submit(engine, |_| Some(vec![put("b", "2")]));
    assert_eq!([first, refused, last].map(|it| soon(&it)), [Ok(Revision(1)), Ok(Revision(1)), Ok(Revision(2))]);
    assert_eq!(engine.snapshot().unwrap().changes(Revision(0), 9).unwrap().len(), 2);
}

fn what_changes_nothing_takes_no_revision(engine: &dyn Engine) {
    assert_eq!(write(engine, vec![]), Ok(Revision(0)));
    assert_eq!(write(engine, vec![delete("absent")]), Ok(Revision(0)));
    assert_eq!(write(engine, vec![put("a", "same")]), Ok(Revision(1)));
    assert_eq!(write(engine, vec![put("a", "same")]), Ok(Revision(2)), "the same value is a change");
    assert_eq!(engine.snapshot().unwrap().changes(Revision(0), 9).unwrap().len(), 1);
}

fn later_decisions_see_earlier_ones(engine: &dyn Engine) {
    let answers = [1_u64, 2, 3, 4, 5].map(|n| {
        submit(engine, move |view| {
            let seen = view.get(b"sum").unwrap().map_or(0, |it| u64::from_be_bytes(it.value.try_into().unwrap()));
            assert_eq!(view.revision(), Revision(n - 1));
            assert_eq!(view.changes(Revision(0), 9).unwrap().len(), usize::from(n > 1));
            Some(vec![put("sum", (seen + n).to_be_bytes())])
        })
    });
    assert_eq!(answers.map(|it| soon(&it)), [1, 2, 3, 4, 5].map(|n| Ok(Revision(n))));
    assert_eq!(value(engine, "sum"), Some(15_u64.to_be_bytes().into()));
}

fn one_decision_may_touch_a_key_twice(engine: &dyn Engine) {
    write(engine, vec![put("a", "1"), put("a", "2"), delete("b"), put("b", "1"), delete("b")]).unwrap();
    let view = engine.snapshot().unwrap();
    let a = view.get(b"a").unwrap().unwrap();
    assert_eq!((a.value.as_slice(), a.created, a.modified, a.version), (&b"2"[..], Revision(1), Revision(1), 2));
    assert_eq!(changes(&*view, 0, 9), [(1, "a", false), (1, "b", true)].map(owned));
}

fn changes_tell_the_last_one_of_each_key(engine: &dyn Engine) {
    write(engine, vec![put("b", "1"), put("a", "1")]).unwrap();
    write(engine, vec![put("c", "2")]).unwrap();
    write(engine, vec![put("a", "3")]).unwrap();
    write(engine, vec![delete("b")]).unwrap();
    let all = [(2, "c", false), (3, "a", false), (4, "b", true)];
    let view = engine.snapshot().unwrap();
    assert_eq!(changes(&*view, 0, 9), all.map(owned));
    assert_eq!(changes(&*view, 2, 9), [all[1], all[2]].map(owned));
    assert_eq!(changes(&*view, 4, 9), []);
    assert_eq!(changes(&*view, u64::MAX, 9), []);
    write(engine, vec![put("b", "5")]).unwrap();
    let view = engine.snapshot().unwrap();
    assert_eq!(changes(&*view, 0, 9), [all[0], all[1], (5, "b", false)].map(owned));
}

fn changes_never_split_a_revision(engine: &dyn Engine) {
    write(engine, vec![put("a", ""), put("b", ""), put("c", "")]).unwrap();
    write(engine, vec![put("d", ""), put("e", "")]).unwrap();
    write(engine, vec![put("f", "")]).unwrap();
    let view = engine.snapshot().unwrap();
    let lengths = [0, 1, 3, 4, 5, 6, 7].map(|limit| changes(&*view, 0, limit).len());
    assert_eq!(lengths, [0, 3, 3, 5, 5, 6, 6]);
}

fn compacted_changes_are_refused(engine: &dyn Engine) {
    write(engine, vec![put("a", "1"), put("b", "1")]).unwrap();
    write(engine, vec![delete("a")]).unwrap();
    write(engine, vec![put("c", "3")]).unwrap();
    let before = engine.snapshot().unwrap();
    engine.compact(Revision(2)).unwrap();
    engine.compact(Revision(1)).unwrap();
    assert_eq!(changes(&*before, 0, 9).len(), 3, "a snapshot keeps its past");
    let view = engine.snapshot().unwrap();
    let refused = view.changes(Revision(1), 9);
    assert!(matches!(refused, Err(ChangesError::Compacted(Revision(2)))), "{refused:?}");
    assert_eq!(changes(&*view, 2, 9), [(3, "c", false)].map(owned));
    assert_eq!(value(engine, "b"), Some(b"1".into()));
    assert_eq!(view.revision(), Revision(3));

    engine.compact(Revision(u64::MAX)).unwrap();
    let view = engine.snapshot().unwrap();
    assert!(matches!(view.changes(Revision(2), 9), Err(ChangesError::Compacted(Revision(3)))));
    assert_eq!(changes(&*view, 3, 9), []);
}

fn a_key_may_return_after_its_deletion_was_compacted(engine: &dyn Engine) {
    write(engine, vec![put("a", "1"), put("b", "1")]).unwrap();
    write(engine, vec![delete("a")]).unwrap();
    engine.compact(Revision(2)).unwrap();
    write(engine, vec![put("a", "3")]).unwrap();
    write(engine, vec![delete("b")]).unwrap();
    let view = engine.snapshot().unwrap();
    assert_eq!(changes(&*view, 2, 9), [(3, "a", false), (4, "b", true)].map(owned));
    assert_eq!(view.get(b"a").unwrap().unwrap().version, 1);
}

fn nothing_is_told_of_what_was_erased(engine: &dyn Engine) {
    let erase = |key: &str| Op::Erase { key: key.into() };
    write(engine, vec![put("a", "1"), put("b", "1")]).unwrap();
    assert_eq!(write(engine, vec![erase("a")]), Ok(Revision(2)));
    let view = engine.snapshot().unwrap();
    assert_eq!((value(engine, "a"), value(engine, "b")), (None, Some(b"1".to_vec())));
    assert_eq!(changes(&*view, 0, 9), [owned((1, "b", false))]);
    assert_eq!(write(engine, vec![erase("a")]), Ok(Revision(2)), "what is absent is no change");
    assert_eq!(write(engine, vec![put("a", "3")]), Ok(Revision(3)));
    assert_eq!(engine.snapshot().unwrap().get(b"a").unwrap().unwrap().version, 1);
    assert_eq!(changes(&*engine.snapshot().unwrap(), 1, 9), [owned((3, "a", false))]);
    // What was deleted before is told as that.
    write(engine, vec![delete("b")]).unwrap();
    write(engine, vec![erase("b")]).unwrap();
    assert_eq!(changes(&*engine.snapshot().unwrap(), 3, 9), [owned((4, "b", true))]);
}

fn a_snapshot_does_not_move(engine: &dyn Engine) {
    write(engine, vec![put("a", "old"), put("b", "old")]).unwrap();
    let old = engine.snapshot().unwrap();
    write(engine, vec![put("a", "new"), delete("b"), put("c", "new")]).unwrap();
    let values = |view: &dyn View| ["a", "b", "c"].map(|key| view.get(key.as_bytes()).unwrap().map(|it| it.value));
    assert_eq!(values(&*old), [Some(b"old".into()), Some(b"old".into()), None]);
    assert_eq!((old.revision(), changes(&*old, 0, 9).len()), (Revision(1), 2));
    assert_eq!(values(&*engine.snapshot().unwrap()), [Some(b"new".into()), None, Some(b"new".into())]);
}

fn decisions_beyond_the_limits_fail_alone(engine: &dyn Engine) {
    let many = |count: usize| (0..count).map(|n| put(n.to_be_bytes(), "")).collect::<Vec<_>>();
    let value = vec![7; VALUE_BYTES_MAX];
    let filler = |bytes: usize| put("filler", vec![7; bytes]);
    // Four keys of one byte with the longest values leave this much of a transaction, less the key "filler".
    let rest = TRANSACTION_BYTES_MAX - 3 * (1 + VALUE_BYTES_MAX) - "filler".len();
    let with = |last: Op| ["x", "y", "z"].map(|key| put(key, &value)).into_iter().chain([last]).collect::<Vec<_>>();
    let cases = [
        (many(TRANSACTION_OPS_MAX), true),
        (many(TRANSACTION_OPS_MAX + 1), false),
        (vec![put("a", &value)], true),
        (vec![put("a", vec![0; VALUE_BYTES_MAX + 1])], false),
        (vec![put(vec![b'k'; KEY_BYTES_MAX], "")], true),
        (vec![put(vec![b'k'; KEY_BYTES_MAX + 1], "")], false),
        (vec![put("", "")], false),
        (vec![delete("")], false),
        (with(filler(rest)), true),
        (with(filler(rest + 1)), false),
    ];
    let answers: Vec<_> =
        cases.iter().map(|(ops, _)| ops.clone()).map(|ops| submit(engine, move |_| Some(ops.clone()))).collect();
    let mut revision = Revision(0);
    for ((_, fits), answer) in cases.iter().zip(&answers) {
        let expected = if *fits {
            revision = revision.next();
            Ok(revision)
        } else {
            Err(Fault::TooLarge)
        };
        assert_eq!(soon(answer), expected);
    }
}

fn keys_that_can_not_exist_are_absent(engine: &dyn Engine) {
    write(engine, vec![put("a", ""), put("z", "")]).unwrap();
    let view = engine.snapshot().unwrap();
    let long = vec![b'k'; 4 * KEY_BYTES_MAX];
    assert_eq!((view.get(b"").unwrap(), view.get(&long).unwrap()), (None, None));
    assert_eq!(view.range(&long, b"\xff", 9).unwrap().len(), 1);
    assert_eq!(view.range(b"", &long, 9).unwrap().len(), 1);
}

/// Counts its commits under the key "end".
struct Counting(Arc<AtomicUsize>);

impl CommitEnd for Counting {
    fn ops(&self, view: &dyn View) -> Vec<Op> {
        assert!(view.get(b"a").unwrap().is_some(), "decisions come first");
        let calls = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        vec![put("end", calls.to_string())]
    }
}

fn each_commit_is_closed_once(engine: &dyn Engine) {
    let calls = Arc::new(AtomicUsize::new(0));
    engine.close_commits_with(Box::new(Counting(calls.clone())));
    write(engine, vec![]).unwrap();
    write(engine, vec![delete("absent")]).unwrap();
    assert_eq!(soon(&submit(engine, |_| None)), Ok(Revision(0)));
    assert_eq!(calls.load(Ordering::SeqCst), 0, "nothing was written");

    assert_eq!(write(engine, vec![put("a", "")]), Ok(Revision(1)));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let view = engine.snapshot().unwrap();
    assert_eq!(view.revision(), Revision(2));
    assert_eq!(view.get(b"end").unwrap().unwrap().modified, Revision(2));

    let answers: Vec<_> = (0..20).map(|_| submit(engine, |_| Some(vec![put("a", "")]))).collect();
    answers.iter().for_each(|answer| assert!(soon(answer).is_ok()));
    let calls = calls.load(Ordering::SeqCst) as u64;
    assert!((2..=21).contains(&calls), "{calls}");
    assert_eq!(engine.snapshot().unwrap().revision(), Revision(21 + calls));
}

fn watchers_learn_of_each_commit(engine: &dyn Engine) {
    let (woken, first) = mpsc::channel();
    engine.watch(Box::new(move |revision| woken.send(revision).unwrap()));
    let (woken, second) = mpsc::channel();
    engine.watch(Box::new(move |revision| woken.send(revision).unwrap()));
    write(engine, vec![put("a", "")]).unwrap();
    assert_eq!((soon(&first), soon(&second)), (Revision(1), Revision(1)));
    write(engine, vec![]).unwrap();
    write(engine, vec![put("a", "")]).unwrap();
    assert_eq!((soon(&first), soon(&second)), (Revision(2), Revision(2)), "nothing written, nobody woken");
}

type Told = (u64, String, bool);

fn owned((revision, key, deleted): (u64, &str, bool)) -> Told {
    (revision, key.to_owned(), deleted)
}

fn changes(view: &dyn View, after: u64, limit: usize) -> Vec<Told> {
    let told = view.changes(Revision(after), limit).unwrap();
    told.into_iter().map(|it| (it.revision.0, String::from_utf8(it.key).unwrap(), it.deleted)).collect()
}

#[derive(Debug, Clone)]
enum Step {
    /// None: refused.
    Decide(Option<Vec<Op>>),
    Compact(u64),
    Look {
        from: Vec<u8>,
        until: Vec<u8>,
        limit: usize,
        after: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    // Few and short keys, so that they meet; some values too long for one page.
    let key = || vec(0_u8..3, 1..3);
    let value = prop_oneof![4 => vec(any::<u8>(), 0..9), 1 => Just(vec![7; 9000])];
    let op = prop_oneof![
        3 => (key(), value).prop_map(|(key, value)| Op::Put { key, value }),
        2 => key().prop_map(|key| Op::Delete { key }),
        1 => key().prop_map(|key| Op::Erase { key }),
    ];
    prop_oneof![
        6 => option::weighted(0.9, vec(op, 0..6)).prop_map(Step::Decide),
        1 => (0_u64..40).prop_map(Step::Compact),
        3 => (vec(0_u8..3, 0..3), vec(0_u8..3, 0..3), 0_usize..9, 0_u64..40)
            .prop_map(|(from, until, limit, after)| Step::Look { from, until, limit, after }),
    ]
}

/// The contract in its plainest form: every change is kept.
#[derive(Default)]
struct Model {
    revision: u64,
    compacted: u64,
    data: BTreeMap<Vec<u8>, Entry>,
    last: BTreeMap<Vec<u8>, (u64, bool)>,
}

impl Model {
    fn apply(&mut self, ops: &[Op]) -> Revision {
        let revision = self.revision + 1;
        for op in ops {
            match op {
                Op::Put { key, value } => {
                    let old = self.data.get(key);
                    let created = old.map_or(Revision(revision), |old| old.created);
                    let version = old.map_or(0, |old| old.version) + 1;
                    let entry = Entry { value: value.clone(), created, modified: Revision(revision), version };
                    self.data.insert(key.clone(), entry);
                    self.last.insert(key.clone(), (revision, false));
                    self.revision = revision;
                }
                Op::Delete { key } if self.data.remove(key).is_some() => {
                    self.last.insert(key.clone(), (revision, true));
                    self.revision = revision;
                }
                Op::Erase { key } if self.data.remove(key).is_some() => {
                    self.last.remove(key);
                    self.revision = revision;
                }
                Op::Delete { .. } | Op::Erase { .. } => {}
            }
        }
        Revision(self.revision)
    }

    fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, Revision> {
        if after < self.compacted {
            return Err(Revision(self.compacted));
        }
        let mut told: Vec<_> = self.last.iter().filter(|(_, (revision, _))| *revision > after).collect();
        told.sort_by_key(|(key, (revision, _))| (*revision, (*key).clone()));
        let end = told.get(limit.wrapping_sub(1)).map_or(u64::MAX, |(_, (revision, _))| *revision);
        let told = told.into_iter().filter(|(_, (revision, _))| limit > 0 && *revision <= end);
        Ok(told
            .map(|(key, (revision, deleted))| Change {
                revision: Revision(*revision),
                key: key.clone(),
                deleted: *deleted,
            })
            .collect())
    }
}

fn random_histories_match_the_model(make: &dyn Fn() -> Arc<dyn Engine>) {
    let config = Config { cases: 32, failure_persistence: None, ..Config::default() };
    let run = |steps: Vec<Step>| {
        follow(&*make(), &steps);
        Ok(())
    };
    TestRunner::new(config).run(&vec(step(), 1..40), run).unwrap();
}

fn follow(engine: &dyn Engine, steps: &[Step]) {
    let mut model = Model::default();
    // Answers are awaited late, so that decisions meet in groups.
    let mut waiting = Vec::new();
    for step in steps {
        match step.clone() {
            Step::Decide(ops) => {
                let expected = model.apply(ops.as_deref().unwrap_or_default());
                waiting.push((submit(engine, move |_| ops.clone()), expected));
            }
            Step::Compact(before) => {
                waiting.drain(..).for_each(|(answer, expected)| assert_eq!(soon(&answer), Ok(expected)));
                engine.compact(Revision(before)).unwrap();
                model.compacted = model.compacted.max(before.min(model.revision));
            }
            Step::Look { from, until, limit, after } => {
                waiting.drain(..).for_each(|(answer, expected)| assert_eq!(soon(&answer), Ok(expected)));
                compare(&*engine.snapshot().unwrap(), &model, (&from, &until), after, limit);
            }
        }
    }
    waiting.drain(..).for_each(|(answer, expected)| assert_eq!(soon(&answer), Ok(expected)));
    compare(&*engine.snapshot().unwrap(), &model, (b"", b"\xff"), model.compacted, usize::MAX);
}

fn compare(view: &dyn View, model: &Model, (from, until): (&[u8], &[u8]), after: u64, limit: usize) {
    assert_eq!(view.revision(), Revision(model.revision));
    let rows = model.data.iter().filter(|(key, _)| key.as_slice() >= from && key.as_slice() < until);
    let rows: Vec<_> = rows.take(limit).map(|(key, entry)| (key.clone(), entry.clone())).collect();
    assert_eq!(view.range(from, until, limit).unwrap(), rows);
    for (key, entry) in &rows {
        assert_eq!(view.get(key).unwrap().as_ref(), Some(entry));
    }
    let told = view.changes(Revision(after), limit).map_err(|error| match error {
        ChangesError::Compacted(revision) => revision,
        ChangesError::Fault(fault) => panic!("{fault}"),
    });
    assert_eq!(told, model.changes(after, limit));
}

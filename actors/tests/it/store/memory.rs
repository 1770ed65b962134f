//! The in-memory engine: grouping on demand, and failures made to order.

use std::sync::Arc;
use std::sync::mpsc::TryRecvError;

use holdfast_actors::store::memory::{Injected, MemoryEngine};
use holdfast_actors::store::{Engine, Fault, GROUP_MAX};
use holdfast_protocol::ids::Revision;

use super::{conformance, put, soon, submit, value, write};

#[test]
fn it_conforms() {
    conformance::suite(&|| Arc::new(MemoryEngine::new()));
}

#[test]
fn a_stepped_engine_decides_when_told() {
    let engine = MemoryEngine::stepped();
    let answers = ["a", "b"].map(|key| submit(&engine, move |_| Some(vec![put(key, "")])));
    assert_eq!(engine.pending(), 2);
    assert_eq!(value(&engine, "a"), None);
    assert_eq!(answers[0].try_recv(), Err(TryRecvError::Empty));
    engine.run_pending();
    assert_eq!(answers.map(|it| soon(&it)), [Ok(Revision(1)), Ok(Revision(2))]);
}

#[test]
fn a_decision_submitted_by_an_answer_is_decided_in_turn() {
    let engine = Arc::new(MemoryEngine::new());
    let inner = engine.clone();
    engine.watch(Box::new(move |revision| {
        if revision == Revision(1) {
            submit(&*inner, |_| Some(vec![put("b", "")]));
        }
    }));
    write(&*engine, vec![put("a", "")]).unwrap();
    assert!(value(&*engine, "b").is_some());
}

#[test]
fn groups_are_bounded() {
    let engine = MemoryEngine::stepped();
    engine.inject(Box::new(|commit| if commit == 1 { Injected::Refuse(Fault::Full) } else { Injected::Pass }));
    let answers: Vec<_> =
        (0..=GROUP_MAX).map(|n| submit(&engine, move |_| Some(vec![put(n.to_be_bytes(), "")]))).collect();
    engine.run_pending();
    let (first, rest) = answers.split_at(GROUP_MAX);
    assert!(first.iter().all(|answer| soon(answer) == Err(Fault::Full)));
    assert_eq!(soon(&rest[0]), Ok(Revision(1)));
}

#[test]
fn a_refused_commit_leaves_no_trace() {
    let engine = MemoryEngine::new();
    write(&engine, vec![put("a", "kept")]).unwrap();
    let fault = Fault::Io("injected".to_owned());
    let injected = Injected::Refuse(fault.clone());
    engine.inject(Box::new(move |commit| if commit == 2 { injected.clone() } else { Injected::Pass }));
    assert_eq!(write(&engine, vec![put("a", "lost")]), Err(fault));
    assert_eq!(value(&engine, "a"), Some(b"kept".into()));
    assert_eq!(write(&engine, vec![put("b", "")]), Ok(Revision(2)));
}

#[test]
fn a_crash_forgets_what_was_not_committed() {
    for (injected, survives) in [(Injected::CrashBefore, false), (Injected::CrashAfter, true)] {
        let engine = MemoryEngine::stepped();
        engine.inject(Box::new(move |commit| if commit == 2 { injected.clone() } else { Injected::Pass }));
        let first = submit(&engine, |_| Some(vec![put("a", "")]));
        engine.run_pending();
        let second = submit(&engine, |_| Some(vec![put("b", "")]));
        engine.run_pending();

        assert_eq!(soon(&first), Ok(Revision(1)));
        assert_eq!(second.try_recv(), Err(TryRecvError::Disconnected), "the dead give no answers");
        assert!(engine.has_stopped());
        assert_eq!(engine.snapshot().err(), Some(Fault::Stopped));
        assert_eq!(write(&engine, vec![]), Err(Fault::Stopped));

        let engine = engine.restarted();
        assert!(value(&engine, "a").is_some());
        assert_eq!(value(&engine, "b").is_some(), survives);
    }
}

#[test]
fn a_crash_loses_what_waits() {
    let engine = MemoryEngine::stepped();
    let answer = submit(&engine, |_| Some(vec![put("a", "")]));
    engine.crash();
    engine.run_pending();
    assert_eq!(answer.try_recv(), Err(TryRecvError::Disconnected));
    assert_eq!(value(&engine.restarted(), "a"), None);
}

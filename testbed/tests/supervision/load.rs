//! What goes on all the while: reads and writes at central, reads at the host, calls to the seal keeper.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use holdfast_testbed::procs::client::{Answer, Client};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::stage::{SEAL, SOON, Stage, secret};
use holdfast_testbed::procs::until;

/// A call in flight hears of a fault at once. Far below any deadline of a node, far above what a busy machine needs.
const PROMPTLY: Duration = Duration::from_secs(5);

/// One kind of call.
#[derive(Debug, Default)]
pub(crate) struct Kind {
    pub(crate) done: AtomicU64,
    pub(crate) refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Counted {
    kinds: BTreeMap<&'static str, Kind>,
    wrong: std::sync::Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// The load. What must not be answered so is remembered and told by [`Load::stop`].
pub(crate) struct Load {
    counted: Arc<Counted>,
    tasks: Vec<JoinHandle<()>>,
}

/// A kind of call: its name, and whether it may be refused while something starts again.
type Call = (&'static str, Client, Option<(String, Value)>, bool);

impl Load {
    pub(crate) fn start(stage: &Stage) -> Self {
        let calls: Vec<Call> = vec![
            ("read at central", stage.user.clone(), None, false),
            ("write at central", stage.user.clone(), Some((secret("box/other"), json!({"value": "x"}))), false),
            ("read at the host", stage.at_host.clone(), None, false),
            (
                "call to the seal keeper",
                stage.operator.clone(),
                Some((format!("{SEAL}/unseal"), json!({"sealkey": stage.sealkey}))),
                true,
            ),
        ];
        let kinds = calls.iter().map(|(name, ..)| (*name, Kind::default())).collect();
        let counted = Arc::new(Counted { kinds, ..Counted::default() });
        let tasks = calls.into_iter().map(|call| tokio::spawn(repeat(counted.clone(), call))).collect();
        Self { counted, tasks }
    }

    pub(crate) fn refused(&self, name: &str) -> u64 {
        self.counted.kinds[name].refused.load(SeqCst)
    }

    pub(crate) fn total(&self) -> u64 {
        self.counted.kinds.values().map(|kind| kind.done.load(SeqCst)).sum()
    }

    /// Waits until every kind of call has succeeded `more` times more.
    pub(crate) async fn goes_on(&self, more: u64) {
        let goals: Vec<_> =
            self.counted.kinds.iter().map(|(name, kind)| (*name, kind.done.load(SeqCst) + more)).collect();
        let reached = async || {
            let behind = goals.iter().find(|(name, goal)| self.counted.kinds[name].done.load(SeqCst) < *goal);
            match behind {
                None => Ok(Some(())),
                Some((name, _)) => Err(std::io::Error::other(format!("no {name}; {:?}", self.counted.wrong))),
            }
        };
        until("every kind of call goes on", SOON, reached).await.unwrap();
    }

    pub(crate) async fn stop(self) {
        self.counted.stop.store(true, SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        let wrong = self.counted.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

async fn repeat(counted: Arc<Counted>, (name, client, post, may_be_refused): Call) {
    let kind = &counted.kinds[name];
    while !counted.stop.load(SeqCst) {
        let began = Instant::now();
        let answer = match &post {
            Some((path, body)) => client.post(path, body).await,
            None => client.get(&secret("box/secret")).await,
        };
        let took = began.elapsed();
        let wrong = match &answer {
            Ok(answer) if matches!(answer.status, 200 | 204) => {
                kind.done.fetch_add(1, SeqCst);
                None
            }
            Ok(answer) if may_be_refused && is_clear_refusal(answer) => {
                kind.refused.fetch_add(1, SeqCst);
                None
            }
            Ok(answer) => Some(format!("{name}: {} {}", answer.status, answer.text())),
            Err(error) => Some(format!("{name}: {error}")),
        };
        let wrong = wrong.or_else(|| (PROMPTLY < took).then(|| format!("{name}: answered after {took:?}")));
        if let Some(wrong) = wrong {
            counted.wrong.lock().unwrap().push(wrong);
        }
    }
}

/// A 503 in Strongbox' words.
fn is_clear_refusal(answer: &Answer) -> bool {
    answer.status == 503 && answer.json()["errors"][0]["error-message"].is_string()
}

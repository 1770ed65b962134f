//! The nodes of the deployment under load: who asks them what, and how many lines their logs must have for it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_testbed::procs::Deployment;
use holdfast_testbed::procs::client::{Answer, Client};
use serde_json::Value;

use super::gate::Gate;

/// Central's name among the nodes.
pub(crate) const CENTRAL: &str = "central";
/// The hosts, by name.
pub(crate) const HOSTS: [&str; 3] = ["udc1-001", "udc1-002", "udc2-001"];
/// The tenants that are under load, in the order of their numbers in audit logs, which begin after `system`.
pub(crate) const TENANTS: [&str; 2] = ["acme", "globex"];
/// The number of the first of them.
const FIRST_REALM: u64 = 2;

/// Reads of one tenant's at one node since the lines were counted last.
#[derive(Debug, Default)]
struct Reads {
    /// With an answer that has its line.
    answered: AtomicU64,
    /// Without an answer, or refused at a point where the line may have been written: they have one or none.
    open: AtomicU64,
}

/// One node.
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: &'static str,
    /// Before every request to it.
    pub(crate) gate: Gate,
    data: PathBuf,
    reads: [Reads; TENANTS.len()],
    /// All acknowledged reads, for the figures.
    pub(crate) acknowledged: AtomicU64,
    /// Lines at the last count, for each tenant; of a host only the sum counts, since a full copy gets a new number.
    lines: std::sync::Mutex<[u64; TENANTS.len()]>,
}

impl Node {
    /// A node with so many askers.
    pub(crate) fn new(name: &'static str, askers: usize, data: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            name,
            gate: Gate::of(askers),
            data,
            reads: Default::default(),
            acknowledged: AtomicU64::default(),
            lines: std::sync::Mutex::default(),
        })
    }

    /// Takes the lines there are as the beginning: setting up has left some.
    pub(crate) async fn begin_count(&self, deployment: &Deployment) -> io::Result<()> {
        let now = self.lines_in(&super::verified(deployment, &self.data).await?);
        *self.lines.lock().expect("nobody panics holding it") = now;
        Ok(())
    }

    /// Counts the lines of its log while its gate is closed: every acknowledged read since the last count has its own,
    /// and what was not acknowledged has at most one.
    pub(crate) async fn count_lines(&self, deployment: &Deployment) -> io::Result<()> {
        let report = super::verified(deployment, &self.data).await?;
        let now = self.lines_in(&report);
        let mut before = self.lines.lock().expect("nobody panics holding it");
        let mut found: Vec<_> = now.iter().zip(*before).map(|(now, before)| now - before).collect();
        let mut reads: Vec<_> = self
            .reads
            .iter()
            .map(|reads| (reads.answered.swap(0, Ordering::SeqCst), reads.open.swap(0, Ordering::SeqCst)))
            .collect();
        if self.name != CENTRAL {
            found = vec![found.iter().sum()];
            reads = vec![reads.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))];
        }
        for (tenant, (found, (answered, open))) in found.into_iter().zip(reads).enumerate() {
            assert!(
                (answered..=answered + open).contains(&found),
                "{}: {answered} reads were acknowledged to tenant {tenant}, {open} are open, and the log has {found} \
                 lines of them",
                self.name
            );
        }
        *before = now;
        Ok(())
    }

    fn lines_in(&self, report: &Value) -> [u64; TENANTS.len()] {
        let mut lines = [0; TENANTS.len()];
        for realm in report["realms"].as_array().into_iter().flatten() {
            let (number, reads) = (realm["realm"].as_u64().unwrap_or(0), realm["reads"].as_u64().unwrap_or(0));
            let place = match self.name {
                CENTRAL => number.checked_sub(FIRST_REALM).and_then(|place| usize::try_from(place).ok()),
                _ => (number > 0).then_some(0),
            };
            if let Some(lines) = place.and_then(|place| lines.get_mut(place)) {
                *lines += reads;
            }
        }
        lines
    }
}

/// One who asks a node, for one tenant.
#[derive(Clone)]
pub(crate) struct Asker {
    /// Which node.
    pub(crate) node: Arc<Node>,
    tenant: usize,
    client: Client,
}

/// What a node says of a secret.
pub(crate) enum Heard {
    /// It is there.
    Found(Value),
    /// It is not.
    Absent,
    /// No copy of the tenant's is here, or the node can't serve now.
    NotNow,
    /// No answer.
    Nothing,
}

impl Asker {
    /// For tenant number `tenant`, by a client that has its token.
    pub(crate) fn new(node: &Arc<Node>, tenant: usize, client: Client) -> Self {
        Self { node: node.clone(), tenant, client }
    }

    /// Reads a secret.
    pub(crate) async fn read(&self, path: &str) -> Heard {
        self.node.gate.pass().await;
        let reads = &self.node.reads[self.tenant];
        let Ok(answer) = self.client.get(&at(path)).await else {
            reads.open.fetch_add(1, Ordering::SeqCst);
            return Heard::Nothing;
        };
        match answer.status {
            200 | 404 => {
                reads.answered.fetch_add(1, Ordering::SeqCst);
                self.node.acknowledged.fetch_add(1, Ordering::SeqCst);
                if answer.status == 200 { Heard::Found(answer.json()["data"].clone()) } else { Heard::Absent }
            }
            503 => {
                if !answer.text().contains("sealed") {
                    reads.open.fetch_add(1, Ordering::SeqCst);
                }
                Heard::NotNow
            }
            // A host without a copy knows nobody's tokens; the line is the node's own.
            401 if self.node.name != CENTRAL => Heard::NotNow,
            status => panic!("{}: reading {path}: {status} {}", self.node.name, answer.text()),
        }
    }

    /// Writes a secret; whether it was acknowledged.
    pub(crate) async fn write(&self, path: &str, value: &Value) -> bool {
        self.node.gate.pass().await;
        done(path, self.client.post(&at(path), value).await)
    }

    /// Deletes a secret; whether it was acknowledged.
    pub(crate) async fn delete(&self, path: &str) -> bool {
        self.node.gate.pass().await;
        done(path, self.client.delete(&at(path)).await)
    }
}

fn at(path: &str) -> String {
    format!("/v1/secret/app/{path}")
}

fn done(path: &str, answer: io::Result<Answer>) -> bool {
    match answer {
        Ok(answer) if answer.status == 204 => true,
        Ok(answer) if answer.status != 503 => panic!("writing {path}: {} {}", answer.status, answer.text()),
        Ok(_) | Err(_) => false,
    }
}

//! Rounds of kills on one deployment under load.

use std::collections::BTreeMap;
use std::io::{self, Error};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_testbed::APP;
use holdfast_testbed::figures::Figures;
use holdfast_testbed::procs::client::Client;
use holdfast_testbed::procs::{Deployment, Options, until};
use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::ledger::{Placement, Secret};
use super::load::{Reader, Shared, Shelf, Writer};
use super::nodes::{Asker, CENTRAL, HOSTS, Heard, Node, TENANTS};
use super::schedule::{Blow, Dice, blows};
use super::{nonces, verified, watch};

/// Without `HOLDFAST_ROUNDS`.
const ROUNDS: usize = 50;
/// For a process to be there again, or for a host to have what it should.
const SOON: Duration = Duration::from_secs(60);
/// A kill comes within this of the last round's end.
const CALM: Duration = Duration::from_millis(700);
/// Within this of the beginning of what it is to interrupt.
const MIDST: Duration = Duration::from_millis(150);
/// What makes a full copy take a while: so many secrets of so many bytes.
const BULK: (usize, usize) = (16, 128 << 10);
/// Writers of each tenant, each with a box.
const SHELVES: [(&str, Placement); 3] =
    [("box-of-all", Placement::All), ("box-of-one", Placement::First), ("box-of-none", Placement::None)];

struct World {
    deployment: Deployment,
    nodes: BTreeMap<&'static str, Arc<Node>>,
    operator: Client,
    shared: Arc<Shared>,
    /// By tenant.
    tokens: Vec<String>,
    shelves: Vec<Vec<Shelf>>,
    bulk: Vec<Arc<Secret>>,
    dice: Dice,
    kills: BTreeMap<&'static str, u64>,
    sink: PathBuf,
    _sink_folder: tempfile::TempDir,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_killed_under_load_comes_back_with_all_that_was_acknowledged() {
    let rounds = std::env::var("HOLDFAST_ROUNDS").map_or(ROUNDS, |text| text.parse().expect("HOLDFAST_ROUNDS"));
    let (dice, seed) = Dice::of_this_run();
    eprintln!("{rounds} rounds; HOLDFAST_SEED={seed}");
    let mut world = World::start(dice).await.unwrap();
    let began = Instant::now();
    let mut tasks = world.load();
    let watching = tokio::spawn(watch::watch(world.operator.clone(), world.hosts(), world.shared.clone()));
    for (round, blow) in blows(rounds, &mut world.dice).into_iter().enumerate() {
        eprintln!("round {round} at {:?}: {}", began.elapsed(), blow.name());
        world.strike(blow).await.unwrap_or_else(|error| panic!("seed {seed}, round {round}, {blow:?}: {error}"));
        *world.kills.entry(blow.name()).or_default() += 1;
        if let Some(ended) = tasks.try_join_next() {
            panic!("seed {seed}, round {round}: the load ended early: {ended:?}");
        }
    }
    world.shared.stop.store(true, Ordering::SeqCst);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    let compared = watching.await.unwrap();
    let checked = world.all_is_there().await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    world.publish(rounds, began, compared, checked).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
}

impl World {
    async fn start(dice: Dice) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let sink = folder.path().join("nonces");
        let options = Options {
            hosts: vec![2, 1],
            added: format!("tenants = {TENANTS:?}\n"),
            environment: vec![("HOLDFAST_TEST_NONCE_SINK", sink.clone())],
            ..Options::default()
        };
        let deployment = Deployment::start(options).await?;
        let operator = deployment.operator().await?;
        let mut nodes = BTreeMap::new();
        let central = Node::new(CENTRAL, TENANTS.len() * (SHELVES.len() + 1), deployment.doc()?.central.data_dir);
        nodes.insert(CENTRAL, central);
        for host in HOSTS {
            nodes.insert(host, Node::new(host, TENANTS.len(), deployment.host(host)?.data_dir));
        }
        let mut world = Self {
            deployment,
            nodes,
            operator,
            shared: Arc::default(),
            tokens: Vec::new(),
            shelves: Vec::new(),
            bulk: Vec::new(),
            dice,
            kills: BTreeMap::new(),
            sink,
            _sink_folder: folder,
        };
        for tenant in TENANTS {
            world.move_in(tenant).await?;
        }
        world.fill().await?;
        for node in world.nodes.values() {
            node.begin_count(&world.deployment).await?;
        }
        Ok(world)
    }

    /// Logs in to a tenant and makes its boxes.
    async fn move_in(&mut self, tenant: &str) -> io::Result<()> {
        let doc = self.deployment.doc()?.central;
        let body = json!({"username": doc.username, "password": doc.password, "tenant": tenant});
        let token = self.deployment.central()?.post("/v1/login", &body).await?.good()?["token"].clone();
        let token = token.as_str().ok_or_else(|| Error::other("a login without a token"))?.to_owned();
        let client = self.deployment.central()?.with_token(&token);
        let mut shelves = Vec::new();
        for (name, placement) in SHELVES {
            let body = json!({"name": name, "category_id": APP, "owner": "admins", "distribute": placement.json()});
            client.post("/v2/safe-deposit-box", &body).await?.good()?;
            shelves.push(Shelf::of(name, placement));
        }
        self.tokens.push(token);
        self.shelves.push(shelves);
        Ok(())
    }

    /// Content that never changes, of the first tenant.
    async fn fill(&mut self) -> io::Result<()> {
        let asker = self.asker(CENTRAL, 0)?;
        for at in 0..BULK.0 {
            let secret = Secret::new(format!("box-of-all/bulk-{at}"), Placement::All, BULK.1);
            let value = secret.will_write(1);
            if !asker.write(&secret.path, &value).await {
                return Err(Error::other("a first write was not acknowledged"));
            }
            secret.acknowledged();
            self.bulk.push(secret);
        }
        Ok(())
    }

    fn client(&self, node: &str) -> io::Result<Client> {
        if node == CENTRAL { self.deployment.central() } else { self.deployment.at(node) }
    }

    fn asker(&self, node: &str, tenant: usize) -> io::Result<Asker> {
        Ok(Asker::new(&self.nodes[node], tenant, self.client(node)?.with_token(&self.tokens[tenant])))
    }

    fn hosts(&self) -> Vec<(&'static str, Client)> {
        HOSTS.iter().map(|host| (*host, self.client(host).expect("it has an address"))).collect()
    }

    fn load(&mut self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for tenant in 0..TENANTS.len() {
            for shelf in self.shelves[tenant].clone() {
                let asker = self.asker(CENTRAL, tenant).expect("it has an address");
                tasks.spawn(Writer::new(asker, shelf, self.dice.fork(), self.shared.clone()).run());
            }
            for node in std::iter::once(CENTRAL).chain(HOSTS) {
                let asker = self.asker(node, tenant).expect("it has an address");
                let shelves = self.shelves[tenant].clone();
                tasks.spawn(Reader::new(asker, shelves, self.dice.fork(), self.shared.clone()).run());
            }
        }
        tasks
    }

    async fn strike(&mut self, blow: Blow) -> io::Result<()> {
        tokio::time::sleep(self.dice.within(CALM)).await;
        let host = *self.dice.one_of(&HOSTS);
        match blow {
            Blow::Central => self.kill(&[CENTRAL], None).await,
            Blow::Agent => self.kill(&[host], None).await,
            Blow::CentralAndAgent => self.kill(&[CENTRAL, host], None).await,
            Blow::Tpm => self.kill(&[], Some(host)).await,
            Blow::Power => self.kill(&[host], Some(host)).await,
            Blow::Rotating => self.kill_while_rotating().await,
            Blow::CuttingOff => self.kill_while_cutting_off(host).await,
            Blow::Copying => self.kill_while_copying(host).await,
        }
    }

    /// Kills the processes of these nodes and the TPM of this host at once, waits until they are there again, and
    /// counts the lines of everybody that was killed.
    async fn kill(&self, nodes: &[&'static str], tpm: Option<&'static str>) -> io::Result<()> {
        let mut hit: Vec<_> = nodes.iter().copied().chain(tpm).collect();
        hit.dedup();
        let before: Vec<_> = hit.iter().map(|node| self.pid(node)).collect::<io::Result<_>>()?;
        let tpm_before = tpm.map(|host| self.tpm_pid(host)).transpose()?;
        for (node, pid) in hit.iter().zip(&before).filter(|(node, _)| nodes.contains(node)) {
            self.deployment.kill_process(*pid).map_err(|error| Error::other(format!("killing {node}: {error}")))?;
        }
        if tpm_before.is_some() {
            self.deployment.kill_process(tpm_before)?;
        }
        for (node, before) in hit.iter().zip(before) {
            self.nodes[node].gate.close().await;
            self.nodes[node].count_lines(&self.deployment).await?;
            let back = async || Ok((self.pid(node)?.is_some_and(|pid| Some(pid) != before)).then_some(()));
            until(&format!("{node} is started again"), SOON, back).await?;
        }
        if let Some(host) = tpm {
            let back = async || Ok((Some(self.tpm_pid(host)?) != tpm_before).then_some(()));
            until(&format!("the TPM of {host} is started again"), SOON, back).await?;
        }
        if hit.contains(&CENTRAL) {
            self.central_is_open().await?;
        }
        hit.iter().for_each(|node| self.nodes[node].gate.open());
        Ok(())
    }

    fn pid(&self, node: &str) -> io::Result<Option<u32>> {
        if node == CENTRAL { Ok(self.deployment.doc()?.central.pid) } else { Ok(self.deployment.host(node)?.pid) }
    }

    fn tpm_pid(&self, host: &str) -> io::Result<u32> {
        let text = std::fs::read_to_string(self.deployment.host_dir(host)?.join("tpm.pid"))?;
        text.trim().parse().map_err(Error::other)
    }

    async fn central_is_open(&self) -> io::Result<()> {
        let central = self.deployment.central()?;
        let look = async || {
            let status = central.get("/v1/state/strongbox/system/seal-status").await?.json();
            Ok((status["sealed"] == false).then_some(()))
        };
        until("central is unsealed", SOON, look).await
    }

    /// The new key, if its reply came, is in `dev.json` before central is asked for again; if not, the old one holds.
    async fn kill_while_rotating(&mut self) -> io::Result<()> {
        let (dir, out) = (self.deployment.dir().to_string_lossy().into_owned(), self.sink.with_extension("seal"));
        let out = out.to_string_lossy().into_owned();
        let arguments = ["operator", "rotate-seal", "--dir", &dir, "--out", &out];
        let rotating = self.deployment.holdfast(&arguments);
        let moment = self.dice.within(2 * MIDST);
        let killing = async {
            tokio::time::sleep(moment).await;
            self.kill(&[CENTRAL], None).await
        };
        let (rotated, killed) = tokio::join!(rotating, killing);
        rotated?;
        killed
    }

    /// If it was acknowledged, it holds after the kill; it is asked for again until it was, and then taken back.
    async fn kill_while_cutting_off(&mut self, host: &'static str) -> io::Result<()> {
        // By the time it is taken back, the epoch of its seal key may be gone, and its store with it.
        self.shared.beginnings.fetch_add(1, Ordering::SeqCst);
        let asking = self.operate(host, "quarantine-site-host", json!({"host": host}));
        tokio::time::sleep(self.dice.within(MIDST)).await;
        self.kill(&[CENTRAL], None).await?;
        if asking.await.is_ok_and(|answer| answer.is_ok()) {
            let standing = self.deployment.state_of(&self.operator, host).await?["standing"].clone();
            assert_eq!(standing, "quarantined", "{host}: it was acknowledged that it is cut off");
        }
        self.insist(host, "quarantine-site-host", json!({"host": host})).await?;
        let told =
            async || Ok(self.deployment.at(host)?.get("/v1/health").await?.text().contains("sealed").then_some(()));
        until(&format!("{host} is sealed"), SOON, told).await?;
        self.shared.beginnings.fetch_add(1, Ordering::SeqCst);
        self.insist(host, "unquarantine-site-host", json!({"host": host})).await
    }

    /// A wiped host that is taken back begins with a full copy.
    async fn kill_while_copying(&mut self, host: &'static str) -> io::Result<()> {
        self.shared.beginnings.fetch_add(1, Ordering::SeqCst);
        self.insist(host, "quarantine-site-host", json!({"host": host, "wipe": true})).await?;
        let wiped =
            async || Ok((self.deployment.state_of(&self.operator, host).await?["wipe"] == "done").then_some(()));
        until(&format!("{host} is wiped"), SOON, wiped).await?;
        self.shared.beginnings.fetch_add(1, Ordering::SeqCst);
        self.insist(host, "unquarantine-site-host", json!({"host": host})).await?;
        let unsealed =
            async || Ok((self.deployment.state_of(&self.operator, host).await?["state"] == "unsealed").then_some(()));
        until(&format!("{host} is released"), SOON, unsealed).await?;
        tokio::time::sleep(self.dice.within(2 * MIDST)).await;
        self.kill(&[host], None).await
    }

    fn operate(&self, host: &str, operation: &str, body: Value) -> JoinHandle<io::Result<Value>> {
        let site = host.split('-').next().unwrap_or_default();
        let path = format!("/v1/state/system/sites/{site}/{operation}");
        let operator = self.operator.clone();
        tokio::spawn(async move { operator.post(&path, &body).await?.good() })
    }

    async fn insist(&self, host: &str, operation: &str, body: Value) -> io::Result<()> {
        let ask = async || self.operate(host, operation, body.clone()).await.map_err(Error::other)?.map(Some);
        until(&format!("{operation} of {host}"), SOON, ask).await.map(drop)
    }

    /// With nobody writing and everybody up: each node has exactly what was acknowledged, and its lines are all there.
    /// Gives how many secrets were compared.
    async fn all_is_there(&mut self) -> io::Result<u64> {
        let mut checked = 0;
        self.deployment.ready().await?;
        for node in std::iter::once(CENTRAL).chain(HOSTS) {
            for tenant in 0..TENANTS.len() {
                let asker = self.asker(node, tenant)?;
                let bulk = if tenant == 0 { self.bulk.as_slice() } else { &[] };
                for secret in self.shelves[tenant].iter().flat_map(Shelf::secrets).chain(bulk) {
                    self.is_there(&asker, secret).await?;
                    checked += 1;
                }
            }
            self.nodes[node].count_lines(&self.deployment).await?;
        }
        Ok(checked)
    }

    async fn is_there(&self, asker: &Asker, secret: &Secret) -> io::Result<()> {
        let node = asker.node.name;
        let expected = secret.last().filter(|_| secret.placement.is_at(node));
        let expected = expected.map(|number| secret.value(number));
        let look = async || match (asker.read(&secret.path).await, &expected) {
            (Heard::Found(data), Some(expected)) if data == *expected => Ok(Some(())),
            (Heard::Absent, None) => Ok(Some(())),
            (Heard::Found(data), _) => Err(Error::other(format!("{:.120}", data.to_string()))),
            (Heard::Absent, Some(_)) => Err(Error::other("absent")),
            (Heard::NotNow | Heard::Nothing, _) => Err(Error::other("no answer now")),
        };
        let what = format!("{node} has the {:?} of {}", secret.known(), secret.path);
        match node {
            // Nothing is written any more: central has it or has it not.
            CENTRAL => look().await?.ok_or_else(|| Error::other(what)),
            _ => until(&what, SOON, look).await,
        }
    }

    async fn publish(mut self, rounds: usize, began: Instant, compared: u64, checked: u64) -> io::Result<()> {
        let seconds = began.elapsed().as_secs();
        let folders: Vec<_> = std::iter::once(self.deployment.doc()?.central.data_dir)
            .chain(self.deployment.doc()?.sites.into_iter().flat_map(|site| site.hosts).map(|host| host.data_dir))
            .collect();
        self.deployment.stop().await?;
        let (mut lines, mut gaps) = (0, 0);
        for data in &folders {
            let report = verified(&self.deployment, data).await?;
            let number = |member: &str| report[member].as_u64().unwrap_or_default();
            lines += number("changes") + number("commits") + number("reads");
            gaps += number("gaps");
        }
        let recorded = nonces::all_differ(&self.sink)?;
        // Some processes are killed before they have used any.
        let enough = recorded.processes > HOSTS.len() && recorded.uses > 100 * rounds;
        assert!(enough, "the sink has hardly seen them all: {recorded:?}");
        let reads: u64 = self.nodes.values().map(|node| node.acknowledged.load(Ordering::SeqCst)).sum();
        let mut figures = Figures::of("kills").add("rounds", rounds).add("seconds", seconds);
        for (what, times) in &self.kills {
            figures = figures.add(&format!("killed: {what}"), times);
        }
        figures
            .add("acknowledged writes, none lost", self.shared.acknowledged.load(Ordering::SeqCst))
            .add("writes without an answer, each whole or absent", self.shared.open.load(Ordering::SeqCst))
            .add("acknowledged reads, each with its line", reads)
            .add("secrets compared at the end, all nodes", checked)
            .add("numbers that may only grow, compared", compared)
            .add("lines of audit logs verified", lines)
            .add("half lines cut off at a start", gaps)
            .add("uses of a key with a nonce, all different", recorded.uses)
            .add("keys, processes among them", format!("{}, {}", recorded.keys, recorded.processes))
            .publish()
    }
}

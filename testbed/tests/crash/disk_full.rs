//! Disks that fill up, of central and of a host: what needs room is refused with words that say what to do, what needs
//! none goes on, cutting off is possible to the last, and once there is room again nothing has to be restarted.

use std::io::Error;
use std::time::Duration;

use holdfast_testbed::APP;
use holdfast_testbed::figures::Figures;
use holdfast_testbed::procs::client::{Answer, Client};
use holdfast_testbed::procs::disk::{Ballast, Disk};
use holdfast_testbed::procs::{Deployment, Options, until};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::holds;

/// For a change to be seen somewhere else.
const SOON: Duration = Duration::from_secs(60);
/// Twice what is kept in reserve, and some.
const DISK: u64 = 160 << 20;
/// Less than writes must leave (64 MiB), more than reads must (16 MiB).
const FOR_READS: u64 = 40 << 20;
/// Less than reads must leave.
const FOR_NEITHER: u64 = 6 << 20;
/// The one host.
const HOST: &str = "udc1-001";
/// Where the secret is that all is tried with.
const SECRET: &str = "/v1/secret/app/box-of-all/some";

struct World {
    deployment: Deployment,
    ballast: Ballast,
    folder: &'static str,
    central: Client,
    host: Client,
    operator: Client,
}

impl World {
    /// With a disk of its own at `folder`, and a secret that has arrived.
    async fn with_disk(folder: &'static str) -> Self {
        let disks = vec![Disk { folder, bytes: DISK }];
        let deployment = Deployment::start(Options { hosts: vec![1], disks, ..Options::default() }).await.unwrap();
        let ballast = Ballast::on(deployment.inside(folder).unwrap());
        let operator = deployment.operator().await.unwrap();
        let doc = deployment.doc().unwrap().central;
        let body = json!({"username": doc.username, "password": doc.password, "tenant": doc.tenant});
        let login = deployment.central().unwrap().post("/v1/login", &body).await.unwrap().good().unwrap();
        let token = login["token"].as_str().unwrap();
        let (central, host) = (deployment.central().unwrap(), deployment.at(HOST).unwrap());
        let (central, host) = (central.with_token(token), host.with_token(token));
        let body = json!({"name": "box-of-all", "category_id": APP, "owner": "admins", "distribute": {"to": "all"}});
        central.post("/v2/safe-deposit-box", &body).await.unwrap().good().unwrap();
        let world = Self { deployment, ballast, folder, central, host, operator };
        world.write("first").await;
        world.arrives("first").await;
        world
    }

    async fn write(&self, value: &str) {
        let answer = self.central.post(SECRET, &json!({"value": value})).await.unwrap();
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    async fn arrives(&self, value: &str) {
        let look = async || match self.host.get(SECRET).await? {
            answer if answer.json()["data"]["value"] == value => Ok(Some(())),
            answer => Err(Error::other(format!("{} {}", answer.status, answer.text()))),
        };
        until(&format!("{value} is at the host"), SOON, look).await.unwrap();
    }

    async fn operate(&self, operation: &str) -> Answer {
        let path = format!("/v1/state/system/sites/udc1/{operation}");
        self.operator.post(&path, &json!({"host": HOST})).await.unwrap()
    }

    async fn becomes(&self, member: &str, value: Value) {
        let look = async || match self.deployment.state_of(&self.operator, HOST).await? {
            known if known[member] == value => Ok(Some(())),
            known => Err(Error::other(known.to_string())),
        };
        until(&format!("{HOST} has {member} {value}"), SOON, look).await.unwrap();
    }

    async fn command(&self, arguments: &[&str]) {
        let dir = self.deployment.dir().to_string_lossy().into_owned();
        let output = self.deployment.holdfast(&[arguments, &["--dir", &dir]].concat()).await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    async fn audit_holds(&self) -> u64 {
        let data = self.deployment.dir().join(self.folder);
        let arguments = ["audit", "verify", "--json", "--data", &data.to_string_lossy()];
        let report = holds(&data, self.deployment.holdfast_inside(&arguments).await.unwrap()).unwrap();
        assert_eq!(report["gaps"], 0, "{report}");
        report["changes"].as_u64().unwrap() + report["reads"].as_u64().unwrap()
    }
}

/// Refused for want of room, in words that say what to do.
fn is_full(answer: &Answer) {
    let text = answer.text();
    assert!(answer.status == 503 && text.contains("disk") && text.contains("room"), "{} {text}", answer.status);
    assert!(answer.headers.contains_key("retry-after"), "{:?}", answer.headers);
}

/// Writes until it is refused; gives how many were acknowledged.
async fn write_until_full(central: Client, writer: usize) -> u64 {
    let path = format!("/v1/secret/app/box-of-all/writer-{writer}");
    for number in 1.. {
        let value = json!({"number": number, "text": "0123456789abcdef".repeat(4096)});
        let answer = central.post(&path, &value).await.unwrap();
        if answer.status != 204 {
            is_full(&answer);
            return number - 1;
        }
    }
    unreachable!("a disk has an end")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_central_with_a_full_disk_refuses_writes_serves_reads_and_still_cuts_off() {
    let mut world = World::with_disk("central/data").await;
    let pid = world.deployment.doc().unwrap().central.pid;

    // It fills up while it is written to.
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let written = write_until_full(world.central.clone(), writer);
        writers.spawn(async move { (writer, written.await) });
    }
    let some =
        async || Ok((world.central.get("/v1/secret/app/box-of-all/writer-0").await?.status == 200).then_some(()));
    until("some writes", SOON, some).await.unwrap();
    world.ballast.take_all_but(FOR_READS).unwrap();
    let written = writers.join_all().await;
    let acknowledged: u64 = written.iter().map(|(_, count)| count).sum();
    for (writer, count) in &written {
        let read = world.central.get(&format!("/v1/secret/app/box-of-all/writer-{writer}")).await.unwrap();
        assert_eq!((read.status, &read.json()["data"]["number"]), (200, &json!(count)), "writer {writer}");
    }

    // Every kind of write is refused, in its dialect's shape; reads go on, at hosts too.
    let refused = world.central.post(SECRET, &json!({"value": "second"})).await.unwrap();
    is_full(&refused);
    assert!(refused.json()["errors"][0]["message"].is_string(), "{}", refused.text());
    is_full(&world.central.delete(SECRET).await.unwrap());
    let tenant = world.operator.post("/v1/config/tenants", &json!({"name": "acme"})).await.unwrap();
    is_full(&tenant);
    assert!(tenant.json()["errors"][0]["error-message"].is_string(), "{}", tenant.text());
    assert_eq!(world.central.get(SECRET).await.unwrap().json()["data"]["value"], "first");
    world.arrives("first").await;

    // The operator gets in, and cuts off; taking back can wait.
    world.operator = world.deployment.operator().await.unwrap();
    let cut = world.operate("quarantine-site-host").await;
    assert_eq!(cut.status, 204, "{}", cut.text());
    world.becomes("standing", json!("quarantined")).await;
    let sealed = async || Ok((world.host.get(SECRET).await?.status == 503).then_some(()));
    until("the host serves no more", SOON, sealed).await.unwrap();
    is_full(&world.operate("unquarantine-site-host").await);

    // The seal closes and opens.
    world.command(&["operator", "seal"]).await;
    assert_eq!(world.central.get(SECRET).await.unwrap().status, 503);
    world.command(&["operator", "unseal"]).await;
    assert_eq!(world.central.get(SECRET).await.unwrap().json()["data"]["value"], "first");

    // Where not even lines of reads have room, reads are refused; the fence still has.
    world.ballast.take_all_but(FOR_NEITHER).unwrap();
    let refused = async || Ok(Some(world.central.get(SECRET).await?).filter(|answer| answer.status != 200));
    is_full(&until("reads are refused", SOON, refused).await.unwrap());
    let whole_site = world.operator.post("/v1/state/system/sites/udc1/quarantine-site", &json!({})).await.unwrap();
    assert_eq!(whole_site.status, 204, "{}", whole_site.text());
    world.command(&["operator", "seal"]).await;
    world.command(&["operator", "unseal"]).await;

    // And with nothing left at all nothing is written, and nobody dies of it.
    world.ballast.take_all_but(0).unwrap();
    for _ in 0..20 {
        is_full(&world.central.post(SECRET, &json!({"value": "second"})).await.unwrap());
        is_full(&world.central.get(SECRET).await.unwrap());
    }
    let status = world.central.get("/v1/state/strongbox/system/seal-status").await.unwrap();
    assert_eq!((status.status, &status.json()["sealed"]), (200, &json!(false)), "{}", status.text());

    world.ballast.drop_all().unwrap();
    let reads = async || Ok((world.central.get(SECRET).await?.status == 200).then_some(()));
    until("reads go on", SOON, reads).await.unwrap();
    world.write("second").await;
    for operation in ["unquarantine-site-host", "unquarantine-site"] {
        let body = if operation.ends_with("host") { json!({"host": HOST}) } else { json!({}) };
        let path = format!("/v1/state/system/sites/udc1/{operation}");
        assert_eq!(world.operator.post(&path, &body).await.unwrap().status, 204, "{operation}");
    }
    world.arrives("second").await;
    assert_eq!(world.deployment.doc().unwrap().central.pid, pid, "central was not restarted");

    // It fills up so fast that lines of reads meet the end of the disk, and not the reserve.
    world.ballast.take_all_but(0).unwrap();
    let mut burst = JoinSet::new();
    for _ in 0..48 {
        let central = world.central.clone();
        burst.spawn(async move { central.get(SECRET).await.unwrap() });
    }
    burst.join_all().await.iter().filter(|answer| answer.status != 200).for_each(is_full);
    world.ballast.drop_all().unwrap();
    let reads = async || Ok((world.central.get(SECRET).await?.status == 200).then_some(()));
    until("reads go on again", SOON, reads).await.unwrap();
    let lines = world.audit_holds().await;
    let figures = Figures::of("central-disk-full").add("writes acknowledged while the disk filled up", acknowledged);
    figures.add("lines of its audit log verified", lines).publish().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_a_full_disk_serves_what_it_has_and_catches_up_when_there_is_room() {
    let mut world = World::with_disk("udc1/udc1-001/data").await;
    let pid = world.deployment.host(HOST).unwrap().pid;

    // It takes no more bundles, and serves what it has; central goes on.
    world.ballast.take_all_but(FOR_READS).unwrap();
    world.write("second").await;
    let behind = async || {
        let known = world.deployment.state_of(&world.operator, HOST).await?;
        Ok(known["lag"].as_u64().is_none_or(|lag| lag > 0).then_some(()))
    };
    until("central knows that it is behind", SOON, behind).await.unwrap();
    for _ in 0..20 {
        let read = world.host.get(SECRET).await.unwrap();
        assert_eq!((read.status, &read.json()["data"]["value"]), (200, &json!("first")), "{}", read.text());
    }

    // Reads have their own reserve.
    world.ballast.take_all_but(FOR_NEITHER).unwrap();
    let refused = async || Ok(Some(world.host.get(SECRET).await?).filter(|answer| answer.status != 200));
    is_full(&until("reads are refused", SOON, refused).await.unwrap());
    world.ballast.take_all_but(0).unwrap();
    for _ in 0..20 {
        is_full(&world.host.get(SECRET).await.unwrap());
    }

    world.ballast.drop_all().unwrap();
    world.arrives("second").await;
    world.write("third").await;
    world.arrives("third").await;
    world.becomes("lag", json!(0)).await;

    // It is cut off like any other, though it has no room to remember much, and begins anew when there is some.
    world.ballast.take_all_but(FOR_NEITHER).unwrap();
    let cut = world.operate("quarantine-site-host").await;
    assert_eq!(cut.status, 204, "{}", cut.text());
    let sealed = async || Ok(world.host.get("/v1/health").await?.text().contains("quarantined").then_some(()));
    until("it is sealed and knows why", SOON, sealed).await.unwrap();
    world.ballast.drop_all().unwrap();
    let back = world.operate("unquarantine-site-host").await;
    assert_eq!(back.status, 204, "{}", back.text());
    world.arrives("third").await;
    assert_eq!(world.deployment.host(HOST).unwrap().pid, pid, "the agent was not restarted");
    world.audit_holds().await;
}

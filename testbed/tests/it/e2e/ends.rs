//! What an agent can't go on without ends its process, whatever it was doing: with an exit code and its reason, and so
//! that the next start has all that was acknowledged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use holdfast_testbed::procs::client::Client;
use holdfast_testbed::procs::{program, until};
use holdfast_testbed::swtpm::Swtpm;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::wire::{config_for, join};
use super::{SOON, World, secret};

const SECRET: &str = "canary-box-of-all/some-canary";

/// The agent of a machine of its own, as a process of this one.
struct Agent {
    child: Child,
    client: Client,
    /// What it wrote since it listened, told when it has ended.
    later: JoinHandle<String>,
    _tpm: Swtpm,
}

impl Agent {
    /// Starts it, and waits until it serves; a test breaks the part whose name stands in `doomed`.
    async fn start(world: &World, place: &Path, doomed: &Path) -> Self {
        let tpm = Swtpm::start(place).unwrap();
        tpm.boot_events().unwrap();
        let config = config_for(world, place, &tpm);
        // A file that may not grow any more is an error then, and no signal.
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]).arg(program("holdfast-site-agent").unwrap());
        command.args(["serve", "--config"]).arg(config).env("HOLDFAST_TEST_KILL", doomed);
        command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let addr = loop {
            let line = lines.next_line().await.unwrap().expect("it listens");
            if let Some((_, addr)) = line.split_once("listening rest=") {
                break addr.to_owned();
            }
        };
        let later = tokio::spawn(async move {
            let mut later = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                later.push_str(&line);
                later.push('\n');
            }
            later
        });
        let client = Client::new(&format!("https://{addr}"), &place.join("data/api-ca.crt"), None).unwrap();
        let client = client.with_authorization_of(&world.central());
        let agent = Self { child, client, later, _tpm: tpm };
        agent.serves("before the end").await;
        agent
    }

    async fn serves(&self, value: &str) {
        let look =
            async || Ok((self.client.get(&secret(SECRET)).await?.json()["data"]["value"] == value).then_some(()));
        until(&format!("{value:?} at the agent"), SOON, look).await.unwrap();
    }

    /// Waits for its end, which is to have this reason; nobody answers any more.
    async fn ends_for(mut self, reason: &str) {
        let status = timeout(SOON, self.child.wait()).await.expect("it ends").unwrap();
        let said = self.later.await.unwrap();
        assert_eq!(status.code(), Some(1), "{said}");
        let last = said.lines().find(|line| line.contains("the agent can't go on")).unwrap_or(&said);
        assert!(last.contains(reason), "{said}");
        assert!(self.client.get("/v1/health").await.is_err(), "it is gone");
    }
}

/// A host of a site of its own, joined; where its things are.
async fn joined(world: &World) -> PathBuf {
    let site = json!({"name": "udc9", "ek-trust": "token", "learn-reference-values": true,
                      "hosts": [{"name": "udc9-001"}]});
    assert_eq!(world.operator.post("/v1/config/system/sites", &site).await.unwrap().status, 201);
    let bundle = world.operate("udc9", "site-bundle", &json!({})).await.json();
    let (done, text) = join(world, "own", 10, &bundle).await;
    assert!(done, "{text}");
    world.deployment.dir().join("own")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_or_a_lost_thread_ends_an_agents_process() {
    let mut world = World::start(&[1]).await;
    world.make_box("canary-box-of-all", json!({"to": "all"})).await;
    world.write(SECRET, "before the end").await;
    let place = joined(&world).await;
    let doomed = place.join("doomed");
    for (part, reason) in [
        ("uplink", "uplink failed too often"),
        ("REST listener", "REST listener failed too often"),
        ("read journal", "the read journal failed: a test asked for it"),
        ("TPM", "the TPM's thread has ended"),
    ] {
        fs::write(&doomed, "nobody").unwrap();
        let agent = Agent::start(&world, &place, &doomed).await;
        fs::write(&doomed, part).unwrap();
        agent.ends_for(reason).await;
    }
    fs::write(&doomed, "nobody").unwrap();
    Agent::start(&world, &place, &doomed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_can_not_be_written_ends_an_agents_process() {
    let mut world = World::start(&[1]).await;
    world.make_box("canary-box-of-all", json!({"to": "all"})).await;
    world.write(SECRET, "before the end").await;
    let place = joined(&world).await;
    let doomed = place.join("doomed");
    let agent = Agent::start(&world, &place, &doomed).await;
    let size = fs::metadata(place.join("data/store/data.mdb")).unwrap().len();
    let pid = agent.child.id().unwrap().to_string();
    let limited = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={size}:{size}")]).status().await;
    assert!(limited.unwrap().success());
    let writing = async {
        for number in 0.. {
            world.write(&format!("canary-box-of-all/more-{number}"), &"x".repeat(50_000)).await;
        }
    };
    tokio::select! {
        () = agent.ends_for("the store failed: ") => {}
        () = writing => {}
    }
    // It may have failed at something else, before the first of them was there.
    world.write("canary-box-of-all/more-0", "written after the end").await;
    let again = Agent::start(&world, &place, &doomed).await;
    let last = async || Ok((again.client.get(&secret("canary-box-of-all/more-0")).await?.status == 200).then_some(()));
    until("what it could not write before", SOON, last).await.unwrap();
}

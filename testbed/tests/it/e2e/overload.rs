//! Far more at once than a node takes: it stays within bounds, says no to the rest, and serves on.

use std::collections::BTreeMap;
use std::{fs, io};

use holdfast_testbed::figures::Figures;
use holdfast_testbed::procs::client::Client;
use holdfast_testbed::procs::crowd::{Ask, Crowd, Outcomes, silent};
use holdfast_testbed::procs::until;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::time::Instant;

use super::{SOON, World, secret};

/// Over a hundred connections of HTTP/2.
const STREAMS: Crowd = Crowd { callers: 100, asks: 100, addresses: 1 };
/// A connection each, all open at the same time, from two addresses: more than those may have.
const CONNECTIONS: Crowd = Crowd { callers: 2400, asks: 1, addresses: 2 };
/// Connections that one address may have.
const EACH_MAX: usize = 1024;
/// Connections that say nothing, from six addresses: more than a node takes in all.
const SILENT: usize = 6000;
/// Refusals that others may have had meanwhile: `holdfast dev` looks at its nodes all the time.
const OTHERS_MAX: usize = 50;
/// What a node may need at most, in MiB: all its connections with all their buffers, in a debug build.
const MEMORY_MAX: u64 = 400;

/// Memory of a process in MiB: now, and at most so far.
fn memory(pid: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    };
    (of("VmRSS:"), of("VmHWM:"))
}

fn of<'a>(outcomes: &'a Outcomes, which: &'a [&str]) -> usize {
    which.iter().filter_map(|name| outcomes.get(*name)).sum()
}

/// One figure of each bound, as the metrics say it.
type Bounds = BTreeMap<String, f64>;

async fn figures(client: &Client, figure: &str) -> io::Result<Bounds> {
    let answer = client.get("/v1/metrics").await?;
    if answer.status != 200 {
        return Err(io::Error::other("no figures"));
    }
    let (text, prefix) = (answer.text(), format!("holdfast_bound_{figure}{{bound=\""));
    let values = text.lines().filter_map(|line| {
        let (bound, value) = line.strip_prefix(&prefix)?.split_once("\"} ")?;
        Some((bound.to_owned(), value.parse().ok()?))
    });
    Ok(values.collect())
}

/// Waits until nothing is left of the crowd: the scrape's own request and connection are all that is used. Gives what
/// was refused so far, and how many of these looks were.
async fn is_idle(client: &Client) -> (Bounds, usize) {
    let mut refused = 0;
    for (bound, idle) in [("rest-requests", 1.0), ("rest-connections", 1.0), ("store-queue", 0.0)] {
        let look = async || {
            let used = figures(client, "used").await.inspect_err(|_| refused += 1)?;
            Ok((used[bound] == idle).then_some(()))
        };
        until(&format!("{bound} back at {idle}"), SOON, look).await.unwrap();
    }
    (figures(client, "refusals_total").await.unwrap(), refused)
}

/// How often was refused since `before`: connections, and all else.
fn more(before: &Bounds, now: &Bounds) -> (f64, f64) {
    let more = |bound: &str| now[bound] - before[bound];
    let all: f64 = now.keys().map(|bound| more(bound)).sum();
    (more("rest-connections"), all - more("rest-connections"))
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_requests_at_once_end_in_bounded_memory_and_refusals_and_never_in_a_hang() {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
    let mut world = World::start(&[1]).await;
    world.make_box("canary-box-of-all", json!({"to": "all"})).await;
    world.write("canary-box-of-all/some-canary", "still served").await;
    world.arrives("udc1-001", "canary-box-of-all/some-canary", "still served").await;
    let read = |_| Ask { path: secret("canary-box-of-all/some-canary"), body: None };
    // Half of them write; a write's body is read in the handler, so they are all in there at the same time.
    let write = |number: usize| Ask {
        path: secret(&format!("canary-box-of-all/other-{}", number % 50)),
        body: Some(json!({"value": number.to_string()}).to_string()),
    };
    let mixed = |number: usize| if number.is_multiple_of(2) { read(number) } else { write(number) };

    let mut figures = Figures::of("overload");
    let doc = world.deployment.doc().unwrap();
    let host = world.deployment.host("udc1-001").unwrap();
    for (node, pid, client) in
        [("central", doc.central.pid, world.central()), ("a host", host.pid, world.at("udc1-001"))]
    {
        let pid = pid.unwrap();
        let before = memory(pid).0;
        let (counted, _) = is_idle(&client).await;
        let began = Instant::now();
        let streams = match node {
            "central" => STREAMS.ask(&client, mixed).await,
            _ => STREAMS.ask(&client, read).await,
        };
        eprintln!("{node}: {streams:?} in {:?}", began.elapsed());
        assert_eq!(of(&streams, &["200", "204", "503"]), 10_000, "{node}: {streams:?}");
        assert!(100 < of(&streams, &["200", "204"]), "{node}: {streams:?}");
        if node == "central" {
            // Writes wait for the disk, so more were there than it takes.
            assert!(1000 < of(&streams, &["503"]), "{node}: {streams:?}");
        }
        // Each refusal is in the figures, and each figure was a refusal.
        let (now, looks) = is_idle(&client).await;
        let refusals = of(&streams, &["503"]);
        let (_, requests) = more(&counted, &now);
        assert!(
            (refusals..=refusals + looks + OTHERS_MAX).contains(&(requests as usize)),
            "{node}: {requests} for {refusals} 503s"
        );
        let counted = now;
        let connections = CONNECTIONS.ask(&client, read).await;
        eprintln!("{node}: {connections:?} in {:?}", began.elapsed());
        let all = of(&connections, &["200", "503", "not let in", "cut off"]);
        assert_eq!(all, CONNECTIONS.callers, "{node}: {connections:?}");
        assert!(100 < of(&connections, &["200"]), "{node}: {connections:?}");
        assert!(of(&connections, &["200", "503"]) <= 2 * EACH_MAX, "{node}: {connections:?}");
        let (now, looks) = is_idle(&client).await;
        let (closed_at_once, requests) = more(&counted, &now);
        let turned_away = of(&connections, &["not let in", "cut off"]);
        assert!(CONNECTIONS.callers - 2 * EACH_MAX <= turned_away, "{node}: {connections:?}");
        let of_connections = turned_away..=turned_away + looks + OTHERS_MAX;
        assert!(of_connections.contains(&(closed_at_once as usize)), "{node}: {closed_at_once} for {connections:?}");
        let refusals = of(&connections, &["503"]);
        assert!(
            (refusals..=refusals + looks + OTHERS_MAX).contains(&(requests as usize)),
            "{node}: {requests} for {connections:?}"
        );
        let counted = now;
        let closed = silent(&client, SILENT, 6).await.unwrap();
        let (now, _) = is_idle(&client).await;
        let (more, _) = more(&counted, &now);
        assert!(more <= SILENT as f64, "{node}: {more} of {SILENT} silent connections were refused");
        let (after, peak) = memory(pid);
        assert!(peak < MEMORY_MAX, "{node} took {peak} MiB");
        let took = began.elapsed();
        figures = figures
            .add(&format!("{node}: 10000 requests at once: served / 503"), {
                format!("{} / {}", of(&streams, &["200", "204"]), of(&streams, &["503"]))
            })
            .add(&format!("{node}: {} connections at once: served / refused", CONNECTIONS.callers), {
                let served = of(&connections, &["200"]);
                format!("{served} / {}", CONNECTIONS.callers - served)
            })
            .add(&format!("{node}: {SILENT} silent connections: refused / all closed"), {
                format!("{more} / {} s", closed.as_secs())
            })
            .add(&format!("{node}: memory before / peak / after, MiB"), format!("{before} / {peak} / {after}"))
            .add(&format!("{node}: seconds"), took.as_secs());
    }
    // And then all is as ever.
    world.write("canary-box-of-all/some-canary", "served afterwards").await;
    world.arrives("udc1-001", "canary-box-of-all/some-canary", "served afterwards").await;
    world.becomes("udc1-001", "unsealed", "trusted").await;
    figures.publish().unwrap();
}

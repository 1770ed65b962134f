//! What the node says of itself in this dialect.

use std::thread::available_parallelism;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::Instant;

use super::Kes;
use super::api::{ALL, API, READY, STATUS, bare, routes};
use super::call::{Call, done, op, reply};
use super::fault::Fault;
use super::process::Process;
use crate::openapi::operation::Operations;

/// What it says.
pub(super) fn operations() -> Operations<Kes> {
    routes(&READY, || op(&READY, ready), bare, "Whether keys can be used")
        .and(routes(&STATUS, || op(&STATUS, status).gives::<Status>(), |operation| operation, "How the node is"))
        .and(routes(&API, || op(&API, apis).gives::<Vec<ApiShown>>(), |operation| operation, "What can be called"))
}

/// How the node is.
#[derive(Serialize, JsonSchema)]
struct Status {
    /// The program's.
    version: &'static str,
    os: &'static str,
    /// As Go calls it.
    arch: &'static str,
    /// Seconds.
    uptime: u64,
    num_cpu: usize,
    num_cpu_used: usize,
    /// Bytes of memory in use.
    mem_heap_used: u64,
    /// Bytes of the first thread's stack.
    mem_stack_used: u64,
    /// Milliseconds that a read of the store took, at least 1.
    keystore_latency: u64,
}

/// Something that can be called.
#[derive(Serialize, JsonSchema)]
struct ApiShown {
    method: &'static str,
    path: &'static str,
    /// Bytes.
    max_body: usize,
    /// Seconds.
    timeout: u64,
}

async fn ready(call: Call, _: Body) -> Result<Response, Fault> {
    call.read(|_| Ok(()))?;
    Ok(done())
}

async fn status(call: Call, _: Body) -> Result<Response, Fault> {
    let began = Instant::now();
    call.read(|_| Ok(()))?;
    let latency = began.elapsed();
    let (cpus, process) = (available_parallelism().map_or(1, usize::from), Process::now());
    Ok(reply(&Status {
        version: call.kes.0.version,
        os: std::env::consts::OS,
        arch: go_arch(),
        uptime: call.uptime().as_secs(),
        num_cpu: cpus,
        num_cpu_used: cpus,
        mem_heap_used: process.heap,
        mem_stack_used: process.stack,
        keystore_latency: u64::try_from(latency.as_millis()).unwrap_or(u64::MAX).max(1),
    }))
}

impl Call {
    fn uptime(&self) -> Duration {
        let Self { kes, .. } = self;
        kes.0.node.now().mono.saturating_sub(kes.0.started)
    }
}

fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

async fn apis(call: Call, _: Body) -> Result<Response, Fault> {
    call.read(|_| Ok(()))?;
    let shown = |api: &&'static super::api::Api| ApiShown {
        method: api.methods.first().copied().unwrap_or_default(),
        path: api.path,
        max_body: api.body_max,
        timeout: if api.goes_on { 0 } else { call.section.timeout(api).as_secs() },
    };
    Ok(reply(&OF_THE_NODE.into_iter().chain(ALL.iter().map(shown)).collect::<Vec<_>>()))
}

/// What clients of KES call as well, and the node answers to anybody.
const OF_THE_NODE: [ApiShown; 2] = [
    ApiShown { method: "GET", path: "/version", max_body: 0, timeout: 10 },
    ApiShown { method: "GET", path: "/v1/metrics", max_body: 0, timeout: 15 },
];

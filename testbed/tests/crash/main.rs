//! Deployments of real processes that are killed under load, and whose disks fill up: what was acknowledged is there,
//! what was not is whole or absent, nothing goes back, and the log knows of every read.
//!
//! `HOLDFAST_ROUNDS` says how many rounds of kills are made, `HOLDFAST_SEED` repeats the choices of a run.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod disk_full;
mod gate;
mod ledger;
mod load;
mod nodes;
mod nonces;
mod rounds;
mod schedule;
mod watch;

use std::io;
use std::process::Output;

use holdfast_testbed::procs::Deployment;
use serde_json::Value;

/// What `holdfast audit verify --json` says of a data folder.
async fn verified(deployment: &Deployment, data: &std::path::Path) -> io::Result<Value> {
    holds(data, deployment.holdfast(&["audit", "verify", "--json", "--data", &data.to_string_lossy()]).await?)
}

/// The report of a log that holds.
fn holds(data: &std::path::Path, output: Output) -> io::Result<Value> {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    match output.status.success() && report["holds"] == true {
        true => Ok(report),
        false => {
            let said = [output.stdout, output.stderr].concat();
            Err(io::Error::other(format!("{}: {}", data.display(), String::from_utf8_lossy(&said))))
        }
    }
}

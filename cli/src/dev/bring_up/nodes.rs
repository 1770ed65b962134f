//! Steps: the software TPMs and the node programs.

use std::cell::RefCell;
use std::time::Duration;

use tokio::process::Command;

use super::{Bringing, POLL, step};
use crate::client::ClientError;
use crate::dev::plan::{HostPlan, SitePlan};
use crate::dev::settings;
use crate::dev::tpm::SoftTpm;
use crate::failure::Failure;
use crate::files::private_folder;

/// Central's name among the processes.
pub(super) const CENTRAL: &str = "central";

/// The name of a host's agent among the processes.
pub(super) fn agent_of(host: &str) -> String {
    format!("the agent of {host}")
}

/// How long central may take until it answers at all.
const CENTRAL_TIMEOUT: Duration = Duration::from_secs(60);

impl Bringing<'_> {
    pub(super) async fn start_tpms(&self) -> Result<(), Failure> {
        for (site, host) in self.hosts() {
            self.start_tpm(site, host).await?;
        }
        Ok(())
    }

    pub(super) async fn start_tpm(&self, site: &SitePlan, host: &HostPlan) -> Result<(), Failure> {
        let host_dir = self.host_dir(site, host);
        private_folder(&host_dir)?;
        let tpm = SoftTpm::new(self.dir, &host_dir, &host.name);
        let made = tpm.make().await?;
        let tcti = tpm.start(self.tpms).await?;
        settings::write_agent(&host_dir, &self.dial, host, &tcti, self.log.as_ref())?;
        step("tpm", format_args!("{}  {}, {tcti}", host.name, if made { "made" } else { "started" }));
        self.file.update(|doc| {
            if let Some(known) = doc.host_mut(&host.name) {
                known.tcti = Some(tcti);
            }
        })
    }

    pub(super) async fn start_central(&self) -> Result<(), Failure> {
        let folder = self.dir.join("central");
        let log = folder.join("log");
        let mut command = Command::new(&self.central);
        command.args(["serve", "--die-with-parent", "--config"]).arg(folder.join("central.toml"));
        let pid = self.nodes.spawn(CENTRAL, command, &log)?;
        self.file.update(|doc| doc.central.pid = Some(pid))?;
        let last = RefCell::new(String::new());
        let answering = async {
            while let Err(reason) = self.answers().await {
                last.replace(reason);
                tokio::time::sleep(POLL).await;
            }
        };
        match tokio::time::timeout(CENTRAL_TIMEOUT, answering).await {
            Ok(()) => {
                step("central", format_args!("answers at https://127.0.0.1:{}", self.plan.rest));
                Ok(())
            }
            Err(_) => {
                let what = format!("central did not answer in {CENTRAL_TIMEOUT:?} ({})", last.into_inner());
                Err(Failure::Program { what, tail: crate::files::tail(&log, 20), log })
            }
        }
    }

    /// A sealed or uninitialised central may answer with a refusal: that is an answer.
    async fn answers(&self) -> Result<(), String> {
        match self.client().map_err(|failure| failure.chain())?.get("/v1/health").await {
            Ok(_) | Err(ClientError::Refused { .. } | ClientError::Answer { .. }) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(super) fn start_agent(&self, site: &SitePlan, host: &HostPlan) -> Result<(), Failure> {
        let host_dir = self.host_dir(site, host);
        let mut command = Command::new(&self.agent);
        command.args(["serve", "--die-with-parent", "--config"]).arg(host_dir.join("agent.toml"));
        let pid = self.nodes.spawn(&agent_of(&host.name), command, &host_dir.join("log"))?;
        self.file.update(|doc| {
            if let Some(known) = doc.host_mut(&host.name) {
                known.pid = Some(pid);
                self.begun_with.borrow_mut().insert(host.name.clone(), known.tcti.clone().unwrap_or_default());
            }
        })
    }
}

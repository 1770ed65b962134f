//! What ended under us is started again, as an init system would: a killed program, a machine that lost its power.
//!
//! A program that gave up by itself is not: it says why in its log, and would say so again.

use serde_json::json;

use super::nodes::{CENTRAL, agent_of};
use super::{Bringing, SEAL, step};
use crate::dev::children::{Exit, Exits};
use crate::dev::file::State;
use crate::dev::plan::{HostPlan, SitePlan};
use crate::dev::tpm::tpm_of;
use crate::dev::{set_state, unexpected};
use crate::failure::Failure;

impl Bringing<'_> {
    /// Starts again what ends. Ends only by a failure.
    pub(crate) async fn revive(&self, nodes: &mut Exits, tpms: &mut Exits) -> Failure {
        loop {
            let exit = tokio::select! {
                exit = nodes.next() => exit,
                exit = tpms.next() => exit,
            };
            if let Err(failure) = self.start_again(exit).await {
                return failure;
            }
        }
    }

    async fn start_again(&self, exit: Exit) -> Result<(), Failure> {
        if exit.failed {
            return Err(unexpected(exit));
        }
        step("restart", format_args!("{} ended ({}); starting it again", exit.name, exit.status));
        set_state(self.file, State::Starting)?;
        self.disturbed.set(true);
        if exit.name == CENTRAL {
            return self.central_again().await;
        }
        for (site, host) in self.hosts() {
            if exit.name == agent_of(&host.name) {
                return self.start_agent(site, host);
            }
            if exit.name == tpm_of(&host.name) {
                return self.power_on(site, host).await;
            }
        }
        Err(unexpected(exit))
    }

    async fn central_again(&self) -> Result<(), Failure> {
        self.file.update(|doc| doc.central.pid = None)?;
        self.start_central().await?;
        if self.unseal {
            let sealkey = self.file.existing()?.central.sealkey;
            self.client()?.post(&format!("{SEAL}/unseal"), &json!({"sealkey": sealkey})).await?;
            step("unseal", "central unsealed");
        }
        Ok(())
    }

    /// A TPM ends with its machine, and so does the agent, which is started again when its end is seen here.
    async fn power_on(&self, site: &SitePlan, host: &HostPlan) -> Result<(), Failure> {
        self.nodes.kill(&agent_of(&host.name));
        self.start_tpm(site, host).await
    }
}

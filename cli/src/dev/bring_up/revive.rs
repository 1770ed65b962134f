//! What ended under us is started again, as an init system would: a killed program, a machine that lost its power.
//!
//! A program that gave up by itself is not: it says why in its log, and would say so again. But an agent whose TPM is
//! gone has lost its machine, whatever it says: it is started again with the TPM.

use serde_json::json;
use tokio::net::TcpStream;

use super::nodes::{CENTRAL, agent_of};
use super::{Bringing, SEAL, step};
use crate::dev::children::{Exit, Exits};
use crate::dev::file::State;
use crate::dev::plan::{HostPlan, SitePlan};
use crate::dev::tpm::{port_of, tpm_of};
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
        let agent = self.hosts().find(|(_, host)| exit.name == agent_of(&host.name));
        let without_power = match agent {
            Some((_, host)) => !self.has_power(host).await,
            None => false,
        };
        if exit.failed && !without_power {
            return Err(unexpected(exit));
        }
        step("restart", format_args!("{} ended ({}); starting it again", exit.name, exit.status));
        set_state(self.file, State::Starting)?;
        self.disturbed.set(true);
        if exit.name == CENTRAL {
            return self.central_again().await;
        }
        if let Some((site, host)) = agent {
            if without_power && self.tpm_now(host)? == self.begun_with(host) {
                // That the TPM has ended is heard next.
                self.without_power.borrow_mut().insert(host.name.clone());
                return Ok(());
            }
            return self.start_agent(site, host);
        }
        match self.hosts().find(|(_, host)| exit.name == tpm_of(&host.name)) {
            Some((site, host)) => self.power_on(site, host).await,
            None => Err(unexpected(exit)),
        }
    }

    /// Whether the TPM that a host's agent was started with is still there.
    async fn has_power(&self, host: &HostPlan) -> bool {
        match self.begun_with(host).and_then(|tcti| port_of(&tcti)) {
            Some(port) => TcpStream::connect(("127.0.0.1", port)).await.is_ok(),
            None => true,
        }
    }

    fn begun_with(&self, host: &HostPlan) -> Option<String> {
        self.begun_with.borrow().get(&host.name).cloned()
    }

    fn tpm_now(&self, host: &HostPlan) -> Result<Option<String>, Failure> {
        Ok(self.file.existing()?.host_mut(&host.name).and_then(|known| known.tcti.clone()))
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
        self.start_tpm(site, host).await?;
        let waits = self.without_power.borrow_mut().remove(&host.name);
        if waits { self.start_agent(site, host) } else { Ok(()) }
    }
}

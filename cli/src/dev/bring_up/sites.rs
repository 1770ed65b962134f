//! Steps: sites created, hosts joined, and everybody attested and in sync.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tokio::process::Command;

use super::{Bringing, POLL, SYSTEM, exists, step};
use crate::client::{Answer, Client, ClientError};
use crate::dev::children::complete;
use crate::dev::plan::{HostPlan, SitePlan};
use crate::dev::readiness::Readiness;
use crate::failure::Failure;
use crate::files::replace;
use crate::site::{CONFIG, STATE};

/// After so many looks at hosts that are not ready it is said which (about half a minute).
const HINT_LOOKS: u32 = 300;

impl Bringing<'_> {
    pub(super) async fn enrol(&self, site: &SitePlan) -> Result<(), Failure> {
        let central = self.login(SYSTEM).await?;
        let known = central.get(CONFIG).await?;
        if !known.list()?.iter().any(|entry| entry["name"] == site.name.as_str()) {
            let hosts: Vec<Value> = site.hosts.iter().map(|host| json!({"name": host.name})).collect();
            // The maker of software TPMs is nobody's manufacturer, so the one-time tokens have to do.
            let body = json!({"name": site.name, "ek-trust": "token", "learn-reference-values": true, "hosts": hosts});
            exists(central.post(CONFIG, &body).await)?;
            step("site", format_args!("{} created with {} host(s)", site.name, site.hosts.len()));
        }
        let bundle = self.dir.join(&site.name).join("site-bundle.json");
        for host in &site.hosts {
            if !self.joined(site, host) {
                self.join(&central, site, host, &bundle).await?;
                self.start_agent(site, host)?;
            }
        }
        // Its tokens are used up.
        let _ = fs::remove_file(&bundle);
        let ca = self.host_dir(site, &site.hosts[0]).join("data/api-ca.crt");
        let bytes = fs::read(&ca).map_err(Failure::file(&ca))?;
        replace(&self.dir.join(&site.name).join("api-ca.crt"), &bytes, 0o644)
    }

    async fn join(&self, central: &Client, site: &SitePlan, host: &HostPlan, bundle: &Path) -> Result<(), Failure> {
        // A bundle that an earlier run left behind still serves: central takes the same request again.
        if !bundle.exists() {
            let body = central.order(&format!("{STATE}/{}/site-bundle", site.name)).await?.body;
            replace(bundle, body.to_string().as_bytes(), 0o600)?;
        }
        let host_dir = self.host_dir(site, host);
        let mut command = Command::new(&self.agent);
        command.arg("join").arg("--config").arg(host_dir.join("agent.toml"));
        command.arg("--bundle").arg(bundle).args(["--host", &host.name]);
        complete(&format!("joining {}", host.name), command, &host_dir.join("log")).await?;
        step("enrolment", format_args!("{}  joined", host.name));
        Ok(())
    }

    /// Until every host that is not cut off is unsealed, trusted and in sync.
    pub(super) async fn until_ready(&self) -> Result<(), Failure> {
        let mut session = None;
        let mut readiness = Readiness::new(self.hosts().map(|(_, host)| host.name.clone()));
        let mut looks = 0u32;
        loop {
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(HINT_LOOKS) {
                step("waiting", readiness.missing());
            }
            match self.look(&mut session).await {
                Ok(answer) => {
                    for (name, what) in readiness.seen(answer.list()?) {
                        step(name, what);
                    }
                    self.note_agent_ids(&readiness)?;
                    if readiness.ready() {
                        return Ok(());
                    }
                }
                Err(_) if self.sealed().await == Some(true) => self.wait_for_unseal().await?,
                Err(Failure::Client(error)) if may_pass(&error) => session = None,
                Err(failure) => return Err(failure),
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn look(&self, session: &mut Option<Client>) -> Result<Answer, Failure> {
        if session.is_none() {
            *session = Some(self.login(SYSTEM).await?);
        }
        let central = session.as_ref().expect("it was just made");
        Ok(central.get(STATE).await?)
    }

    fn note_agent_ids(&self, readiness: &Readiness) -> Result<(), Failure> {
        let doc = self.file.existing()?;
        let known = |name: &str| {
            doc.sites.iter().flat_map(|site| &site.hosts).any(|host| host.name == name && host.agent_id.is_some())
        };
        for (name, id) in readiness.agent_ids().filter(|(name, _)| !known(name)) {
            self.file.update(|doc| {
                if let Some(host) = doc.host_mut(name) {
                    host.agent_id = Some(id.to_owned());
                }
            })?;
        }
        Ok(())
    }
}

/// Whether it is worth asking again: the token ran out, or central is being started again. If it stays away, that is
/// seen elsewhere.
fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Refused { status, .. } => *status == 401 || *status == 503,
        ClientError::Unreachable { .. } | ClientError::Handshake { .. } | ClientError::Broken { .. } => true,
        ClientError::Url { .. } | ClientError::Credentials { .. } | ClientError::Answer { .. } => false,
    }
}

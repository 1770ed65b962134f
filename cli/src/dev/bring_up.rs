//! The steps from nothing to `ready`, each printed as it happens; every one of them may have been done by an earlier
//! run on the same folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use super::children::{Group, complete};
use super::file::{DevFile, State};
use super::plan::{HostPlan, Plan, SitePlan};
use super::readiness::Readiness;
use super::tpm::SoftTpm;
use super::{Args, admin, guide, set_state, settings};
use crate::client::{Client, ClientError, Identity, Trust, spki_sha256};
use crate::failure::Failure;
use crate::files::{private_folder, replace};
use crate::operator::shares_of;
use crate::programs::{CENTRAL, SITE_AGENT, beside};
use crate::site::{CONFIG, STATE};
use crate::text::say;

/// Between two looks at a node that is coming up.
const POLL: Duration = Duration::from_millis(100);
/// Between two looks at a deployment that is up.
const WATCH: Duration = Duration::from_secs(1);
/// How long central may take until it answers at all.
const CENTRAL_TIMEOUT: Duration = Duration::from_secs(60);
/// The tenant that every central has.
const SYSTEM: &str = "system";
/// The administrator's name, in every tenant of a dev deployment.
const ADMIN: &str = "admin";
/// Where the operations of the seal are.
const SEAL: &str = "/v1/state/strongbox/system";

/// One line of progress.
pub(super) fn step(name: &str, what: impl std::fmt::Display) {
    say(format!("{name:<12} {what}"));
}

/// A deployment being brought up.
pub(super) struct Bringing<'a> {
    dir: &'a Path,
    unseal: bool,
    plan: &'a Plan,
    file: &'a DevFile,
    nodes: &'a Group,
    tpms: &'a Group,
    tenants: BTreeSet<String>,
    central: PathBuf,
    agent: PathBuf,
}

impl<'a> Bringing<'a> {
    /// Makes the administrator's identity and writes central's configuration; starts nothing.
    pub(super) fn new(
        dir: &'a Path,
        args: &Args,
        plan: &'a Plan,
        file: &'a DevFile,
        nodes: &'a Group,
        tpms: &'a Group,
    ) -> Result<Self, Failure> {
        let identity = admin::identity(dir)?;
        let tenants = settings::write_central(dir, plan, &identity, args.config.as_deref())?;
        let (central, agent) = (beside(CENTRAL)?, beside(SITE_AGENT)?);
        Ok(Self { dir, unseal: args.unseal, plan, file, nodes, tpms, tenants, central, agent })
    }

    /// Brings everything up, then follows central's seal state. Ends only by a failure.
    pub(super) async fn up_and_watch(&self) -> Failure {
        match self.up().await {
            Ok(()) => self.watch().await,
            Err(failure) => failure,
        }
    }

    async fn up(&self) -> Result<(), Failure> {
        self.start_tpms().await?;
        self.start_central().await?;
        for (site, host) in self.hosts() {
            if self.joined(site, host) {
                self.start_agent(site, host)?;
            }
        }
        self.open_seal().await?;
        self.fetch_ca().await?;
        self.set_up_tenants().await?;
        for site in &self.plan.sites {
            self.enrol(site).await?;
        }
        self.until_ready().await?;
        set_state(self.file, State::Ready)?;
        say(guide::text(self.dir, &self.file.existing()?));
        Ok(())
    }

    fn hosts(&self) -> impl Iterator<Item = (&'a SitePlan, &'a HostPlan)> {
        self.plan.sites.iter().flat_map(|site| site.hosts.iter().map(move |host| (site, host)))
    }

    fn host_dir(&self, site: &SitePlan, host: &HostPlan) -> PathBuf {
        self.dir.join(&site.name).join(&host.name)
    }

    /// Join ends with this file.
    fn joined(&self, site: &SitePlan, host: &HostPlan) -> bool {
        self.host_dir(site, host).join("data/api-ca.crt").exists()
    }

    // Processes.

    async fn start_tpms(&self) -> Result<(), Failure> {
        for (site, host) in self.hosts() {
            let host_dir = self.host_dir(site, host);
            private_folder(&host_dir)?;
            let tpm = SoftTpm::new(self.dir, &host_dir, &host.name);
            let made = tpm.make().await?;
            let tcti = tpm.start(self.tpms).await?;
            settings::write_agent(&host_dir, self.plan, host, &tcti)?;
            step("tpm", format_args!("{}  {}, {tcti}", host.name, if made { "made" } else { "started" }));
            self.file.update(|doc| {
                if let Some(known) = doc.host_mut(&host.name) {
                    known.tcti = Some(tcti);
                }
            })?;
        }
        Ok(())
    }

    async fn start_central(&self) -> Result<(), Failure> {
        let folder = self.dir.join("central");
        let log = folder.join("log");
        let mut command = Command::new(&self.central);
        command.args(["serve", "--die-with-parent", "--config"]).arg(folder.join("central.toml"));
        let pid = self.nodes.spawn("central", command, &log)?;
        self.file.update(|doc| doc.central.pid = Some(pid))?;
        let last = std::cell::RefCell::new(String::new());
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

    fn start_agent(&self, site: &SitePlan, host: &HostPlan) -> Result<(), Failure> {
        let host_dir = self.host_dir(site, host);
        let mut command = Command::new(&self.agent);
        command.args(["serve", "--die-with-parent", "--config"]).arg(host_dir.join("agent.toml"));
        let pid = self.nodes.spawn(&format!("the agent of {}", host.name), command, &host_dir.join("log"))?;
        self.file.update(|doc| {
            if let Some(known) = doc.host_mut(&host.name) {
                known.pid = Some(pid);
            }
        })
    }

    // Talking to central.

    /// Without a deployment root yet, central is known by the key it wrote into its own folder.
    fn client(&self) -> Result<Client, Failure> {
        let ca_file = self.dir.join("ca.crt");
        let trust = match ca_file.exists() {
            true => Trust::CaFile(ca_file),
            false => Trust::Pin(spki_sha256(&self.dir.join("central/data/rest.crt"))?),
        };
        let identity = Identity { cert: self.dir.join("admin.crt"), key: self.dir.join("admin.key") };
        Ok(Client::new(&format!("https://127.0.0.1:{}", self.plan.rest), &trust, Some(&identity))?)
    }

    fn root(&self) -> Result<Client, Failure> {
        let token = self.file.existing()?.central.root_token;
        Ok(self.client()?.with_token(token.ok_or_else(|| Failure::unfit("dev.json holds no root token"))?))
    }

    async fn login(&self, tenant: &str) -> Result<Client, Failure> {
        let password = self.file.existing()?.central.password;
        let client = self.client()?;
        let body = json!({"username": ADMIN, "password": password, "tenant": tenant});
        let token = client.post("/v1/login", &body).await?.text("token")?;
        Ok(client.with_token(token))
    }

    // The seal.

    async fn open_seal(&self) -> Result<(), Failure> {
        let path = format!("{SEAL}/seal-status");
        let status = self.client()?.get(&path).await?;
        let fresh = !status.flag("initialized")? || self.file.existing()?.central.sealkey.is_none();
        if fresh {
            self.initialise().await?;
        }
        if !self.client()?.get(&path).await?.flag("sealed")? {
            return Ok(());
        }
        if fresh || self.unseal {
            let sealkey = self.file.existing()?.central.sealkey;
            self.client()?.post(&format!("{SEAL}/unseal"), &json!({"sealkey": sealkey})).await?;
            step("unseal", "central unsealed");
            return Ok(());
        }
        self.wait_for_unseal().await
    }

    /// Until its results were used it may be repeated, so a run that died in between does no harm.
    async fn initialise(&self) -> Result<(), Failure> {
        let ca_file = self.dir.join("ca.crt");
        if ca_file.exists() {
            fs::remove_file(&ca_file).map_err(Failure::file(&ca_file))?;
        }
        let revealed = self.client()?.order(&format!("{SEAL}/reveal-sealkey")).await?;
        let (sealkey, token) = (revealed.text("sealkey")?, revealed.text("token")?);
        let password = admin::password()?;
        self.file.update(|doc| {
            doc.central.sealkey = Some(sealkey);
            doc.central.root_token = Some(token);
            doc.central.shares = shares_of(&revealed);
            doc.central.password = Some(password);
        })?;
        step("init", "central initialised; seal key, shares and root token are in dev.json");
        Ok(())
    }

    async fn wait_for_unseal(&self) -> Result<(), Failure> {
        set_state(self.file, State::Sealed)?;
        step("sealed", format_args!("central waits: holdfast operator unseal --dir {}", self.dir.display()));
        while self.sealed().await != Some(false) {
            tokio::time::sleep(POLL).await;
        }
        step("unseal", "central unsealed");
        set_state(self.file, State::Starting)
    }

    /// `None` while central does not answer; if it died, its exit is seen elsewhere.
    async fn sealed(&self) -> Option<bool> {
        self.client().ok()?.get(&format!("{SEAL}/seal-status")).await.ok()?.flag("sealed").ok()
    }

    async fn fetch_ca(&self) -> Result<(), Failure> {
        let ca_file = self.dir.join("ca.crt");
        if ca_file.exists() {
            return Ok(());
        }
        let ca = self.client()?.get("/v1/state/system/ca").await?.text("ca")?;
        replace(&ca_file, ca.as_bytes(), 0o644)
    }

    // Tenants.

    async fn set_up_tenants(&self) -> Result<(), Failure> {
        let known = self.file.existing()?.central.username.is_some();
        self.set_up(SYSTEM, !known).await?;
        self.file.update(|doc| {
            doc.central.tenant = Some(SYSTEM.to_owned());
            doc.central.username = Some(ADMIN.to_owned());
        })?;
        for tenant in self.tenants.iter().filter(|tenant| *tenant != SYSTEM) {
            let created = self.root()?.post("/v1/config/tenants", &json!({"name": tenant})).await;
            self.set_up(tenant, !exists(created)?).await?;
        }
        Ok(())
    }

    async fn set_up(&self, tenant: &str, new: bool) -> Result<(), Failure> {
        if !new && self.login(tenant).await.is_ok() {
            return Ok(());
        }
        let password = self.file.existing()?.central.password;
        let body = json!({"name": tenant, "admin-username": ADMIN, "admin-password": password});
        if let Err(error) = self.root()?.post(&format!("{SEAL}/setup-tenant"), &body).await {
            // An earlier run may have got this far and died before it wrote it down.
            self.login(tenant).await.map_err(|_| error)?;
        }
        step("tenant", format_args!("{tenant} set up, administrator {ADMIN}"));
        Ok(())
    }

    // Sites and hosts.

    async fn enrol(&self, site: &SitePlan) -> Result<(), Failure> {
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

    // Readiness.

    /// Until every host that is not cut off is unsealed, trusted and in sync.
    async fn until_ready(&self) -> Result<(), Failure> {
        let mut central = self.login(SYSTEM).await?;
        let mut readiness = Readiness::new(self.hosts().map(|(_, host)| host.name.clone()));
        loop {
            match central.get(STATE).await {
                Ok(answer) => {
                    for (name, what) in readiness.seen(answer.list()?) {
                        step(name, what);
                    }
                    self.note_agent_ids(&readiness)?;
                    if readiness.ready() {
                        return Ok(());
                    }
                }
                // The token ran out, or central was sealed in the meantime.
                Err(_) if self.sealed().await == Some(true) => self.wait_for_unseal().await?,
                Err(ClientError::Refused { status, .. }) if status == 401 => central = self.login(SYSTEM).await?,
                Err(ClientError::Refused { status, .. }) if status == 503 => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(POLL).await;
        }
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

    async fn watch(&self) -> Failure {
        loop {
            tokio::time::sleep(WATCH).await;
            if self.sealed().await == Some(true)
                && let Err(failure) = self.unsealed_again().await
            {
                return failure;
            }
        }
    }

    async fn unsealed_again(&self) -> Result<(), Failure> {
        self.wait_for_unseal().await?;
        self.until_ready().await?;
        step("ready", "all hosts are attested and in sync");
        set_state(self.file, State::Ready)
    }
}

/// Whether a thing was there already when it was to be created.
fn exists(created: Result<crate::client::Answer, ClientError>) -> Result<bool, Failure> {
    match created {
        Ok(_) => Ok(false),
        Err(error) if error.status().is_some_and(|status| status == 409) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

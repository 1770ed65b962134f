//! The steps from nothing to `ready`, each printed as it happens; every one of them may have been done by an earlier
//! run on the same folder.

mod nodes;
mod revive;
mod seal;
mod sites;
mod tenants;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::children::Group;
use super::file::{DevFile, State};
use super::plan::{HostPlan, Plan, SitePlan};
use super::{Args, admin, guide, set_state, settings};
use crate::client::{Answer, Client, ClientError, Identity, Trust, spki_sha256};
use crate::failure::Failure;
use crate::programs::{CENTRAL, SITE_AGENT, beside};
use crate::text::say;

/// Between two looks at a node that is coming up.
const POLL: Duration = Duration::from_millis(100);
/// Between two looks at a deployment that is up.
const WATCH: Duration = Duration::from_secs(1);
/// The tenant that every central has.
const SYSTEM: &str = "system";
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
    /// Where agents dial.
    dial: String,
    /// How they write their logs.
    log: Option<toml::Value>,
    /// Whether something was started again since all was ready.
    disturbed: Cell<bool>,
    /// The TPM that each host's agent was started with.
    begun_with: RefCell<BTreeMap<String, String>>,
    /// Hosts whose agents are started when their TPMs are.
    without_power: RefCell<BTreeSet<String>>,
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
        let added = settings::write_central(dir, plan, &identity, args.config.as_deref())?;
        let dial = added.advertise.unwrap_or_else(|| format!("127.0.0.1:{}", plan.quic));
        let (central, agent) = (beside(CENTRAL)?, beside(SITE_AGENT)?);
        let (unseal, tenants, log, disturbed) = (args.unseal, added.tenants, added.log, Cell::new(false));
        Ok(Self {
            dir,
            unseal,
            plan,
            file,
            nodes,
            tpms,
            tenants,
            dial,
            log,
            disturbed,
            begun_with: RefCell::default(),
            without_power: RefCell::default(),
            central,
            agent,
        })
    }

    /// Brings everything up, then follows central's seal state. Ends only by a failure.
    pub(super) async fn up_and_watch(&self) -> Failure {
        match self.up().await {
            Ok(()) => self.watch().await,
            Err(failure) => failure,
        }
    }

    async fn up(&self) -> Result<(), Failure> {
        self.plan.wait_for_ports().await?;
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

    async fn watch(&self) -> Failure {
        loop {
            tokio::time::sleep(WATCH).await;
            let again = match self.sealed().await {
                Some(true) => self.unsealed_again().await,
                _ if self.disturbed.get() => self.ready_again().await,
                _ => Ok(()),
            };
            if let Err(failure) = again {
                return failure;
            }
        }
    }

    async fn unsealed_again(&self) -> Result<(), Failure> {
        self.wait_for_unseal().await?;
        self.ready_again().await
    }

    async fn ready_again(&self) -> Result<(), Failure> {
        loop {
            self.disturbed.set(false);
            self.until_ready().await?;
            if !self.disturbed.get() {
                break;
            }
        }
        step("ready", "all hosts are attested and in sync");
        set_state(self.file, State::Ready)
    }
}

/// Whether a thing was there already when it was to be created.
fn exists(created: Result<Answer, ClientError>) -> Result<bool, Failure> {
    match created {
        Ok(_) => Ok(false),
        Err(error) if error.status().is_some_and(|status| status == 409) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

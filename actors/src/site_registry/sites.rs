//! Sites and hosts as operators see them: making them, inviting hosts, and showing how things stand.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_protocol::crypto::hash::{hkdf, sha256};
use holdfast_protocol::ids::{
    DistEpoch, HostId, HostName, PolicyVersion, Realm, SealEpoch, SiteName, StandingGeneration,
};
use holdfast_protocol::pki::{Authority, pem};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::site_bundle::{Format, Invited, JoinToken, SiteBundle};

use crate::attestation_verifier::appraisal::{Policy, ReferenceValues};
use crate::audit_log::Line;
use crate::ports::Now;
use crate::rows::{Batch, ReadRows, Refusal, Rows};
use crate::shamir::ValidThreshold;
use crate::site_registry::authorities::{FreshKey, Loaded, path, root_certificate};
use crate::site_registry::certificates::SiteCertificates;
use crate::site_registry::rotations::Cause;
use crate::site_registry::sites::removal::departed;
use crate::site_registry::{
    EkTrust, Held, Host, HostState, Invitation, SealKeyRecord, Site, Standing, deployment, hosts, site,
};

pub mod policy;
pub mod removal;
pub mod state;

/// Hosts of one site: few enough that one transaction can touch them all.
pub const HOSTS_PER_SITE_MAX: usize = 80;
/// How long a one-time token may be used, unless told otherwise.
pub const TOKEN_VALID_S: i64 = 7 * 86_400;
/// The longest that may be told.
pub const TOKEN_VALID_S_MAX: i64 = 90 * 86_400;
/// Interval between quotes, unless told otherwise.
pub const QUOTE_INTERVAL_MS: u64 = 60_000;
/// Bounds of the interval.
const QUOTE_INTERVAL_MS_BOUNDS: std::ops::RangeInclusive<u64> = 500..=86_400_000;
/// A verdict outlasts a slow answer.
const VERDICT_TTL_MS_MIN: u64 = 10_000;
/// What is quoted unless told otherwise: firmware, its settings, boot loader and secure boot state. The operating
/// system's own registers are left out, for they change while it runs (10 with every file that IMA measures).
const PCRS: std::ops::RangeInclusive<u8> = 0..=7;

/// How a site's hosts are to be appraised; what is `None` has the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Appraisal {
    /// Registers of the SHA-256 bank.
    pub pcrs: Option<BTreeSet<u8>>,
    /// Milliseconds between quotes.
    pub interval_ms: Option<u64>,
    /// Whether registers without reference values take them from a host's first pass.
    pub learn: bool,
    /// Whether a failed appraisal is a quarantine at once.
    pub quarantine_on_failure: bool,
}

impl Appraisal {
    /// The policy of this version. A verdict lasts two intervals and a half, so that one lost quote costs no trust,
    /// and a silent host is stale before the third.
    ///
    /// # Errors
    /// [`Refusal::Invalid`]: no register, one that does not exist, or an interval out of bounds.
    pub fn policy(&self, version: PolicyVersion) -> Result<Policy, Refusal> {
        let interval_ms = self.interval_ms.unwrap_or(QUOTE_INTERVAL_MS);
        if !QUOTE_INTERVAL_MS_BOUNDS.contains(&interval_ms) {
            let (least, most) = (QUOTE_INTERVAL_MS_BOUNDS.start(), QUOTE_INTERVAL_MS_BOUNDS.end());
            return Err(Refusal::Invalid(format!("the interval between quotes is {least} to {most} ms")));
        }
        let policy = Policy {
            version,
            pcrs: self.pcrs.clone().unwrap_or_else(|| PCRS.collect()),
            interval_ms,
            verdict_ttl_ms: (interval_ms * 5 / 2).max(VERDICT_TTL_MS_MIN),
            quarantine_on_failure: self.quarantine_on_failure,
            learn: self.learn,
        };
        policy.check().map_err(|error| Refusal::Invalid(error.to_string()))?;
        Ok(policy)
    }
}

/// A host to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewHost {
    /// Its name, free at its site.
    pub name: HostName,
    /// SHA-256 of its endorsement key's TPMT_PUBLIC, where known.
    pub ek_sha256: Option<[u8; 32]>,
    /// Fresh UUID.
    pub agent_id: String,
}

/// Makes a site.
#[derive(Debug)]
pub struct CreateSite {
    /// Its name.
    pub name: SiteName,
    /// What vouches for its hosts' TPMs.
    pub ek_trust: EkTrust,
    /// How its hosts are appraised.
    pub appraisal: Appraisal,
    /// Values given for all its hosts.
    pub reference: ReferenceValues,
    /// Whether its hosts may unseal with nothing but each other.
    pub allow_local_unseal: bool,
    /// Its hosts.
    pub hosts: Vec<NewHost>,
    /// Fresh: the first seal key.
    pub seal_key: Secret<32>,
    /// Fresh: what its first distribution keys come from.
    pub dist_seed: Secret<32>,
    /// Fresh: the site's api authority.
    pub api: FreshKey,
    /// Fresh: the site's dist authority.
    pub dist: FreshKey,
    /// Who asks, for the audit log.
    pub by: String,
}

/// Makes a site with its authorities, seal key and hosts.
///
/// # Errors
/// [`Refusal::Exists`]; [`Refusal::Invalid`] says what is wrong with hosts or appraisal.
pub fn create_site(cmd: &CreateSite, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    if rows.read::<Site>(Realm::NODE, &[cmd.name.as_str()])?.is_some() {
        return Err(Refusal::Exists("site"));
    }
    check_hosts(&cmd.hosts, cmd.ek_trust, 0)?;
    let mut reference = cmd.reference.clone();
    reference.0.retain(|_, values| !values.is_empty());
    let site = Site {
        ek_trust: cmd.ek_trust,
        policy: cmd.appraisal.policy(PolicyVersion(1))?,
        reference,
        seal_epoch: SealEpoch(1),
        seal_keys: vec![SealKeyRecord { epoch: SealEpoch(1), key: cmd.seal_key.duplicate() }],
        dist_epoch: DistEpoch(1),
        dist_seed: cmd.dist_seed.duplicate(),
        standing: Standing::default(),
        created_us: now.wall_us,
        certificates: SiteCertificates::default(),
        earlier: None,
        allow_local_unseal: cmd.allow_local_unseal,
        approved_since_us: now.wall_us,
    };
    let mut batch = Batch::new(Realm::NODE, Line::done(now.wall_us, &cmd.by, "site.create", cmd.object()));
    batch.put(Realm::NODE, &[cmd.name.as_str()], &site);
    let root = Loaded::read(rows, Authority::Root)?;
    let authorities =
        [(Authority::SiteApi(cmd.name.clone()), &cmd.api), (Authority::SiteDist(cmd.name.clone()), &cmd.dist)];
    for (authority, fresh) in &authorities {
        batch.put(Realm::NODE, &path(authority), &root.new_authority(authority, fresh, now)?);
    }
    put_hosts(&mut batch, &cmd.name, &cmd.hosts, rows)?;
    Ok((batch, ()))
}

impl CreateSite {
    fn object(&self) -> String {
        named(&self.name, self.hosts.iter().map(|host| &host.name))
    }
}

/// Adds hosts to a site.
#[derive(Debug)]
pub struct AddHosts {
    /// The site.
    pub site: SiteName,
    /// The hosts.
    pub hosts: Vec<NewHost>,
    /// 32 fresh random bytes for the next epochs.
    pub seed: Secret<32>,
    /// Who asks, for the audit log.
    pub by: String,
}

/// Adds hosts to a site; says whether it has moved on to another seal key. It does where more of its hosts' shares are
/// needed then than before: those that were given already are of a split that fewer open.
///
/// # Errors
/// [`Refusal::NotFound`]; [`Refusal::Exists`]: one of them; [`Refusal::Invalid`] says what is wrong with them.
pub fn add_hosts(cmd: &AddHosts, rows: &dyn Rows, now: Now) -> Result<(Batch, bool), Refusal> {
    let mut site = site(rows, &cmd.site)?.value;
    let existing = hosts(rows, &cmd.site)?;
    check_hosts(&cmd.hosts, site.ek_trust, existing.len())?;
    if cmd.hosts.is_empty() {
        return Err(Refusal::Invalid("no host is named".to_owned()));
    }
    if cmd.hosts.iter().any(|host| existing.contains_key(&host.name)) {
        return Err(Refusal::Exists("host"));
    }
    let object = named(&cmd.site, cmd.hosts.iter().map(|host| &host.name));
    let mut batch = Batch::new(Realm::NODE, Line::done(now.wall_us, &cmd.by, "site.add-hosts", object));
    put_hosts(&mut batch, &cmd.site, &cmd.hosts, rows)?;
    let is_split = site.allow_local_unseal && existing.values().any(|host| host.identity.is_some());
    let rekeyed = is_split && threshold(existing.len()) != threshold(existing.len() + cmd.hosts.len());
    if rekeyed {
        policy::rekey(&mut site, &cmd.site, (Cause::Grown, &cmd.seed), &mut batch, rows, now)?;
        batch.put(Realm::NODE, &[cmd.site.as_str()], &site);
    }
    Ok((batch, rekeyed))
}

/// Shares that open a site of so many hosts.
fn threshold(hosts: usize) -> Option<u8> {
    Some(u8::try_from(hosts).ok().and_then(ValidThreshold::majority)?.threshold())
}

fn check_hosts(new: &[NewHost], ek_trust: EkTrust, existing: usize) -> Result<(), Refusal> {
    if HOSTS_PER_SITE_MAX < new.len() + existing {
        return Err(Refusal::Invalid(format!("a site has at most {HOSTS_PER_SITE_MAX} hosts")));
    }
    let names: BTreeSet<&HostName> = new.iter().map(|host| &host.name).collect();
    if names.len() < new.len() {
        return Err(Refusal::Invalid("a host is named twice".to_owned()));
    }
    match new.iter().find(|host| ek_trust == EkTrust::Pinned && host.ek_sha256.is_none()) {
        Some(host) => Err(Refusal::Invalid(format!("ek-trust is pinned, so {} needs its ek-sha256", host.name))),
        None => Ok(()),
    }
}

fn put_hosts(batch: &mut Batch, site: &SiteName, hosts: &[NewHost], rows: &dyn Rows) -> Result<(), Refusal> {
    // No host of an earlier site of this name is taken for one of this.
    let generation = departed(rows, site)?.map(|gone| gone.generation.next()).unwrap_or_default();
    for new in hosts {
        let host = Host {
            agent_id: new.agent_id.clone(),
            state: HostState::Invited,
            ek_sha256: new.ek_sha256,
            invitation: None,
            identity: None,
            generation,
            standing: Standing::default(),
            counters: None,
            reference: ReferenceValues::default(),
            continuity: None,
            seal_epoch: None,
            wiped: StandingGeneration::default(),
            last_seen_us: 0,
        };
        batch.put(Realm::NODE, &[site.as_str(), new.name.as_str()], &host);
    }
    Ok(())
}

/// Site and hosts in one line of the audit log.
fn named<'a>(site: &SiteName, hosts: impl Iterator<Item = &'a HostName>) -> String {
    hosts.fold(site.to_string(), |text, host| format!("{text} {host}"))
}

/// Hands out the site bundle.
#[derive(Debug)]
pub struct Invite {
    /// The site.
    pub site: SiteName,
    /// Fresh: the tokens come from it.
    pub seed: Secret<32>,
    /// How long the tokens may be used.
    pub valid_s: i64,
    /// Where central's QUIC listener is, `host:port`.
    pub central: Vec<String>,
    /// Who asks, for the audit log.
    pub by: String,
}

/// Makes a one-time token for each host that has not joined and has none that may still be used; only hashes stay.
/// So a bundle is given once: whoever finds it taken knows that somebody else has it, and [`reallow`] permits one more.
///
/// # Errors
/// [`Refusal::NotFound`]; [`Refusal::Conflict`]: no host may be given one; [`Refusal::Invalid`]: a validity out of bounds.
pub fn invite(cmd: &Invite, rows: &dyn Rows, now: Now) -> Result<(Batch, SiteBundle), Refusal> {
    if !(1..=TOKEN_VALID_S_MAX).contains(&cmd.valid_s) {
        return Err(Refusal::Invalid(format!("a token may be used for 1 to {TOKEN_VALID_S_MAX} seconds")));
    }
    let site = site(rows, &cmd.site)?.value;
    let expires_s = now.wall_s() + cmd.valid_s;
    let all = hosts(rows, &cmd.site)?;
    let open: Vec<(&HostName, &Host)> =
        all.iter().filter(|(_, host)| may_be_invited(host, now) && !host.is_cut_off(&site)).collect();
    if open.is_empty() {
        return Err(Refusal::Conflict(why_nobody(&site, &all).to_owned()));
    }
    let object = named(&cmd.site, open.iter().map(|(name, _)| *name));
    let mut batch = Batch::new(Realm::NODE, Line::done(now.wall_us, &cmd.by, "site.bundle", object));
    let mut invited = Vec::with_capacity(open.len());
    for (name, host) in open {
        let token = hkdf(cmd.seed.expose(), "holdfast/join-token/v1", name.as_str().as_bytes());
        let invitation = Invitation { token_hash: token_hash(token.expose()), expires_s, used: None };
        let row = Host { invitation: Some(invitation), ..host.clone() };
        batch.put(Realm::NODE, &[cmd.site.as_str(), name.as_str()], &row);
        invited.push(Invited {
            name: name.clone(),
            token: JoinToken(token),
            expires: state::rfc3339(expires_s * 1_000_000),
            ek_sha256: host.ek_sha256.map(hex::encode),
        });
    }
    let bundle = SiteBundle {
        format: Format::V1,
        deployment: deployment(rows)?.id,
        central: cmd.central.clone(),
        root_ca: pem::certificates(&[root_certificate(rows)?]),
        site: cmd.site.clone(),
        hosts: invited,
    };
    Ok((batch, bundle))
}

fn may_be_invited(host: &Host, now: Now) -> bool {
    host.identity.is_none() && host.invitation.as_ref().is_none_or(|open| open.expires_s <= now.wall_s())
}

fn why_nobody(site: &Site, hosts: &BTreeMap<HostName, Host>) -> &'static str {
    if site.standing.held == Held::Quarantined {
        "the site is quarantined"
    } else if hosts.values().all(|host| host.identity.is_some()) {
        "no host is left to join"
    } else {
        "the bundle has been taken: reallow-site-unwrap permits one more"
    }
}

/// How a one-time token is stored.
pub(super) fn token_hash(token: &[u8; 32]) -> [u8; 32] {
    sha256(&[token])
}

/// Permits one more bundle.
#[derive(Debug)]
pub struct Reallow {
    /// The site.
    pub site: SiteName,
    /// Only this host; `None`: all that have not joined.
    pub host: Option<HostName>,
    /// Who asks, for the audit log.
    pub by: String,
}

/// Makes the open tokens of hosts that have not joined worthless, so that [`invite`] gives them new ones.
///
/// # Errors
/// [`Refusal::NotFound`]; [`Refusal::Conflict`]: all of them have joined.
pub fn reallow(cmd: &Reallow, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    site(rows, &cmd.site)?;
    let mut all = hosts(rows, &cmd.site)?;
    if let Some(only) = &cmd.host {
        let host = all.remove(only).ok_or(Refusal::NotFound("host"))?;
        all = BTreeMap::from([(only.clone(), host)]);
    }
    all.retain(|_, host| host.identity.is_none());
    if all.is_empty() {
        return Err(Refusal::Conflict("no host is left to join".to_owned()));
    }
    let line = Line::done(now.wall_us, &cmd.by, "site.reallow-unwrap", named(&cmd.site, all.keys()));
    let mut batch = Batch::new(Realm::NODE, line);
    for (name, host) in all {
        batch.put(Realm::NODE, &[cmd.site.as_str(), name.as_str()], &Host { invitation: None, ..host });
    }
    Ok((batch, ()))
}

/// All sites by name.
///
/// # Errors
/// The store's fault.
pub fn site_names(rows: &dyn Rows) -> Result<Vec<SiteName>, Refusal> {
    let names = rows.list::<Site>(Realm::NODE, &[])?;
    names.iter().map(|row| row.name().parse().map_err(|_| Refusal::Corrupt)).collect()
}

/// The host an agent's UUID belongs to.
///
/// # Errors
/// [`Refusal::NotFound`], or the store's fault.
pub fn host_of_agent(rows: &dyn Rows, agent_id: &str) -> Result<HostId, Refusal> {
    for row in rows.list::<Host>(Realm::NODE, &[])? {
        if row.value.agent_id == agent_id
            && let [site, host] = row.path.as_slice()
        {
            let (Ok(site), Ok(host)) = (site.parse(), host.parse()) else { return Err(Refusal::Corrupt) };
            return Ok(HostId { site, host });
        }
    }
    Err(Refusal::NotFound("agent"))
}

#[cfg(test)]
mod tests;

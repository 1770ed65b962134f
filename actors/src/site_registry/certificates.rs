//! The certificates of a site's hosts: which there are, which are to be replaced, and how each host gets its next one.
//!
//! ```text
//! operator: rotate ------> the site's certificates for a use are of the next generation, under a new authority or not
//! host connected: issue -> its record has the next certificate beside the one it holds, and it is sent that; again at
//!                          each later pass, until it is taken
//! host: stored ----------> it is on disk there: the host comes with either
//! host: confirm ---------> the host shows it: from here on the earlier one is of no use
//! last host of a site:     earlier authorities are dropped
//! ```
//! A host holds the one in its record or the one after it, never a third: no further one is issued before the last was
//! taken. So whichever of the two ends crashes between any two steps, the host comes back with a certificate that is
//! known, and the step is done again. Its keys, which never leave its TPM unsealed, stay the same; what is certified is
//! what was recorded when it enrolled.
//!
//! The same steps renew certificates by themselves, once two thirds of their time are over.
//!
//! **Authorities.** The seed of an authority that is replaced is gone with the commit that replaces it; only its
//! certificate is kept, for as long as a host in good standing may hold a certificate that it issued. A host that comes
//! later than that is not let in, and enrols again by activation, as one whose certificate has expired.

use holdfast_protocol::crypto::hash::ct_eq;
use holdfast_protocol::crypto::sign::PublicKey;
use holdfast_protocol::ids::{CertificateGeneration, CertificateNumber, HostGeneration, HostId, Realm, SiteName};
use holdfast_protocol::pki::{Authority, Leaf, read};
use holdfast_protocol::wire::CertificateUse;
use serde::{Deserialize, Serialize};

use crate::audit_log::Line;
use crate::ports::Now;
use crate::rows::{Batch, Refusal, Rows};
use crate::site_registry::authorities::{FreshKey, Loaded, path};
use crate::site_registry::enrolment::Serials;
use crate::site_registry::restored::refuse_while_stopped;
use crate::site_registry::standing::put;
use crate::site_registry::{Host, Identity, Site, authority, host, hosts, site};

/// Earlier authorities of one use that a site may have: so often can one be replaced while a host is away.
pub const EARLIER_MAX: usize = 8;
/// Both, in the order in which a host is given them: taking the second ends its session.
const USES: [CertificateUse; 2] = [CertificateUse::Api, CertificateUse::Dist];

/// A site's certificates for one use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// Which generation is given now; certificates of an earlier one are to be replaced.
    pub generation: CertificateGeneration,
    /// Authorities before the present one that hosts may hold certificates of, the oldest first.
    pub earlier: Vec<EarlierAuthority>,
}

impl Default for Series {
    fn default() -> Self {
        Self { generation: CertificateGeneration(1), earlier: Vec::new() }
    }
}

/// An authority that issues nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierAuthority {
    /// Its certificate (DER).
    pub certificate: Vec<u8>,
    /// The last generation that it issued.
    pub last: CertificateGeneration,
}

/// All certificates of a site.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteCertificates {
    /// Of REST servers.
    pub api: Series,
    /// Of QUIC clients.
    pub dist: Series,
}

impl SiteCertificates {
    /// Those for one use.
    pub fn of(&self, which: CertificateUse) -> &Series {
        match which {
            CertificateUse::Api => &self.api,
            CertificateUse::Dist => &self.dist,
        }
    }

    fn of_mut(&mut self, which: CertificateUse) -> &mut Series {
        match which {
            CertificateUse::Api => &mut self.api,
            CertificateUse::Dist => &mut self.dist,
        }
    }
}

/// A host's certificate for one use, and the one that it is being given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certified {
    /// The key that both are for.
    pub key: PublicKey,
    /// The one that the host has shown last, or was enrolled with.
    pub held: Issued,
    /// The one after it, until the host shows it.
    pub next: Option<Next>,
}

/// What is known of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// Of which generation of its site's.
    pub generation: CertificateGeneration,
    /// How many the host had been given for this use with this one.
    pub number: CertificateNumber,
    /// What it is known by, see [`read::issued_sha256`].
    pub fingerprint: [u8; 32],
    /// Its first second, since the Unix epoch.
    pub begins_s: i64,
    /// Its last.
    pub ends_s: i64,
}

impl Issued {
    pub(super) fn of(
        leaf: &[u8],
        generation: CertificateGeneration,
        number: CertificateNumber,
    ) -> Result<Self, Refusal> {
        let validity = read::validity(leaf).map_err(|_| Refusal::Corrupt)?;
        let fingerprint = read::issued_sha256(leaf).map_err(|_| Refusal::Corrupt)?;
        let (begins_s, ends_s) = (validity.not_before, validity.not_after);
        Ok(Self { generation, number, fingerprint, begins_s, ends_s })
    }

    /// Whether two thirds of its time are over.
    fn is_aging(&self, now: Now) -> bool {
        let whole = self.ends_s.saturating_sub(self.begins_s);
        self.begins_s.saturating_add(whole / 3 * 2) <= now.wall_s()
    }
}

/// A certificate on its way to its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    /// It.
    pub issued: Issued,
    /// It and its issuer (DER, leaf first).
    pub chain: Vec<Vec<u8>>,
    /// Whether the host has said that it is on its disk.
    pub stored: bool,
}

/// How far a host has come with its newest certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    /// A newer one waits for the host, or is on its way.
    Pending,
    /// A newer one is on the host's disk, and has not been seen in use.
    Installed,
    /// It uses the newest.
    Confirmed,
}

/// What a host is to be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Nothing,
    /// What was issued already, once more.
    Again,
    Another,
}

impl Certified {
    pub(super) fn new(key: PublicKey, held: Issued) -> Self {
        Self { key, held, next: None }
    }

    /// Whether the host may come with this certificate.
    pub fn is(&self, fingerprint: &[u8; 32]) -> bool {
        ct_eq(&self.held.fingerprint, fingerprint) || self.is_next(fingerprint)
    }

    /// Whether it is the one that the host is being given.
    pub fn is_next(&self, fingerprint: &[u8; 32]) -> bool {
        self.next.as_ref().is_some_and(|next| ct_eq(&next.issued.fingerprint, fingerprint))
    }

    /// How many there were.
    pub fn last_number(&self) -> CertificateNumber {
        self.next.as_ref().map_or(self.held.number, |next| next.issued.number)
    }

    /// How far the host has come.
    pub fn progress(&self, series: &Series) -> Progress {
        match &self.next {
            Some(Next { stored: true, .. }) => Progress::Installed,
            Some(Next { stored: false, .. }) => Progress::Pending,
            None if self.held.generation < series.generation => Progress::Pending,
            None => Progress::Confirmed,
        }
    }

    fn wants(&self, series: &Series, now: Now) -> Want {
        match &self.next {
            // One that has expired on its way lets nobody in.
            Some(next) if now.wall_s() <= next.issued.ends_s => Want::Again,
            None if series.generation <= self.held.generation && !self.held.is_aging(now) => Want::Nothing,
            Some(_) | None => Want::Another,
        }
    }
}

impl Identity {
    /// Its certificate for one use.
    pub fn certified(&self, which: CertificateUse) -> &Certified {
        match which {
            CertificateUse::Api => &self.api,
            CertificateUse::Dist => &self.dist,
        }
    }

    fn certified_mut(&mut self, which: CertificateUse) -> &mut Certified {
        match which {
            CertificateUse::Api => &mut self.api,
            CertificateUse::Dist => &mut self.dist,
        }
    }
}

/// What is replaced.
#[derive(Debug)]
pub enum Rotation {
    /// The authority, and so all certificates.
    Authority(FreshKey),
    /// All certificates; the authority stays.
    Certificates,
}

/// Replaces a site's certificates for one use.
#[derive(Debug)]
pub struct Rotate {
    /// The site.
    pub site: SiteName,
    /// For which use.
    pub which: CertificateUse,
    /// What.
    pub rotation: Rotation,
    /// Who asks, for the audit log.
    pub by: String,
}

/// Begins a rotation. While another is under way it is the next one: hosts go on to the newest. Gives how many hosts
/// have yet to confirm.
///
/// # Errors
/// [`Refusal::NotFound`]; [`Refusal::Conflict`]: hosts may still hold certificates of too many earlier authorities.
pub fn rotate(cmd: &Rotate, rows: &dyn Rows, now: Now) -> Result<(Batch, u64), Refusal> {
    refuse_while_stopped(rows)?;
    let mut place = site(rows, &cmd.site)?.value;
    let all = hosts(rows, &cmd.site)?;
    let action = match (&cmd.rotation, cmd.which) {
        (Rotation::Authority(_), CertificateUse::Api) => "site.update-api-ca",
        (Rotation::Authority(_), CertificateUse::Dist) => "site.update-dist-ca",
        (Rotation::Certificates, CertificateUse::Api) => "site.update-api-cert",
        (Rotation::Certificates, CertificateUse::Dist) => "site.update-dist-cert",
    };
    let series = place.certificates.of_mut(cmd.which);
    let object = format!("{} generation {}", cmd.site, series.generation.next());
    let mut batch = Batch::new(Realm::NODE, Line::done(now.wall_us, &cmd.by, action, object));
    if let Rotation::Authority(fresh) = &cmd.rotation {
        if EARLIER_MAX <= series.earlier.len() {
            let why = "hosts that are not quarantined hold certificates of too many earlier authorities";
            return Err(Refusal::Conflict(format!("{why}: quarantine those that will not come back")));
        }
        let which = authority_of(&cmd.site, cmd.which);
        let (certificate, last) = (authority(rows, &path(&which))?.certificate, series.generation);
        series.earlier.push(EarlierAuthority { certificate, last });
        let root = Loaded::read(rows, Authority::Root)?;
        batch.put(Realm::NODE, &path(&which), &root.new_authority(&which, fresh, now)?);
    }
    series.generation = series.generation.next();
    settle(&mut place, &cmd.site, all.values(), &mut batch, now);
    batch.put(Realm::NODE, &[cmd.site.as_str()], &place);
    Ok((batch, left(&place, all.values(), cmd.which)))
}

/// Hosts in good standing that do not use their newest certificate yet.
fn left<'h>(place: &Site, all: impl Iterator<Item = &'h Host>, which: CertificateUse) -> u64 {
    let series = place.certificates.of(which);
    let joined = all.filter(|entry| !entry.is_cut_off(place)).filter_map(|entry| entry.identity.as_ref());
    joined.filter(|identity| identity.certified(which).progress(series) != Progress::Confirmed).count() as u64
}

/// The authority of a site's certificates.
pub(super) fn authority_of(site: &SiteName, which: CertificateUse) -> Authority {
    match which {
        CertificateUse::Api => Authority::SiteApi(site.clone()),
        CertificateUse::Dist => Authority::SiteDist(site.clone()),
    }
}

/// Certificates of the authorities that a site's QUIC clients may be certified by, the present one first.
///
/// # Errors
/// The store's fault.
pub fn dist_authorities(rows: &dyn Rows, name: &SiteName, place: &Site) -> Result<Vec<Vec<u8>>, Refusal> {
    let present = authority(rows, &path(&authority_of(name, CertificateUse::Dist)))?.certificate;
    let earlier = place.certificates.dist.earlier.iter().map(|authority| authority.certificate.clone());
    Ok(std::iter::once(present).chain(earlier).collect())
}

/// Drops earlier authorities that no host in good standing can hold a certificate of, each with a line. `all` are the
/// site's hosts as this transaction leaves them. Gives whether any was dropped.
pub(super) fn settle<'h>(
    place: &mut Site,
    name: &SiteName,
    all: impl Iterator<Item = &'h Host> + Clone,
    batch: &mut Batch,
    now: Now,
) -> bool {
    let mut dropped = false;
    for which in USES {
        let held = |entry: &Host| entry.identity.as_ref().map(|identity| identity.certified(which).held.generation);
        let oldest = all.clone().filter(|entry| !entry.is_cut_off(place)).filter_map(held).min();
        let earlier = &mut place.certificates.of_mut(which).earlier;
        let before = earlier.len();
        earlier.retain(|authority| oldest.is_some_and(|oldest| oldest <= authority.last));
        for _ in earlier.len()..before {
            let object = format!("{name} {}", word(which));
            batch.audit(Realm::NODE, Line::done(now.wall_us, "central", "site.authority-dropped", object));
            dropped = true;
        }
    }
    dropped
}

/// A certificate for a host that is connected and trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Which of its two.
    pub which: CertificateUse,
    /// It and its issuer (DER, leaf first).
    pub chain: Vec<Vec<u8>>,
}

/// Whether [`issue`] has anything to do for a host, or for its site.
///
/// # Errors
/// No such site or host, or the store's fault.
pub fn is_due(id: &HostId, rows: &dyn Rows, now: Now) -> Result<bool, Refusal> {
    let place = site(rows, &id.site)?.value;
    let entry = host(rows, id)?.value;
    let Some(identity) = entry.identity.as_ref().filter(|_| !entry.is_cut_off(&place)) else { return Ok(false) };
    let wanted = |which| identity.certified(which).wants(place.certificates.of(which), now) != Want::Nothing;
    Ok(USES.into_iter().any(wanted) || USES.into_iter().any(|which| !place.certificates.of(which).earlier.is_empty()))
}

/// Gives a host what it is to have.
#[derive(Debug)]
pub struct Issue {
    /// The host.
    pub host: HostId,
    /// Fresh.
    pub serials: Serials,
}

/// Issues what is due to a host that has passed, and gives it along with what was issued before and not yet taken. One
/// that was cut off meanwhile is given nothing.
///
/// # Errors
/// No such site or host, or the store's fault.
pub fn issue(cmd: &Issue, rows: &dyn Rows, now: Now) -> Result<(Batch, Vec<Given>), Refusal> {
    refuse_while_stopped(rows)?;
    let id = &cmd.host;
    let mut place = site(rows, &id.site)?.value;
    let mut entry = host(rows, id)?.value;
    let (generation, is_cut_off) = (entry.generation, entry.is_cut_off(&place));
    let Some(identity) = entry.identity.as_mut().filter(|_| !is_cut_off) else {
        return Ok((Batch::default(), Vec::new()));
    };
    let (mut given, mut made) = (Vec::new(), String::new());
    for which in USES {
        let series = place.certificates.of(which);
        let certified = identity.certified_mut(which);
        if certified.wants(series, now) == Want::Another {
            let chain = chain(cmd, (which, generation), certified, rows, now)?;
            let leaf = chain.first().ok_or(Refusal::Corrupt)?;
            let issued = Issued::of(leaf, series.generation, certified.last_number().next())?;
            made.push_str(&format!(" {} generation {}", word(which), series.generation));
            certified.next = Some(Next { issued, chain, stored: false });
        }
        given.extend(certified.next.as_ref().map(|next| Given { which, chain: next.chain.clone() }));
    }
    let mut batch = Batch::default();
    if !made.is_empty() {
        batch = Batch::new(
            Realm::NODE,
            Line::done(now.wall_us, "central", "host.certificate-issued", format!("{id}{made}")),
        );
        put(&mut batch, id, &entry);
    }
    // A host that held it back may have been cut off since.
    let all = hosts(rows, &id.site)?;
    if settle(&mut place, &id.site, all.values(), &mut batch, now) {
        batch.put(Realm::NODE, &[id.site.as_str()], &place);
    }
    Ok((batch, given))
}

fn chain(
    cmd: &Issue,
    (which, generation): (CertificateUse, HostGeneration),
    certified: &Certified,
    rows: &dyn Rows,
    now: Now,
) -> Result<Vec<Vec<u8>>, Refusal> {
    let (leaf, serial) = match which {
        CertificateUse::Api => (rest_leaf(&cmd.host), cmd.serials.api),
        CertificateUse::Dist => {
            let number = certified.last_number().next();
            (Leaf::HostQuic { host: cmd.host.clone(), generation, number }, cmd.serials.dist)
        }
    };
    Loaded::read(rows, authority_of(&cmd.host.site, which))?.chain(&leaf, &certified.key, serial, now)
}

/// What a host's REST certificate says.
pub(super) fn rest_leaf(host: &HostId) -> Leaf {
    Leaf::HostRest { host: host.clone(), names: Vec::new(), addresses: Vec::new() }
}

fn word(which: CertificateUse) -> &'static str {
    match which {
        CertificateUse::Api => "api",
        CertificateUse::Dist => "dist",
    }
}

/// A host has its next certificate on its disk. Its word about any other changes nothing.
///
/// # Errors
/// No such host, or the store's fault.
pub fn stored(
    id: &HostId,
    which: CertificateUse,
    fingerprint: &[u8; 32],
    rows: &dyn Rows,
) -> Result<(Batch, ()), Refusal> {
    let mut entry = host(rows, id)?.value;
    let certified = entry.identity.as_mut().map(|identity| identity.certified_mut(which));
    let of_next = certified.filter(|certified| certified.is_next(fingerprint)).and_then(|it| it.next.as_mut());
    let Some(next) = of_next.filter(|next| !next.stored) else { return Ok((Batch::default(), ())) };
    next.stored = true;
    let mut batch = Batch::housekeeping();
    put(&mut batch, id, &entry);
    Ok((batch, ()))
}

/// A host shows its next certificate: the one before it is of no use from here on, and earlier authorities go with the
/// last host that held one of theirs.
///
/// # Errors
/// No such site or host, or the store's fault.
pub fn confirm(
    id: &HostId,
    which: CertificateUse,
    fingerprint: &[u8; 32],
    rows: &dyn Rows,
    now: Now,
) -> Result<(Batch, ()), Refusal> {
    let mut entry = host(rows, id)?.value;
    let certified = entry.identity.as_mut().map(|identity| identity.certified_mut(which));
    let Some(certified) = certified.filter(|certified| certified.is_next(fingerprint)) else {
        return Ok((Batch::default(), ()));
    };
    let Some(next) = certified.next.take() else { return Ok((Batch::default(), ())) };
    certified.held = next.issued;
    let object = format!("{id} {} generation {}", word(which), next.issued.generation);
    let line = Line::done(now.wall_us, id.to_string(), "host.certificate-confirmed", object);
    let mut batch = Batch::new(Realm::NODE, line);
    put(&mut batch, id, &entry);
    let mut place = site(rows, &id.site)?.value;
    let mut all = hosts(rows, &id.site)?;
    all.insert(id.host.clone(), entry);
    if settle(&mut place, &id.site, all.values(), &mut batch, now) {
        batch.put(Realm::NODE, &[id.site.as_str()], &place);
    }
    Ok((batch, ()))
}

#[cfg(test)]
mod tests;

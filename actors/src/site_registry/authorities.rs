//! Central's authorities as rows: making them, and what they certify.
//!
//! Keys are stored as seeds behind the barrier; an [`Authority`] is loaded for one certificate and forgotten.

use std::net::IpAddr;

use holdfast_protocol::crypto::hash::hkdf;
use holdfast_protocol::crypto::sign::{PublicKey, SigningKey};
use holdfast_protocol::ids::DeploymentId;
use holdfast_protocol::pki::{Authority, Issuer, Leaf, PkiError, Serial, Terms, Validity};
use holdfast_protocol::secret::Secret;

use crate::ports::{Entropy, Now, draw, draw_secret};
use crate::rows::{Refusal, Rows};
use crate::site_registry::{AuthorityKey, authority, deployment};

/// Path of the key that signs bundles, heads, notices and leases.
const SIGNER: &str = "signer";

/// What a new certified key is made from.
#[derive(Debug)]
pub struct FreshKey {
    /// Seed of the key.
    pub seed: Secret<32>,
    /// Serial number of its certificate.
    pub serial: Serial,
}

impl FreshKey {
    /// Draws one.
    pub fn draw(entropy: &dyn Entropy) -> Self {
        Self { seed: draw_secret(entropy), serial: Serial(draw(entropy)) }
    }
}

/// An authority with its key, ready to issue.
#[derive(Debug)]
pub(super) struct Loaded {
    deployment: DeploymentId,
    authority: Authority,
    key: SigningKey,
    /// Its own certificate.
    pub(super) certificate: Vec<u8>,
}

impl Loaded {
    /// Reads one.
    pub(super) fn read(rows: &dyn Rows, which: Authority) -> Result<Self, Refusal> {
        let stored = authority(rows, &path(&which))?;
        let key = SigningKey::from_seed(&stored.seed);
        Ok(Self { deployment: deployment(rows)?.id, authority: which, key, certificate: stored.certificate })
    }

    /// The root that `fresh` makes, and its row.
    pub(super) fn new_root(
        deployment: DeploymentId,
        fresh: &FreshKey,
        now: Now,
    ) -> Result<(Self, AuthorityKey), Refusal> {
        let key = SigningKey::from_seed(&fresh.seed);
        let issuer = Issuer::new(deployment, Authority::Root, &key);
        let certificate = issuer.root_certificate(&lasting_terms(fresh.serial, now)).map_err(refusal)?;
        let row = AuthorityKey { seed: fresh.seed.duplicate(), certificate: certificate.clone() };
        Ok((Self { deployment, authority: Authority::Root, key, certificate }, row))
    }

    /// The row of another authority, under this one, which is the root.
    pub(super) fn new_authority(&self, which: &Authority, fresh: &FreshKey, now: Now) -> Result<AuthorityKey, Refusal> {
        let public = SigningKey::from_seed(&fresh.seed).public().clone();
        let terms = lasting_terms(fresh.serial, now);
        let certificate = self.issuer().certify_authority(which, &public, &terms).map_err(refusal)?;
        Ok(AuthorityKey { seed: fresh.seed.duplicate(), certificate })
    }

    /// The row of a bundle signer under this authority, which is the root. It lasts as long as an authority does: a
    /// host that was away for long must still believe the notice that awaits it.
    pub(super) fn new_signer(&self, fresh: &FreshKey, now: Now) -> Result<AuthorityKey, Refusal> {
        let public = SigningKey::from_seed(&fresh.seed).public().clone();
        let terms = lasting_terms(fresh.serial, now);
        let certificate = self.issuer().certify(&Leaf::BundleSigner, &public, &terms).map_err(refusal)?;
        Ok(AuthorityKey { seed: fresh.seed.duplicate(), certificate })
    }

    /// A leaf and its issuer, the leaf first.
    pub(super) fn chain(
        &self,
        leaf: &Leaf,
        key: &PublicKey,
        serial: Serial,
        now: Now,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        let terms = Terms { serial, validity: Validity::of_leaf(now.wall_s()) };
        let certificate = self.issuer().certify(leaf, key, &terms).map_err(refusal)?;
        Ok(vec![certificate, self.certificate.clone()])
    }

    fn issuer(&self) -> Issuer<'_> {
        Issuer::new(self.deployment, self.authority.clone(), &self.key)
    }
}

/// Where an authority's row is.
pub(super) fn path(authority: &Authority) -> Vec<&str> {
    match authority {
        Authority::Root => vec!["root"],
        Authority::CentralApi => vec!["api"],
        Authority::CentralDist => vec!["dist"],
        Authority::SiteApi(site) => vec!["site", site.as_str(), "api"],
        Authority::SiteDist(site) => vec!["site", site.as_str(), "dist"],
    }
}

/// Where the bundle signer's row is.
pub(super) fn signer_path() -> [&'static str; 1] {
    [SIGNER]
}

/// Certifies the key of central's REST server; the chain has the leaf first and ends below the root.
///
/// # Errors
/// [`Refusal::Invalid`]: a name that can't be in a certificate; [`Refusal::NotFound`] before initialisation.
pub fn rest_leaf(
    rows: &dyn Rows,
    key: &PublicKey,
    (names, addresses): (&[String], &[IpAddr]),
    serial: Serial,
    now: Now,
) -> Result<Vec<Vec<u8>>, Refusal> {
    let leaf = Leaf::CentralRest { names: names.to_vec(), addresses: addresses.to_vec() };
    Loaded::read(rows, Authority::CentralApi)?.chain(&leaf, key, serial, now)
}

/// Certifies the key of central's QUIC server; the chain has the leaf first and ends below the root.
///
/// # Errors
/// [`Refusal::NotFound`] before initialisation.
pub fn quic_leaf(rows: &dyn Rows, key: &PublicKey, serial: Serial, now: Now) -> Result<Vec<Vec<u8>>, Refusal> {
    Loaded::read(rows, Authority::CentralDist)?.chain(&Leaf::CentralQuic, key, serial, now)
}

/// What resets of connections that central has forgotten are known by: the same after a restart.
///
/// # Errors
/// [`Refusal::NotFound`] before initialisation.
pub fn reset_key(rows: &dyn Rows) -> Result<Secret<32>, Refusal> {
    Ok(hkdf(authority(rows, &path(&Authority::CentralDist))?.seed.expose(), "holdfast/quic-reset/v1", b""))
}

/// The key that approves register values for hosts' remote keys. Their policies name it for as long as they live, so it
/// comes from the key of the root, which is not rotated.
///
/// # Errors
/// [`Refusal::NotFound`] before initialisation.
pub fn unseal_authority(rows: &dyn Rows) -> Result<SigningKey, Refusal> {
    let root = authority(rows, &path(&Authority::Root))?;
    Ok(SigningKey::from_seed(&hkdf(root.seed.expose(), "holdfast/unseal-authority/v1", b"")))
}

/// The key that signs bundles, heads, notices and leases, with its certificate.
///
/// # Errors
/// [`Refusal::NotFound`] before initialisation.
pub fn signer(rows: &dyn Rows) -> Result<(SigningKey, Vec<u8>), Refusal> {
    let stored = authority(rows, &signer_path())?;
    Ok((SigningKey::from_seed(&stored.seed), stored.certificate))
}

/// The deployment's root certificate, DER.
///
/// # Errors
/// [`Refusal::NotFound`] before initialisation.
pub fn root_certificate(rows: &dyn Rows) -> Result<Vec<u8>, Refusal> {
    Ok(authority(rows, &path(&Authority::Root))?.certificate)
}

fn lasting_terms(serial: Serial, now: Now) -> Terms {
    Terms { serial, validity: Validity::of_authority(now.wall_s()) }
}

fn refusal(error: PkiError) -> Refusal {
    match error {
        PkiError::Validity | PkiError::Name(_) => Refusal::Invalid(error.to_string()),
        // Only what was read from our own rows can be wrong otherwise.
        _ => Refusal::Corrupt,
    }
}

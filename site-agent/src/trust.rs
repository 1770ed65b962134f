//! Whom this host believes: signing keys that the deployment's root has certified, and through them heads, notices and
//! leases. The rules that order those are here too.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use holdfast_protocol::bundle::{self, BundleError, Verified};
use holdfast_protocol::crypto::sign::PublicKey;
use holdfast_protocol::ids::{DeploymentId, HostId};
use holdfast_protocol::pki::{PkiError, read};
use holdfast_protocol::signed::{self, SignedError};
use holdfast_protocol::wire::{
    Head, Lease, LocalShare, Notice, NoticedStanding, RemoteSealKey, Signable, Signed, UnsealPermit,
};

/// Signing keys overlap when they are rotated; nobody has more than a few.
const SIGNERS_MAX: usize = 8;

/// Why something signed is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The signer is nobody that the root has certified.
    #[error("the signer is not certified")]
    Signer(#[source] PkiError),
    /// The signature or what it covers is bad.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// The bundle is bad.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// It is about somebody else.
    #[error("it is about another deployment, site or host")]
    NotOurs,
    /// No signer has been met yet.
    #[error("no signer is known yet")]
    NoSigner,
}

/// The signers known, and how to learn of others.
pub struct Trust {
    deployment: DeploymentId,
    host: HostId,
    root: Vec<u8>,
    signers: Mutex<BTreeMap<u32, Signer>>,
}

/// A signer met.
#[derive(Debug, Clone)]
struct Signer {
    key: PublicKey,
    /// Its certificate's last second.
    until_s: i64,
}

impl Trust {
    /// Nobody but the root is known yet.
    pub fn new(deployment: DeploymentId, host: HostId, root: Vec<u8>) -> Self {
        Self { deployment, host, root, signers: Mutex::default() }
    }

    /// Opens a head.
    ///
    /// # Errors
    /// It is not to be believed.
    pub fn head(&self, signed: &Signed, now_s: i64) -> Result<Head, TrustError> {
        let head: Head = self.open(signed, now_s)?;
        if head.deployment == self.deployment { Ok(head) } else { Err(TrustError::NotOurs) }
    }

    /// Opens a notice about this host or its site.
    ///
    /// # Errors
    /// It is not to be believed, or about others.
    pub fn notice(&self, signed: &Signed, now_s: i64) -> Result<Notice, TrustError> {
        let notice = self.open(signed, now_s)?;
        if self.concerns_us(&notice) { Ok(notice) } else { Err(TrustError::NotOurs) }
    }

    /// Opens this host's lease.
    ///
    /// # Errors
    /// It is not to be believed, or another's.
    pub fn lease(&self, signed: &Signed, now_s: i64) -> Result<Lease, TrustError> {
        let lease: Lease = self.open(signed, now_s)?;
        if lease.host == self.host { Ok(lease) } else { Err(TrustError::NotOurs) }
    }

    /// Opens this host's unseal permit.
    ///
    /// # Errors
    /// It is not to be believed, or another's.
    pub fn permit(&self, signed: &Signed, now_s: i64) -> Result<UnsealPermit, TrustError> {
        let permit: UnsealPermit = self.open(signed, now_s)?;
        let ours = permit.deployment == self.deployment && permit.host == self.host;
        if ours { Ok(permit) } else { Err(TrustError::NotOurs) }
    }

    /// Opens a permit that a host of this site shows, this one included. It says itself when it ends.
    pub fn remembered_permit(&self, signed: &Signed) -> Option<UnsealPermit> {
        let ours = |permit: &UnsealPermit| permit.deployment == self.deployment && permit.host.site == self.host.site;
        self.remembered(signed).filter(ours)
    }

    /// Opens this host's share of its site's seal key.
    ///
    /// # Errors
    /// It is not to be believed, or another's.
    pub fn share(&self, signed: &Signed, now_s: i64) -> Result<LocalShare, TrustError> {
        let share: LocalShare = self.open(signed, now_s)?;
        if self.is_own(&share) { Ok(share) } else { Err(TrustError::NotOurs) }
    }

    /// Reads a share that was believed when it was stored.
    pub fn remembered_share(&self, stored: &Signed) -> Option<LocalShare> {
        self.remembered(stored).filter(|share| self.is_own(share))
    }

    fn is_own(&self, share: &LocalShare) -> bool {
        share.terms.deployment == self.deployment && share.terms.host == self.host
    }

    /// Opens a notice about another host of this site. A notice is ordered by its generation, not by dates.
    ///
    /// # Errors
    /// It is not to be believed, or about others.
    pub fn sibling_notice(&self, signed: &Signed) -> Result<Notice, TrustError> {
        let notice: Notice = self.remembered(signed).ok_or(TrustError::NoSigner)?;
        let other = notice.host.as_ref().is_some_and(|host| *host != self.host.host);
        let ours = notice.deployment == self.deployment && notice.site == self.host.site && other;
        if ours { Ok(notice) } else { Err(TrustError::NotOurs) }
    }

    /// Opens a remote seal key, whoever it is for. It is bound to a boot and not to dates: a host that starts without
    /// central may have no good clock.
    pub fn remote_sealkey(&self, signed: &Signed) -> Option<RemoteSealKey> {
        self.remembered(signed)
    }

    /// Checks a bundle for this host's site by the signers met so far.
    ///
    /// # Errors
    /// No such signer's, or for another site.
    pub fn bundle<'b>(&self, bytes: &'b [u8], now_s: i64) -> Result<Verified<'b>, TrustError> {
        let signers = self.signers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut failed = TrustError::NoSigner;
        for (id, Signer { key, .. }) in signers.iter().filter(|(_, signer)| now_s <= signer.until_s) {
            match bundle::verify(bytes, key) {
                Ok(verified) if verified.header.signer != *id => failed = BundleError::Signature.into(),
                Ok(verified) => {
                    let header = &verified.header;
                    let ours = header.deployment == self.deployment && header.site == self.host.site;
                    return if ours { Ok(verified) } else { Err(TrustError::NotOurs) };
                }
                Err(error) => failed = error.into(),
            }
        }
        Err(failed)
    }

    /// Reads a notice that was believed when it was stored.
    pub fn remembered_notice(&self, stored: &Signed) -> Option<Notice> {
        self.remembered(stored).filter(|notice| self.concerns_us(notice))
    }

    /// Reads a lease that was believed when it was stored.
    pub fn remembered_lease(&self, stored: &Signed) -> Option<Lease> {
        self.remembered(stored).filter(|lease: &Lease| lease.host == self.host)
    }

    /// Reads a head that was believed when it was stored.
    pub fn remembered_head(&self, stored: &Signed) -> Option<Head> {
        self.remembered(stored).filter(|head: &Head| head.deployment == self.deployment)
    }

    /// What is stored outside the barrier may have been written by whoever had the disk in his hands: it counts only if
    /// a certified signer signed it. That its certificate has ended since is no matter.
    fn remembered<T: Signable>(&self, stored: &Signed) -> Option<T> {
        signed::open_lasting(stored, &self.root)
    }

    fn concerns_us(&self, notice: &Notice) -> bool {
        let of_host = notice.host.as_ref().is_none_or(|host| *host == self.host.host);
        notice.deployment == self.deployment && notice.site == self.host.site && of_host
    }

    fn open<T: Signable>(&self, signed: &Signed, now_s: i64) -> Result<T, TrustError> {
        let key = read::bundle_signer_of(&signed.signer, &self.root, now_s).map_err(TrustError::Signer)?;
        let value = signed::open(signed, &key)?;
        let until_s = read::not_after(&signed.signer).map_err(TrustError::Signer)?;
        self.meet(Signer { key, until_s });
        Ok(value)
    }

    /// Who signs now is known, at the expense of whoever's time ends first.
    fn meet(&self, signer: Signer) {
        let met = signer.key.key_id();
        let mut signers = self.signers.lock().unwrap_or_else(PoisonError::into_inner);
        signers.insert(met, signer);
        if SIGNERS_MAX < signers.len() {
            let others = signers.iter().filter(|(id, _)| **id != met);
            let first = others.min_by_key(|(_, signer)| signer.until_s).map(|(id, _)| *id);
            first.and_then(|id| signers.remove(&id));
        }
    }
}

/// How a head compares with the newest one known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadOrder {
    /// To be stored.
    Newer,
    /// Known.
    Same,
    /// Central went back: it was restored from an older copy, or this is not central.
    Lower,
}

/// Compares heads: by term, then by revision. The same term with another incarnation counts as newer.
pub fn order_heads(held: Option<&Head>, offered: &Head) -> HeadOrder {
    let Some(held) = held else { return HeadOrder::Newer };
    if offered.term != held.term {
        return if offered.term < held.term { HeadOrder::Lower } else { HeadOrder::Newer };
    }
    if offered.incarnation != held.incarnation {
        return HeadOrder::Newer;
    }
    match offered.revision.cmp(&held.revision) {
        std::cmp::Ordering::Less => HeadOrder::Lower,
        std::cmp::Ordering::Equal => HeadOrder::Same,
        std::cmp::Ordering::Greater => HeadOrder::Newer,
    }
}

/// What a notice asks of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Course {
    /// Remember it.
    pub store: bool,
    /// Seal.
    pub seal: bool,
    /// Destroy what opens the store.
    pub wipe: bool,
    /// A block is lifted: enrol again.
    pub readmitted: bool,
}

/// Weighs a notice against the newest known. One of a lower generation asks for nothing; the newest one again asks for
/// what it asked before, for its acknowledgement may have been lost.
pub fn weigh(held: Option<&Notice>, offered: &Notice) -> Course {
    const NOTHING: Course = Course { store: false, seal: false, wipe: false, readmitted: false };
    let store = match held {
        Some(held) if offered.generation < held.generation => return NOTHING,
        // An order to wipe is no longer open once it was carried out, under the same generation.
        Some(held) => held.generation < offered.generation || held.standing != offered.standing,
        None => true,
    };
    let (seal, wipe) = match offered.standing {
        NoticedStanding::Clear => (false, false),
        NoticedStanding::Untrusted => (true, false),
        NoticedStanding::Quarantined { wipe } => (true, wipe),
    };
    let readmitted = offered.standing == NoticedStanding::Clear && held.is_some_and(is_quarantine);
    Course { store, seal, wipe, readmitted }
}

/// Whether a notice lets nothing but a higher one unseal its host.
pub fn is_quarantine(notice: &Notice) -> bool {
    matches!(notice.standing, NoticedStanding::Quarantined { .. })
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::crypto::sign::SigningKey;
    use holdfast_protocol::ids::{Revision, SealEpoch, StandingGeneration, Term};
    use holdfast_protocol::pki::{Authority, Issuer, Leaf, Serial, Terms, Validity};
    use holdfast_protocol::secret::Secret;

    use super::*;

    fn head(term: u64, incarnation: u8, revision: u64) -> Head {
        Head {
            deployment: DeploymentId([1; 16]),
            term: Term(term),
            incarnation: [incarnation; 16],
            revision: Revision(revision),
            standing_digest: [0; 32],
            audit_head: (0, [0; 32]),
        }
    }

    #[test]
    fn heads_never_go_back() {
        use HeadOrder::{Lower, Newer, Same};
        for (held, offered, order) in [
            (None, head(1, 1, 1), Newer),
            (Some(head(1, 1, 5)), head(1, 1, 6), Newer),
            (Some(head(1, 1, 5)), head(1, 1, 5), Same),
            (Some(head(1, 1, 5)), head(1, 1, 4), Lower),
            (Some(head(1, 1, 5)), head(1, 2, 1), Newer),
            (Some(head(1, 1, 5)), head(2, 2, 1), Newer),
            (Some(head(2, 2, 1)), head(1, 1, 9), Lower),
        ] {
            assert_eq!(order_heads(held.as_ref(), &offered), order, "{held:?} {offered:?}");
        }
    }

    fn notice(generation: u64, standing: NoticedStanding) -> Notice {
        Notice {
            deployment: DeploymentId([1; 16]),
            site: "udc1".parse().unwrap(),
            host: None,
            generation: StandingGeneration(generation),
            standing,
            at_us: 0,
        }
    }

    #[test]
    fn notices_are_followed_in_the_order_of_their_generations() {
        use NoticedStanding::{Clear, Quarantined, Untrusted};
        let course = |store, seal, wipe, readmitted| Course { store, seal, wipe, readmitted };
        for (held, offered, expected) in [
            (None, (1, Clear), course(true, false, false, false)),
            (None, (1, Untrusted), course(true, true, false, false)),
            (None, (1, Quarantined { wipe: true }), course(true, true, true, false)),
            (Some((2, Quarantined { wipe: false })), (1, Clear), course(false, false, false, false)),
            (Some((2, Quarantined { wipe: false })), (3, Clear), course(true, false, false, true)),
            (Some((2, Untrusted)), (3, Clear), course(true, false, false, false)),
            (Some((2, Clear)), (1, Quarantined { wipe: true }), course(false, false, false, false)),
            (Some((2, Quarantined { wipe: true })), (2, Quarantined { wipe: true }), course(false, true, true, false)),
            (Some((2, Quarantined { wipe: true })), (2, Quarantined { wipe: false }), course(true, true, false, false)),
        ] {
            let held = held.map(|(generation, standing)| notice(generation, standing));
            let offered = notice(offered.0, offered.1);
            assert_eq!(weigh(held.as_ref(), &offered), expected, "{held:?} {offered:?}");
        }
    }

    fn key(byte: u8) -> SigningKey {
        SigningKey::from_seed(&Secret::fill_with(|into| into.fill(byte)))
    }

    /// A root certificate, and a signer's under it.
    fn certified(root: u8, signer: u8, now_s: i64) -> (Vec<u8>, Vec<u8>) {
        let terms = |validity| Terms { serial: Serial([signer; 16]), validity };
        let (root, signer) = (key(root), key(signer));
        let issuer = Issuer::new(DeploymentId([1; 16]), Authority::Root, &root);
        let certificate = issuer.certify(&Leaf::BundleSigner, signer.public(), &terms(Validity::of_leaf(now_s)));
        (issuer.root_certificate(&terms(Validity::of_authority(now_s))).unwrap(), certificate.unwrap())
    }

    const NOW_S: i64 = 1_800_000_000;

    #[test]
    fn what_somebody_wrote_onto_the_disk_is_not_remembered() {
        let ((root, good), (_, forged)) = (certified(1, 2, NOW_S), certified(3, 2, NOW_S));
        let host = HostId { site: "udc1".parse().unwrap(), host: "udc1-001".parse().unwrap() };
        let trust = Trust::new(DeploymentId([1; 16]), host.clone(), root);
        // The highest generation there is: no order of central would ever be followed again.
        let clear = notice(u64::MAX, NoticedStanding::Clear);
        let lease = Lease { host, clock_ms: u64::MAX, reset_count: 1, seal_epoch: SealEpoch(1) };
        for (certificate, counts) in [(good, true), (forged, false)] {
            let stored = |certificate: &Vec<u8>| signed::sign(&clear, &key(2), certificate.clone());
            assert_eq!(trust.remembered_notice(&stored(&certificate)).is_some(), counts);
            let lease = signed::sign(&lease, &key(2), certificate.clone());
            assert_eq!(trust.remembered_lease(&lease).is_some(), counts);
            let head = signed::sign(&head(9, 1, 1), &key(2), certificate);
            assert_eq!(trust.remembered_head(&head).is_some(), counts);
        }
    }

    #[test]
    fn what_central_signed_for_another_host_site_or_deployment_is_not_believed() {
        let (root, certificate) = certified(1, 2, NOW_S);
        let id = |site: &str, host: &str| HostId { site: site.parse().unwrap(), host: host.parse().unwrap() };
        let trust = Trust::new(DeploymentId([1; 16]), id("udc1", "udc1-001"), root);
        let lease = |host| Lease { host, clock_ms: 1, reset_count: 1, seal_epoch: SealEpoch(1) };
        let lease_counts = |host| {
            let signed = signed::sign(&lease(host), &key(2), certificate.clone());
            (trust.lease(&signed, NOW_S).is_ok(), trust.remembered_lease(&signed).is_some())
        };
        assert_eq!(lease_counts(id("udc1", "udc1-001")), (true, true));
        assert_eq!(lease_counts(id("udc1", "udc1-002")), (false, false));
        assert_eq!(lease_counts(id("udc2", "udc1-001")), (false, false));

        let clear = || notice(1, NoticedStanding::Quarantined { wipe: true });
        let of_host = |name: &str| Notice { host: Some(name.parse().unwrap()), ..clear() };
        for (offered, ours) in [
            (clear(), true),
            (of_host("udc1-001"), true),
            (of_host("udc1-002"), false),
            (Notice { site: "udc2".parse().unwrap(), ..clear() }, false),
            (Notice { site: "udc2".parse().unwrap(), ..of_host("udc1-001") }, false),
            (Notice { deployment: DeploymentId([2; 16]), ..clear() }, false),
        ] {
            let signed = signed::sign(&offered, &key(2), certificate.clone());
            assert_eq!(trust.notice(&signed, NOW_S).is_ok(), ours, "{offered:?}");
            assert_eq!(trust.remembered_notice(&signed).is_some(), ours, "{offered:?}");
        }
        let theirs = Head { deployment: DeploymentId([2; 16]), ..head(9, 1, 1) };
        let signed = signed::sign(&theirs, &key(2), certificate.clone());
        assert!(trust.head(&signed, NOW_S).is_err() && trust.remembered_head(&signed).is_none());
        // A lease is no notice, whoever signed it.
        let lease = signed::sign(&lease(id("udc1", "udc1-001")), &key(2), certificate);
        assert!(trust.notice(&lease, NOW_S).is_err() && trust.head(&lease, NOW_S).is_err());
    }

    #[test]
    fn the_signer_of_today_is_known_however_many_there_were() {
        let host = HostId { site: "udc1".parse().unwrap(), host: "udc1-001".parse().unwrap() };
        let trust = Trust::new(DeploymentId([1; 16]), host, certified(1, 2, NOW_S).0);
        for signer in 2..20 {
            let now_s = NOW_S + i64::from(signer);
            let signed = signed::sign(&head(1, 1, 1), &key(signer), certified(1, signer, now_s).1);
            trust.head(&signed, now_s).unwrap();
            let signers = trust.signers.lock().unwrap();
            assert!(signers.contains_key(&key(signer).public().key_id()) && signers.len() <= SIGNERS_MAX, "{signer}");
        }
    }
}

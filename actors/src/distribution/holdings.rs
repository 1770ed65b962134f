//! What sites and hosts were ever sent, as central remembers it: what a thief of one may know.
//!
//! Committed before the first byte goes out and never taken back. A site's holdings are exact; what a single host of it
//! was sent follows from the numbers of the cuts that were sent to it. Where something has to be left out for a bound,
//! what is left says rather too much than too little.

use holdfast_protocol::crypto::hash::hmac;
use holdfast_protocol::ids::{Realm, Seq};
use serde::{Deserialize, Serialize};

use crate::access_control::Approle;
use crate::key_store::TransitKey;
use crate::keyring::RealmKeys;
use crate::rows::{Kind, Record, Refusal, decode_body};
use crate::secret_store::records::CurrentSecret;

/// Versions of one item listed singly per site; older ones are only counted.
pub const VERSIONS_LISTED_MAX: usize = 64;
/// Runs of cuts kept per (host, tenant); the oldest are joined, over what lies between them.
pub const RUNS_MAX: usize = 64;

/// What a site was sent of one item; row `[site, tenant, hash of the store key]` of the node's realm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Number of the item's kind.
    pub kind: u8,
    /// The item's names.
    pub path: Vec<String>,
    /// The tenant's realm: another tenant of the same name later is another.
    pub realm: Realm,
    /// Whether it was taken away again.
    pub left: bool,
    /// Versions sent, oldest first. Of what is no secret only the newest.
    pub versions: Vec<HeldVersion>,
    /// Versions that were sent before all of these.
    pub unlisted: u64,
}

impl Record for Holding {
    const KIND: Kind = Kind::Holding;
}

/// One version of an item at a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldVersion {
    /// Writes of the item's name at central up to this one.
    pub version: u64,
    /// As its tenant knows it; empty for what is no secret. Of an approle it stands for the instance.
    pub id: String,
    /// Keyed digest of the secret value (of an approle its role-id), for telling whether a later version is another secret
    /// at all.
    pub digest: ValueDigest,
    /// The cut that it came with.
    pub since: Seq,
    /// When that was, microseconds since the Unix epoch.
    pub since_us: i64,
    /// The cut that replaced it or took it away.
    pub until: Option<(Seq, i64)>,
    /// Of something else that is secret in it and outlives it: of a key what makes HMACs, which a rotation keeps.
    pub beside: Option<ValueDigest>,
}

impl HeldVersion {
    /// Whether it is the same secret value under the same name: it may have been taken away and sent again.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.id, self.digest) == (&other.id, other.digest)
    }

    /// Whether a host that was sent the cuts `first` to `last` was sent this.
    pub fn is_in(&self, run: &Run) -> bool {
        self.since <= run.last && self.until.is_none_or(|(until, _)| run.first < until)
    }
}

/// Tells whether two values are the same, to who has the tenant's key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ValueDigest(pub [u8; 16]);

impl ValueDigest {
    /// Of a value of the tenant whose keys these are.
    pub fn of(keys: &RealmKeys, value: &[u8]) -> Self {
        let label = keys.derive("holdfast/held-value/v1");
        let mac = hmac(label.expose(), &[value]);
        Self(*mac.first_chunk().expect("a MAC has 32 bytes"))
    }
}

/// What is secret in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFacts {
    /// The version, see [`HeldVersion::id`].
    pub id: String,
    /// Of its value.
    pub digest: ValueDigest,
    /// See [`HeldVersion::beside`].
    pub beside: Option<ValueDigest>,
    /// What makes a version that was sent earlier one that is still of use.
    pub hinge: Hinge,
    /// When this version was written, microseconds since the Unix epoch.
    pub written_us: i64,
}

/// What a version and the one there is now must have in common for the first to be of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hinge {
    /// The value.
    Value,
    /// The id: of an approle whose programs show secret-ids, which end with its instance.
    Id,
    /// Either: of an approle whose role-id alone logs in, and goes on to when its instance ends.
    Either,
}

impl SecretFacts {
    /// Whether what was sent is still of use.
    pub fn are_opened_by(&self, held: &HeldVersion) -> bool {
        let (value, id) = (self.digest == held.digest, self.id == held.id);
        match self.hinge {
            Hinge::Value => value || (self.beside.is_some() && self.beside == held.beside),
            Hinge::Id => id,
            Hinge::Either => value || id,
        }
    }
}

/// Whether rows of this kind carry secrets, which must be rotated when they are in the wrong hands. An approle stands for
/// all that hosts of the site have issued under it: central does not know these secret-ids and tokens one by one.
pub fn is_secret(kind: Kind) -> bool {
    matches!(kind, Kind::Secret | Kind::Approle | Kind::TransitKey)
}

/// What a row's body has that is secret; `None` where there is nothing to be rotated.
///
/// # Errors
/// [`Refusal::Corrupt`].
pub fn secret_facts(keys: &RealmKeys, kind: Kind, body: &[u8]) -> Result<Option<SecretFacts>, Refusal> {
    Ok(match kind {
        Kind::Secret => {
            let CurrentSecret { data, version_id, updated, .. } = decode_body(body)?;
            let digest = ValueDigest::of(keys, data.expose());
            Some(SecretFacts { id: version_id, digest, beside: None, hinge: Hinge::Value, written_us: updated.at_us })
        }
        Kind::Approle => Some(facts_of_approle(keys, &decode_body(body)?)),
        Kind::TransitKey => Some(facts_of_key(keys, &decode_body(body)?)),
        _ => None,
    })
}

/// Of use to a thief is what encrypts, since it decrypts what will be encrypted, and what makes HMACs. A row has all versions
/// before, too.
fn facts_of_key(keys: &RealmKeys, key: &TransitKey) -> SecretFacts {
    let (newest, encrypting) = (key.newest(), key.encrypting());
    let hmac_key = encrypting.and_then(|version| version.material.hmac_key.as_ref());
    SecretFacts {
        id: newest.map(|version| version.number.to_string()).unwrap_or_default(),
        digest: encrypting.map(|version| ValueDigest::of(keys, version.material.key.expose())).unwrap_or_default(),
        beside: hmac_key.map(|hmac_key| ValueDigest::of(keys, hmac_key.0.expose())),
        hinge: Hinge::Value,
        written_us: newest.map_or(0, |version| version.created.at_us),
    }
}

fn facts_of_approle(keys: &RealmKeys, approle: &Approle) -> SecretFacts {
    SecretFacts {
        id: hex::encode(ValueDigest::of(keys, &approle.instance).0),
        digest: ValueDigest::of(keys, approle.role_id.expose()),
        beside: None,
        hinge: if approle.bind_secret_id { Hinge::Id } else { Hinge::Either },
        written_us: approle.instance_us,
    }
}

/// A row on its way to a site, as its holding takes it in.
#[derive(Debug, Clone)]
pub struct Sending {
    /// What it is.
    pub kind: Kind,
    /// Its names.
    pub path: Vec<String>,
    /// The tenant's realm.
    pub realm: Realm,
    /// Writes of its name so far.
    pub version: u64,
    /// What of it is secret.
    pub secret: Option<SecretFacts>,
    /// Whether it is taken away rather than sent.
    pub leaves: bool,
}

impl Sending {
    /// What is held and goes away; `None`: it is of no kind that is known.
    pub fn leaving(held: Holding) -> Option<Self> {
        let version = held.versions.last().map_or(0, |newest| newest.version);
        let kind = Kind::from_byte(held.kind)?;
        Some(Self { kind, path: held.path, realm: held.realm, version, secret: None, leaves: true })
    }
}

impl Holding {
    /// The holding after a cut: `before` is what was held.
    pub fn after(before: Option<Self>, sending: Sending, (seq, at_us): (Seq, i64)) -> Self {
        let Sending { kind, path, realm, version, secret, leaves } = sending;
        let before = before.filter(|held| held.realm == realm);
        let mut held =
            before.unwrap_or(Self { kind: kind as u8, path, realm, left: leaves, versions: Vec::new(), unlisted: 0 });
        held.left = leaves;
        if leaves {
            held.end_newest(seq, at_us);
        } else {
            let (id, digest, beside) = secret.map(|facts| (facts.id, facts.digest, facts.beside)).unwrap_or_default();
            held.take(HeldVersion { version, id, digest, since: seq, since_us: at_us, until: None, beside }, kind);
        }
        held
    }

    fn take(&mut self, new: HeldVersion, kind: Kind) {
        if let Some(newest) = self.versions.last_mut()
            && newest.until.is_none()
            && newest.is_same(&new)
            && (is_secret(kind) || newest.version == new.version)
        {
            newest.version = new.version;
            return;
        }
        if !is_secret(kind) {
            self.versions.clear();
        }
        self.end_newest(new.since, new.since_us);
        self.versions.push(new);
        let excess = self.versions.len().saturating_sub(VERSIONS_LISTED_MAX);
        self.versions.drain(..excess);
        self.unlisted += excess as u64;
    }

    fn end_newest(&mut self, seq: Seq, at_us: i64) {
        if let Some(newest) = self.versions.last_mut() {
            newest.until.get_or_insert((seq, at_us));
        }
    }
}

/// Which cuts of a tenant's content a host was sent; row `[site, host, tenant]` of the node's realm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostHolding {
    /// Oldest first, apart from each other.
    pub runs: Vec<Run>,
}

impl Record for HostHolding {
    const KIND: Kind = Kind::HostHolding;
}

/// Cuts sent without one left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The first.
    pub first: Seq,
    /// The last.
    pub last: Seq,
}

impl HostHolding {
    /// Notes that a cut is sent; says whether that is news.
    pub fn note(&mut self, seq: Seq) -> bool {
        if self.runs.iter().any(|run| (run.first..=run.last).contains(&seq)) {
            return false;
        }
        match self.runs.last_mut() {
            Some(newest) if newest.last.next() == seq => newest.last = seq,
            // A central that was restored from an older copy counts from there.
            _ => self.runs.push(Run { first: seq, last: seq }),
        }
        self.runs.sort_by_key(|run| run.first);
        while RUNS_MAX < self.runs.len() {
            let oldest = self.runs.remove(0);
            self.runs[0].first = oldest.first;
        }
        true
    }

    /// Whether it was sent this version.
    pub fn has(&self, version: &HeldVersion) -> bool {
        self.runs.iter().any(|run| version.is_in(run))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sending(version: u64, value: u8, leaves: bool) -> Sending {
        let (id, digest) = (format!("v{version}"), ValueDigest([value; 16]));
        let secret = SecretFacts { id, digest, beside: None, hinge: Hinge::Value, written_us: version as i64 };
        let path = vec!["box".to_owned(), "secret".to_owned()];
        Sending { kind: Kind::Secret, path, realm: Realm(1), version, secret: Some(secret), leaves }
    }

    fn held(steps: &[(u64, bool, u64)]) -> Holding {
        let mut held = None;
        for (version, leaves, seq) in steps {
            held = Some(Holding::after(held, sending(*version, *version as u8, *leaves), (Seq(*seq), *seq as i64)));
        }
        held.unwrap()
    }

    #[test]
    fn every_version_is_listed_with_the_cuts_between_which_it_was_there() {
        type Steps = &'static [(u64, bool, u64)];
        type Listed = &'static [(u64, u64, Option<u64>)];
        let table: [(Steps, bool, Listed); 6] = [
            (&[(1, false, 1)], false, &[(1, 1, None)]),
            (&[(1, false, 1), (2, false, 4)], false, &[(1, 1, Some(4)), (2, 4, None)]),
            (&[(1, false, 1), (1, false, 4)], false, &[(1, 1, None)]),
            (&[(1, false, 1), (1, true, 3)], true, &[(1, 1, Some(3))]),
            (&[(1, false, 1), (1, true, 3), (1, false, 5)], false, &[(1, 1, Some(3)), (1, 5, None)]),
            (&[(1, false, 1), (2, true, 3), (3, false, 5)], false, &[(1, 1, Some(3)), (3, 5, None)]),
        ];
        for (steps, left, listed) in table {
            let held = held(steps);
            let told = held.versions.iter().map(|held| (held.version, held.since.0, held.until.map(|at| at.0.0)));
            assert_eq!((held.left, told.collect::<Vec<_>>()), (left, listed.to_vec()), "{steps:?}");
        }
    }

    #[test]
    fn more_versions_than_are_listed_are_counted() {
        let many: Vec<(u64, bool, u64)> = (1..=VERSIONS_LISTED_MAX as u64 + 3).map(|n| (n, false, n)).collect();
        let held = held(&many);
        assert_eq!((held.versions.len(), held.unlisted), (VERSIONS_LISTED_MAX, 3));
        assert_eq!(held.versions[0].version, 4);
    }

    #[test]
    fn of_what_is_no_secret_only_the_newest_is_kept() {
        let boxed = |version| Sending { kind: Kind::Box, secret: None, ..sending(version, 0, false) };
        let first = Holding::after(None, boxed(1), (Seq(1), 1));
        let second = Holding::after(Some(first), boxed(2), (Seq(2), 2));
        assert_eq!((second.versions.len(), second.versions[0].version, second.unlisted), (1, 2, 0));
    }

    #[test]
    fn what_is_of_use_hangs_on_the_value_the_id_or_either() {
        use Hinge::{Either, Id, Value};
        let (id, digest) = ("v1".to_owned(), ValueDigest([1; 16]));
        let held = HeldVersion { version: 1, id, digest, since: Seq(1), since_us: 0, until: None, beside: None };
        for (id, value, of_use) in [
            ("v1", 1, [true, true, true]),
            ("v2", 1, [true, false, true]),
            ("v1", 2, [false, true, true]),
            ("v2", 2, [false, false, false]),
        ] {
            for (hinge, of_use) in [Value, Id, Either].into_iter().zip(of_use) {
                let digest = ValueDigest([value; 16]);
                let now = SecretFacts { id: id.to_owned(), digest, beside: None, hinge, written_us: 0 };
                assert_eq!(now.are_opened_by(&held), of_use, "{hinge:?} {id} {value}");
            }
        }
    }

    #[test]
    fn another_tenant_of_the_same_name_begins_anew() {
        let first = held(&[(1, false, 1)]);
        let other = Sending { realm: Realm(2), ..sending(9, 9, false) };
        assert_eq!(Holding::after(Some(first), other, (Seq(2), 2)).versions.len(), 1);
    }

    #[test]
    fn a_host_has_what_was_there_at_a_cut_that_it_was_sent() {
        let mut host = HostHolding::default();
        for (seq, news) in [(3, true), (4, true), (4, false), (8, true), (3, false)] {
            assert_eq!(host.note(Seq(seq)), news, "{seq}");
        }
        assert_eq!(host.runs, [Run { first: Seq(3), last: Seq(4) }, Run { first: Seq(8), last: Seq(8) }]);
        for (since, until, has) in [
            (1, Some(3), false),
            (1, Some(4), true),
            (1, None, true),
            (4, Some(5), true),
            (5, Some(8), false),
            (5, Some(9), true),
            (8, None, true),
            (9, None, false),
        ] {
            let until = until.map(|seq| (Seq(seq), 0));
            let (id, digest) = (String::new(), ValueDigest::default());
            let version = HeldVersion { version: 1, id, digest, since: Seq(since), since_us: 0, until, beside: None };
            assert_eq!(host.has(&version), has, "{since} to {until:?}");
        }
    }

    #[test]
    fn runs_are_bounded_and_never_say_too_little() {
        let mut host = HostHolding::default();
        let sent: Vec<u64> = (0..500).map(|n| 3 * n).collect();
        sent.iter().for_each(|seq| assert!(host.note(Seq(*seq))));
        assert_eq!(host.runs.len(), RUNS_MAX);
        assert!(sent.iter().all(|seq| host.runs.iter().any(|run| (run.first..=run.last).contains(&Seq(*seq)))));
    }
}

//! What ought to be, kept apart from what is: what was acknowledged, what is placed where, who is cut off since when,
//! who has passed on which connection. Simple enough to be believed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_actors::access_control::Caller;
use holdfast_actors::attestation_verifier::core::{ConnId, Pass};
use holdfast_actors::store::memory::MemoryEngine;
use holdfast_protocol::ids::{HostId, HostName, Realm, SiteName, TenantName};
use holdfast_protocol::tpm::Counters;
use holdfast_protocol::wire::Position;

/// A value of which it may not be known whether its last change was made: one option, or two after a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known<T> {
    /// What it may be.
    pub options: Vec<T>,
}

impl<T: Clone + PartialEq> Known<T> {
    /// It is this.
    pub fn of(value: T) -> Self {
        Self { options: vec![value] }
    }

    /// It is this now, for certain.
    pub fn set(&mut self, value: T) {
        self.options = vec![value];
    }

    /// It may be this now, or have stayed what it was.
    pub fn perhaps(&mut self, value: T) {
        if !self.options.contains(&value) {
            self.options.push(value);
        }
    }

    /// What it is, where that is known.
    pub fn known(&self) -> Option<&T> {
        if let [value] = self.options.as_slice() { Some(value) } else { None }
    }
}

/// A tenant.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Its name.
    pub name: TenantName,
    /// Its number at central.
    pub realm: Realm,
    /// Who writes and reads.
    pub caller: Caller,
    /// With this token.
    pub token: String,
    /// Lines that its chain of changes has at least.
    pub lines: u64,
    /// Lines that it may have besides.
    pub lines_perhaps: u64,
    /// Boxes by slug.
    pub boxes: BTreeMap<String, BoxModel>,
}

/// A box.
#[derive(Debug, Clone)]
pub struct BoxModel {
    /// Whether it is there.
    pub there: Known<bool>,
    /// Where it is placed, `None` being everywhere.
    pub placed: Known<Option<BTreeSet<SiteName>>>,
    /// Sites it was ever placed at; everywhere, if that was ever so.
    pub ever: BTreeSet<SiteName>,
    /// Whether it was ever placed everywhere.
    pub ever_all: bool,
    /// For how long it may be served, seconds.
    pub offline_s: Option<u64>,
    /// Its secrets: what each is now.
    pub secrets: BTreeMap<String, Known<Option<String>>>,
    /// When it was made or placed last, microseconds since the world began.
    pub changed_us: u64,
    /// When each secret was written last.
    pub written_us: BTreeMap<String, u64>,
}

/// What a host was last given time by.
#[derive(Debug, Clone, Copy)]
pub struct LeaseModel {
    /// When the quote was made that its last verdict was for, microseconds since the world began.
    pub quoted_us: u64,
    /// The reset counter then.
    pub reset: u32,
}

/// All that ought to be.
#[derive(Default)]
pub struct Model {
    /// Tenants in order of their numbers.
    pub tenants: Vec<Tenant>,
    /// Every value that was ever written, by tenant: none may be found elsewhere.
    pub written: BTreeMap<TenantName, BTreeSet<String>>,
    /// Sites there are.
    pub sites: Vec<SiteName>,
    /// Cut off by a commit.
    pub fenced_sites: BTreeSet<SiteName>,
    /// Cut off by a commit, by themselves.
    pub fenced_hosts: BTreeSet<HostId>,
    /// Cut off by a call that has come so far that nothing may go there.
    pub returned_sites: BTreeSet<SiteName>,
    /// The same, by themselves.
    pub returned_hosts: BTreeSet<HostId>,
    /// Whether a crash has left open what was decided.
    pub unknown_standing: bool,
    /// Who passed on which connection, and when.
    pub passes: BTreeMap<ConnId, (HostId, Duration, Counters)>,
    /// Where each host stood, by tenant.
    pub positions: BTreeMap<(usize, TenantName), Position>,
    /// The newest (term, incarnation, revision) each host has shown to know.
    pub heads: BTreeMap<usize, (u64, [u8; 16], u64)>,
    /// The store's beginning at each host, which tells one store from the next.
    pub stores: BTreeMap<usize, Vec<u8>>,
    /// Hosts that were unsealed, and that nobody who may has sealed since.
    pub open: BTreeSet<usize>,
    /// Leases by host.
    pub leases: BTreeMap<usize, LeaseModel>,
    /// An older state of central's store, with what ought to be in it.
    pub older: Option<MemoryEngine>,
    /// What ought to be in `older`.
    pub older_tenants: Vec<Tenant>,
    /// Sites in `older`.
    pub older_sites: Vec<SiteName>,
    /// How many sites were ever made.
    pub sites_made: usize,
    /// Which seal key opens `older`.
    pub older_key: usize,
    /// How far central was before it was restored, if it was.
    pub restored_from: Option<u64>,
    /// Bundles that a hostile relay has kept, by site.
    pub bundles: BTreeMap<SiteName, Vec<Vec<u8>>>,
    /// The next value's number.
    pub next_value: u64,
}

impl Model {
    /// A fence is committed.
    pub fn fence_committed(&mut self, place: &SiteName, name: Option<&HostName>) {
        match name {
            None => drop(self.fenced_sites.insert(place.clone())),
            Some(name) => drop(self.fenced_hosts.insert(HostId { site: place.clone(), host: name.clone() })),
        }
    }

    /// Nothing may go there from here on.
    pub fn fence_returned(&mut self, place: &SiteName, name: Option<&HostName>) {
        match name {
            None if self.fenced_sites.contains(place) => drop(self.returned_sites.insert(place.clone())),
            Some(name) => {
                let id = HostId { site: place.clone(), host: name.clone() };
                if self.fenced_hosts.contains(&id) {
                    self.returned_hosts.insert(id);
                }
            }
            None => {}
        }
    }

    /// Central has cut a host off by itself.
    pub fn cut_by_central(&mut self, id: &HostId) {
        self.fenced_hosts.insert(id.clone());
        self.returned_hosts.insert(id.clone());
    }

    /// Taken back.
    pub fn readmitted(&mut self, place: &SiteName, name: Option<&HostName>) {
        match name {
            None => {
                self.fenced_sites.remove(place);
                self.returned_sites.remove(place);
            }
            Some(name) => {
                let id = HostId { site: place.clone(), host: name.clone() };
                self.fenced_hosts.remove(&id);
                self.returned_hosts.remove(&id);
            }
        }
    }

    /// A crash came while something was decided.
    pub fn standing_is_unknown(&mut self) {
        self.unknown_standing = true;
    }

    /// Whether nothing may be handed to this host.
    pub fn is_cut_off(&self, id: &HostId) -> bool {
        self.returned_hosts.contains(id) || self.returned_sites.contains(&id.site)
    }

    /// Whether a fence against it is committed.
    pub fn is_fenced(&self, id: &HostId) -> bool {
        self.fenced_hosts.contains(id) || self.fenced_sites.contains(&id.site)
    }

    /// A pass is committed.
    pub fn passed(&mut self, pass: &Pass, mono: Duration) {
        self.passes.insert(pass.conn, (pass.host.clone(), mono, pass.counters));
    }

    /// Whether a box is at a site, where that is known.
    pub fn is_placed(of: &BoxModel, site: &SiteName) -> Option<bool> {
        of.placed.known().map(|placed| placed.as_ref().is_none_or(|sites| sites.contains(site)))
    }
}

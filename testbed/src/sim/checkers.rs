//! The invariants of the design that the model can see. What changed is looked at after each event; all of it every
//! fifty events and at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_actors::access_control::{VerifiedTokens, verify};
use holdfast_actors::audit_log::verify::verify_store;
use holdfast_actors::barrier::Snapshot;
use holdfast_actors::distribute::Gate;
use holdfast_actors::distribution::Copy;
use holdfast_actors::distribution::replica::locate;
use holdfast_actors::ports::Clock;
use holdfast_actors::rows::{Kind, ReadRows, Refusal, Rows};
use holdfast_actors::secret_store::{DepositBox, SecretPath, read_secret};
use holdfast_actors::site_registry::{Held, head, host, site};
use holdfast_actors::store::{Engine, View};
use holdfast_protocol::ids::{HostId, Realm, Revision};
use holdfast_protocol::wire::{FromCentral, FromHost, Head, Hello};
use holdfast_site_agent::local::Local;

use crate::sim::model::{BoxModel, LeaseModel, Model};
use crate::sim::sabotage::Sabotage;
use crate::sim::world::{Event, Phase, World};

/// Within this a host with which nothing is wrong has whatever is placed at its site: microseconds.
const IN_STEP_WITHIN_US: u64 = 100_000_000;
/// Within this a host in a trusted session has what is new: microseconds.
const SENT_WITHIN_US: u64 = 25_000_000;
/// Leases are compared this exactly: microseconds.
const LEASE_EXACT_US: u64 = 50_000;

/// How often each invariant was checked, and how far the stores were read.
#[derive(Debug, Default)]
pub struct Checks {
    /// By the name of the invariant.
    pub times: BTreeMap<&'static str, u64>,
    /// Up to where each host's store was read.
    scanned: BTreeMap<usize, (u64, Revision)>,
    /// Up to where central's store was read.
    scanned_central: (u64, Revision),
    /// Envelopes' nonces seen on disks, with a mark of what they were in.
    nonces: BTreeMap<[u8; 24], u64>,
}

impl Checks {
    fn note(&mut self, invariant: &'static str) {
        *self.times.entry(invariant).or_default() += 1;
    }
}

impl World {
    /// All of it.
    pub fn check_all(&mut self) {
        self.check_central_store();
        for host in 0..self.hosts.len() {
            self.check_host_store(host);
        }
        self.check_central_content();
        self.check_chains();
        self.check_in_step();
        let repeated = self.nonces.lock().expect("nobody panics with it").repeated;
        if repeated.is_some() {
            self.broken("INV-10", "a nonce was drawn twice".to_owned());
        }
        self.checks.note("INV-10");
    }

    // INV-1 and INV-10: what lies on the disks.

    fn check_central_store(&mut self) {
        if self.sabotaged(Sabotage::PlaintextRow) && self.central.up && self.events() > 200 {
            let leak = self.model.written.values().flatten().next().cloned().unwrap_or_default();
            let _ = super::at_once(self.central.barrier.write_boot(vec![("leak", Some(leak.into_bytes()))]));
        }
        let Ok(view) = self.central.engine.snapshot() else { return };
        let (life, from) = self.checks.scanned_central;
        let from = if life == self.central.life { from } else { Revision::default() };
        self.checks.scanned_central = (self.central.life, self.scan("central", &*view, from));
    }

    fn check_host_store(&mut self, host: usize) {
        let Ok(view) = self.hosts[host].engine.snapshot() else { return };
        let (life, from) = self.checks.scanned.get(&host).copied().unwrap_or_default();
        let from = if life == self.hosts[host].life { from } else { Revision::default() };
        let name = self.hosts[host].id.to_string();
        let until = self.scan(&name, &*view, from);
        let life = self.hosts[host].life;
        self.checks.scanned.insert(host, (life, until));
        if let Some(local) = self.hosts[host].local.clone() {
            self.check_foreign_rows(host, &local);
        }
    }

    /// Reads what was written since.
    fn scan(&mut self, whose: &str, view: &dyn View, from: Revision) -> Revision {
        self.checks.note("INV-1");
        let changes = match view.changes(from, usize::MAX) {
            Ok(changes) => changes,
            Err(fault) => {
                self.broken("INV-1", format!("the store of {whose} can't be looked through: {fault}"));
                return from;
            }
        };
        for change in changes.into_iter().filter(|change| !change.deleted) {
            let entry = match view.get(&change.key) {
                Ok(Some(entry)) => entry,
                // It was changed again, and is gone.
                Ok(None) => continue,
                Err(fault) => {
                    self.broken("INV-1", format!("a row of {whose} can't be read: {fault}"));
                    continue;
                }
            };
            if holds(&entry.value, b"canary-") || holds(&change.key, b"canary-") {
                self.broken("INV-1", format!("a secret lies in clear in the store of {whose}"));
            }
            if let Some(nonce) = nonce_of(&entry.value) {
                let mark = mark_of(&entry.value);
                if self.checks.nonces.insert(nonce, mark).is_some_and(|before| before != mark) {
                    self.broken("INV-10", format!("two records have one nonce, the second at {whose}"));
                }
            }
        }
        view.revision()
    }

    // INV-2: what was acknowledged is there.

    /// Central's content against what was acknowledged.
    pub fn check_central_content(&mut self) {
        let Ok(snapshot) = self.central.barrier.snapshot() else { return };
        self.checks.note("INV-2");
        let mut found = None;
        for tenant in &self.model.tenants {
            for (slug, of) in &tenant.boxes {
                found = found.or(central_differs(&snapshot, tenant.realm, &tenant.caller, slug, of));
            }
        }
        if let Some(what) = found {
            self.broken("INV-2", what);
        }
    }

    /// Central is open again: what a crash left open is settled by what is there.
    pub fn central_is_open(&mut self) {
        self.check_central_content();
        let Ok(snapshot) = self.central.barrier.snapshot() else { return };
        for tenant in &mut self.model.tenants {
            let (realm, caller) = (tenant.realm, tenant.caller.clone());
            tenant.boxes.retain(|slug, of| settle(&snapshot, realm, &caller, slug, of));
            let lines = snapshot.change_head(realm).map_or(0, |head| head.seq);
            if (tenant.lines..=tenant.lines + tenant.lines_perhaps).contains(&lines) {
                (tenant.lines, tenant.lines_perhaps) = (lines, 0);
            }
        }
        self.check_standing(&snapshot);
    }

    /// What is cut off is what the rows say, where the model can't know.
    pub fn settle_standing(&mut self) {
        if let Ok(snapshot) = self.central.barrier.snapshot() {
            self.check_standing(&snapshot);
        }
    }

    /// Whether central knows a host and its identity; one that was made after the copy it was restored from it does not.
    pub fn is_known(&self, index: usize) -> bool {
        let Ok(snapshot) = self.central.barrier.snapshot() else { return false };
        host(&snapshot, &self.hosts[index].id).is_ok_and(|row| row.value.identity.is_some())
    }

    fn check_standing(&mut self, snapshot: &Snapshot) {
        let site_held = |name| site(snapshot, name).is_ok_and(|row| row.value.standing.held == Held::Quarantined);
        let host_held = |id: &HostId| host(snapshot, id).is_ok_and(|row| row.value.standing.held == Held::Quarantined);
        if !std::mem::take(&mut self.model.unknown_standing) {
            let lost_site = self.model.fenced_sites.iter().find(|name| !site_held(name)).map(ToString::to_string);
            let lost_host = self.model.fenced_hosts.iter().find(|id| !host_held(id)).map(ToString::to_string);
            if let Some(lost) = lost_site.or(lost_host) {
                self.broken("INV-2", format!("the quarantine of {lost} is forgotten"));
            }
            return;
        }
        let model = &mut self.model;
        model.fenced_sites = model.sites.iter().filter(|name| site_held(name)).cloned().collect();
        model.fenced_hosts = self.hosts.iter().map(|it| it.id.clone()).filter(host_held).collect();
        model.returned_sites.retain(|name| model.fenced_sites.contains(name));
        model.returned_hosts.retain(|id| model.fenced_hosts.contains(id));
    }

    // INV-3 and INV-6: what is handed to a host's transport.

    /// Something is about to be handed to a host's transport.
    pub fn check_handed_over(&mut self, id: &HostId, conn: u64, message: &FromCentral, releases: bool) {
        self.checks.note("INV-3");
        let gives = match message {
            FromCentral::Verdict(verdict) => verdict.lease.is_some(),
            FromCentral::Session(_)
            | FromCentral::Sealed { .. }
            | FromCentral::Bundle(_)
            | FromCentral::Head(_)
            | FromCentral::Permit(_)
            | FromCentral::Share(_) => true,
            FromCentral::Welcome { .. }
            | FromCentral::Challenge(_)
            | FromCentral::Standing(_)
            | FromCentral::Sibling(_)
            | FromCentral::Certificate { .. } => false,
        };
        if gives && (self.model.is_cut_off(id) || self.model.is_fenced(id)) {
            self.broken("INV-3", format!("{id} was given something after it was cut off"));
        }
        if gives && self.central.is_outdated() {
            self.broken("INV-4", format!("{id} was given something by a central that knows it is an older copy"));
        }
        if releases {
            self.check_release(id, conn);
        }
    }

    fn check_release(&mut self, id: &HostId, conn: u64) {
        self.checks.note("INV-6");
        self.count("releases");
        let quoted = self.hosts.iter().find(|it| it.id == *id).and_then(|it| it.chip.last_quote());
        let passed =
            self.model.passes.get(&conn).filter(|(of, at, _)| of == id && self.central.now().mono - *at < FRESH);
        let recorded = self.central.barrier.snapshot().ok().and_then(|rows| host(&rows, id).ok());
        let counters = recorded.and_then(|row| row.value.counters);
        let Some((_, _, of_pass)) = passed else {
            return self.broken("INV-6", format!("a key goes to {id} on a connection that has not passed"));
        };
        if counters.is_none_or(|held| held.reset_count < of_pass.reset_count) {
            self.broken("INV-6", format!("a key goes to {id}, and its pass is not recorded"));
        }
        if !quoted.is_some_and(|quote| quote.right) {
            self.broken("INV-6", format!("a key goes to {id}, which has quoted the wrong registers"));
        }
    }

    // INV-4: nothing goes back.

    /// A host after something has happened at it.
    pub fn check_host(&mut self, index: usize, local: &Arc<Local>) {
        if self.hosts[index].local.is_none() {
            return;
        }
        self.checks.note("INV-4");
        if let Some(signed) = &local.contact().head
            && let Some(head) = local.trust.remembered_head(signed)
        {
            self.check_head(index, &head);
        }
        let Ok(Some(boot)) = local.boot.root() else { return };
        let Ok(positions) = local.replica.positions() else { return };
        let store = self.store_of(local);
        if self.model.stores.get(&index) != Some(&store) {
            // Another store began: it has nothing yet.
            self.model.stores.insert(index, store);
            self.model.positions.retain(|(of, _), _| *of != index);
        }
        drop(boot);
        for held in positions {
            let at = held.position;
            let before = self.model.positions.insert((index, held.tenant.clone()), at);
            if let Some(before) = before
                && (at.term, at.dist_epoch, at.seq) < (before.term, before.dist_epoch, before.seq)
            {
                let id = &self.hosts[index].id;
                let what = format!("{id} went back from {before:?} to {at:?} of {}", held.tenant);
                self.broken("INV-4", what);
            }
        }
    }

    fn store_of(&self, local: &Local) -> Vec<u8> {
        local.barrier.ring().map(|ring| ring.root().expose().to_vec()).unwrap_or_default()
    }

    fn check_head(&mut self, index: usize, head: &Head) {
        let (now, before) = ((head.term.0, head.incarnation, head.revision.0), self.model.heads.get(&index).copied());
        if let Some(before) = before
            && (now.0 < before.0 || (now.0 == before.0 && now.1 == before.1 && now.2 < before.2))
        {
            self.broken("INV-4", format!("{} took an older head", self.hosts[index].id));
        }
        self.model.heads.insert(index, now);
    }

    /// Sabotage: a host forgets the head it knows.
    pub fn forget_head(&mut self, host: usize) {
        if let Some(local) = &self.hosts[host].local {
            let mut contact = local.contact.lock().expect("nobody panics with it");
            contact.head = None;
        }
    }

    /// A hello was answered: central has noticed whether it shows a newer head.
    pub fn check_noticed(&mut self, index: usize, hello: &Hello) {
        if hello.head.is_none() || self.central.hub.is_none() || self.central.engine.has_stopped() {
            return;
        }
        let Some((term, _, revision)) = self.model.heads.get(&index).copied() else { return };
        let Ok(snapshot) = self.central.barrier.snapshot() else { return };
        let Ok(ours) = head(&snapshot) else { return };
        self.checks.note("INV-4");
        if (ours.term.0, ours.revision.0) < (term, revision) && !self.central.is_outdated() {
            self.broken("INV-4", "a restored central goes on though a host shows a newer head".to_owned());
        }
    }

    // INV-5: whose content lies where.

    fn check_foreign_rows(&mut self, index: usize, local: &Local) {
        let Ok(snapshot) = local.barrier.snapshot() else { return };
        self.checks.note("INV-5");
        let Ok(copies) = snapshot.list::<Copy>(Realm::NODE, &[]) else { return };
        let here = &self.hosts[index].id.site;
        let mut found = None;
        for row in copies {
            let Some(realm) = row.value.realm else { continue };
            let Some(tenant) = self.model.tenants.iter().find(|tenant| tenant.name.as_str() == row.name()) else {
                continue;
            };
            for of in snapshot.list::<DepositBox>(realm, &[]).unwrap_or_default() {
                let may = tenant.boxes.get(of.name()).is_some_and(|of| of.ever_all || of.ever.contains(here));
                if !may && self.model.restored_from.is_none() {
                    found =
                        Some(format!("box {} of {} is at {here}, where it was never placed", of.name(), row.name()));
                }
            }
            let written = self.model.written.get(&tenant.name);
            for raw in snapshot.scan(Kind::Secret, realm, &[]).unwrap_or_default() {
                let Some(body) = raw.body else { continue };
                let value = canary_in(body.expose());
                if !value.is_some_and(|value| written.is_some_and(|written| written.contains(&value))) {
                    found = Some(format!("what was never written for {} lies in its content at {here}", row.name()));
                }
            }
        }
        if let Some(what) = found {
            self.broken("INV-5", what);
        }
    }

    // INV-7: the chains.

    fn check_chains(&mut self) {
        if let Ok(view) = self.central.engine.snapshot()
            && self.events().is_multiple_of(250)
        {
            self.check_chain("central", &*view);
        }
        let index = (self.events() / 50) as usize % self.hosts.len().max(1);
        if let Some(Ok(view)) = self.hosts.get(index).map(|host| host.engine.snapshot()) {
            let name = self.hosts[index].id.to_string();
            self.check_chain(&name, &*view);
        }
        let Ok(snapshot) = self.central.barrier.snapshot() else { return };
        for tenant in self.model.tenants.clone() {
            self.checks.note("INV-7");
            let lines = snapshot.change_head(tenant.realm).map_or(0, |head| head.seq);
            if !(tenant.lines..=tenant.lines + tenant.lines_perhaps).contains(&lines) {
                let what = format!("{} has {lines} lines for {} changes", tenant.name, tenant.lines);
                self.broken("INV-7", what);
            }
        }
    }

    fn check_chain(&mut self, whose: &str, view: &dyn View) {
        self.checks.note("INV-7");
        match verify_store(view) {
            Ok(report) if report.first_break.is_none() => {}
            Ok(report) => self.broken("INV-7", format!("{whose}: {:?}", report.first_break)),
            Err(fault) => self.broken("INV-7", format!("{whose}: {fault}")),
        }
    }

    /// Lines of the node's chain at central.
    pub fn lines_of_node(&self) -> u64 {
        self.central
            .barrier
            .snapshot()
            .ok()
            .and_then(|rows| rows.change_head(Realm::NODE).ok())
            .map_or(0, |head| head.seq)
    }

    /// A change was made since `before`: it has exactly one line.
    pub fn check_one_line(&mut self, before: u64, what: &str) {
        self.checks.note("INV-7");
        let after = self.lines_of_node();
        if after != before + 1 && !self.central.engine.has_stopped() {
            self.broken("INV-7", format!("{what} left {} lines", after - before));
        }
    }

    // INV-9: nobody waits for another, and reads go on without the WAN.

    fn check_in_step(&mut self) {
        if self.central.disk.is_full() || self.central.hub.is_none() || self.central.is_outdated() {
            return;
        }
        let Ok(snapshot) = self.central.barrier.snapshot() else { return };
        let mut late = None;
        for index in 0..self.hosts.len() {
            if let Some(by_us) = self.in_step_by(index, &snapshot) {
                self.checks.note("INV-9");
                late = late.or(self.lag_of(index, by_us));
            }
        }
        if let Some(what) = late {
            self.broken("INV-9", format!("nothing is wrong with it, and yet: {what}"));
        }
    }

    /// Up to when a host must have what was placed at its site; `None` while something is wrong with it.
    fn in_step_by(&self, index: usize, rows: &Snapshot) -> Option<u64> {
        let (it, now_us) = (&self.hosts[index], self.time.us());
        let disturbed = it.outage.is_some() || it.disk.is_full() || it.chip.is_wrong() || it.chip.fails();
        let local = it.local.as_ref()?;
        let held = host(rows, &it.id).map_or(Held::Quarantined, |row| row.value.standing.held);
        let by_operator = local.seal.is_sealed() && local.status.get().sealed_by_operator;
        if disturbed || by_operator || held != Held::Nothing || self.model.is_fenced(&it.id) {
            return None;
        }
        let well_us = now_us.saturating_sub(it.well_since_us.max(self.central.well_since_us));
        if IN_STEP_WITHIN_US < well_us {
            return Some(now_us - IN_STEP_WITHIN_US);
        }
        // While it is in a session that is trusted it need not come back first.
        let live = self.central.hub.as_ref()?.live.get(&it.id)?;
        let trusted = live.trusted_until.is_some_and(|until| self.central.now().mono < until);
        let session_us = now_us - it.session.as_ref()?.begun_us;
        let goes_on = trusted && !local.seal.is_sealed() && SENT_WITHIN_US < session_us.min(well_us);
        goes_on.then(|| now_us - SENT_WITHIN_US)
    }

    /// What is not as it should be at a host that should have all that was placed there by then.
    pub fn lag_of(&self, index: usize, by_us: u64) -> Option<String> {
        let it = &self.hosts[index];
        let Some(local) = it.local.as_ref().filter(|local| !local.seal.is_sealed()) else {
            return Some(format!("{} is sealed", it.id));
        };
        let Ok(snapshot) = local.barrier.snapshot() else { return Some(format!("{} is sealed", it.id)) };
        for tenant in &self.model.tenants {
            let realm = locate(&snapshot, tenant.realm.0).ok().flatten();
            if let Some(what) = differs(&snapshot, realm, &it.id, &tenant.boxes, by_us) {
                return Some(format!("{} of {}: {what}", it.id, tenant.name));
            }
        }
        None
    }

    /// Whether a message brings a lease.
    pub fn is_pass(message: &FromCentral) -> bool {
        matches!(message, FromCentral::Verdict(verdict) if verdict.passed)
    }

    /// A passing verdict has been taken by a host.
    pub fn note_lease(&mut self, index: usize) {
        if let Some(quote) = self.hosts[index].chip.last_quote() {
            self.model.leases.insert(index, LeaseModel { quoted_us: quote.at_us, reset: quote.reset });
        }
    }

    /// Somebody reads at a site.
    pub fn read_at_site(&mut self, index: usize) {
        let Some(local) = self.hosts[index].local.clone() else { return };
        if self.sabotaged(Sabotage::SealWithoutWan) && self.hosts[index].outage.is_some() && !local.seal.is_sealed() {
            super::at_once(local.shut("nobody"));
        }
        let Ok(snapshot) = local.barrier.snapshot() else {
            self.checks.note("INV-9");
            if self.model.open.contains(&index) {
                self.broken_read(index, "it is sealed, and nobody who may has sealed it");
            }
            return;
        };
        let tenant = self.dice.below(self.model.tenants.len());
        let Some(of) = self.model.tenants.get(tenant).cloned() else { return };
        let slugs: Vec<String> = of.boxes.keys().cloned().collect();
        let Some(slug) = self.dice.pick(&slugs) else { return };
        let secret = &format!("s{}", self.dice.below(6));
        self.count("reads at sites");
        self.checks.note("INV-9");
        let serve_all = self.sabotaged(Sabotage::ServeAfterLease);
        let mono = local.clock.now().mono;
        let gate = Gate {
            site: Some(&self.hosts[index].id.site),
            lease_ok: &|offline_s| serve_all || local.leases.holds(offline_s, mono),
            read: &|_, _| {},
        };
        let locate = |number| locate(&snapshot, number).ok().flatten();
        // By the bound that its copy has: one of a life of central that was lost may have had another.
        let held = locate(of.realm.0).and_then(|realm| snapshot.read::<DepositBox>(realm, &[slug]).ok().flatten());
        let lease_held = held.and_then(|row| self.lease_holds(index, row.value.distribute.offline_s));
        let read =
            verify(&of.token, &locate, &snapshot, local.clock.now(), &VerifiedTokens::default()).and_then(|caller| {
                let path = SecretPath::new(vec![secret.clone()])?;
                read_secret(&snapshot, &caller, &gate, ("app", slug), &path)
            });
        let lost = self.sabotaged(Sabotage::RefuseReads) && self.dice.per_mille(200);
        match if lost { Err(Refusal::NotFound("secret")) } else { read } {
            Ok(view) => {
                let value = canary_in(view.data.expose());
                let known =
                    value.is_some_and(|value| self.model.written.get(&of.name).is_some_and(|all| all.contains(&value)));
                if !known {
                    self.broken("INV-5", format!("a read of {} gave what was never written for it", of.name));
                }
                if lease_held == Some(false) {
                    self.broken_read(index, "it serves beyond its lease");
                }
            }
            Err(Refusal::LeaseExpired) if lease_held == Some(true) && !self.hosts[index].disk.is_full() => {
                self.broken_read(index, "it refuses within its lease");
            }
            Err(refusal @ (Refusal::NotFound(_) | Refusal::Unauthenticated | Refusal::Denied)) => {
                if self.must_serve(index, tenant, slug, secret) {
                    self.broken_read(index, &format!("it refuses what has long been there: {refusal}"));
                }
            }
            // Beyond its lease, or nobody knows.
            Err(Refusal::LeaseExpired) => {}
            Err(refusal) => self.broken_read(index, &format!("a read fails: {refusal}")),
        }
    }

    /// Whether a host has had all the time it may take to have a secret.
    fn must_serve(&self, index: usize, tenant: usize, slug: &str, secret: &str) -> bool {
        let Some(by_us) = self.must_hold_by(index) else { return false };
        let of = &self.model.tenants[tenant].boxes[slug];
        let long_there = of.changed_us <= by_us && of.written_us.get(secret).is_some_and(|at| *at <= by_us);
        let value = of.secrets.get(secret).and_then(|known| known.known());
        let placed = Model::is_placed(of, &self.hosts[index].id.site) == Some(true);
        long_there && placed && of.there.known() == Some(&true) && value.is_some_and(Option::is_some)
    }

    /// Up to when a host must have what was placed at its site; `None` while something is wrong with it or with central.
    fn must_hold_by(&self, index: usize) -> Option<u64> {
        let broken = self.central.disk.is_full() || self.central.hub.is_none() || self.central.is_outdated();
        let snapshot = if broken { None } else { self.central.barrier.snapshot().ok() };
        self.in_step_by(index, &snapshot?)
    }

    /// Something has happened at a host's seal; `told` if by somebody who may seal it: its operator, or central by a
    /// notice, a failed verdict or a refusal.
    pub fn note_seal(&mut self, index: usize, told: bool) {
        if self.hosts[index].is_unsealed() {
            self.model.open.insert(index);
        } else if told {
            self.model.open.remove(&index);
        }
    }

    fn broken_read(&mut self, index: usize, what: &str) {
        let id = self.hosts[index].id.clone();
        self.broken("INV-9", format!("{id}: {what}"));
    }

    /// Whether a lease holds; `None` where it is too close to tell, or nothing was ever given.
    fn lease_holds(&self, index: usize, offline_s: Option<u64>) -> Option<bool> {
        let Some(offline_s) = offline_s else { return Some(true) };
        let lease = self.model.leases.get(&index)?;
        if lease.reset != self.hosts[index].chip.resets() {
            return Some(false);
        }
        let (age_us, bound_us) = (self.time.us() - lease.quoted_us, offline_s * 1_000_000);
        if age_us.abs_diff(bound_us) < LEASE_EXACT_US { None } else { Some(age_us < bound_us) }
    }

    // The end.

    /// Whether all is well.
    pub fn is_settled(&self) -> bool {
        self.central.hub.is_some()
            && !self.central.is_outdated()
            && self.all_trusted()
            && self.known_hosts().all(|host| self.lag_of(host, u64::MAX).is_none())
    }

    /// All hosts; where central was restored from a copy only those that the copy knows.
    fn known_hosts(&self) -> impl Iterator<Item = usize> {
        (0..self.hosts.len()).filter(|host| self.model.restored_from.is_none() || self.is_known(*host))
    }

    fn all_trusted(&self) -> bool {
        self.known_hosts().all(|host| self.is_in_step(host))
    }

    /// Whether central trusts a host and knows that it has everything.
    fn is_in_step(&self, host: usize) -> bool {
        let now = self.central.now().mono;
        let live = self.central.hub.as_ref().and_then(|hub| hub.live.get(&self.hosts[host].id));
        live.is_some_and(|live| live.lag == 0 && live.trusted_until.is_some_and(|until| now < until))
    }

    /// The end of a run: all is well, or it is said what is not.
    pub fn check_settled(&mut self) {
        self.checks.note("converges");
        self.check_all();
        if let Phase::Calm { until_us } = self.phase
            && until_us < self.time.us()
            && !self.is_settled()
        {
            let what = self.what_is_not_well();
            self.broken("converges", what);
        }
    }

    fn what_is_not_well(&self) -> String {
        if self.central.hub.is_none() {
            return format!("central is not open (up: {})", self.central.up);
        }
        if let Some(what) = self.known_hosts().find_map(|host| self.lag_of(host, u64::MAX)) {
            return what;
        }
        let named = self.known_hosts().find(|host| !self.is_in_step(*host)).map(|host| self.hosts[host].id.to_string());
        format!("central does not trust {}, or does not know that it is in step", named.unwrap_or_default())
    }
}

/// A pass is fresh for so long: two intervals and a half of the longest policy here, and a minute.
const FRESH: std::time::Duration = std::time::Duration::from_secs(210);

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

/// The nonce of a stored envelope.
fn nonce_of(value: &[u8]) -> Option<[u8; 24]> {
    let [1, 1, ..] = value else { return None };
    value.get(6..30)?.try_into().ok()
}

/// Tells contents apart.
fn mark_of(value: &[u8]) -> u64 {
    value.iter().fold(0xCBF2_9CE4_8422_2325, |mark, byte| (mark ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// The value in a record or an answer.
pub fn canary_in(body: &[u8]) -> Option<String> {
    let at = body.windows(7).position(|window| window == b"canary-")?;
    let rest = &body[at..];
    let end = rest.iter().position(|byte| *byte == b'"').unwrap_or(rest.len());
    String::from_utf8(rest[..end].to_vec()).ok()
}

fn value_at(
    rows: &Snapshot,
    caller: &holdfast_actors::access_control::Caller,
    slug: &str,
    path: &str,
) -> Result<Option<String>, Refusal> {
    let path = SecretPath::new(vec![path.to_owned()])?;
    match read_secret(rows, caller, &Gate::CENTRAL, ("app", slug), &path) {
        Ok(view) => Ok(canary_in(view.data.expose())),
        Err(Refusal::NotFound(_)) => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

fn central_differs(
    rows: &Snapshot,
    realm: Realm,
    caller: &holdfast_actors::access_control::Caller,
    slug: &str,
    of: &BoxModel,
) -> Option<String> {
    let there = match rows.read::<DepositBox>(realm, &[slug]) {
        Ok(there) => there,
        Err(refusal) => return Some(format!("box {slug} can't be read: {refusal}")),
    };
    if !of.there.options.contains(&there.is_some()) {
        return Some(format!("box {slug} is lost"));
    }
    let placed = super::operators::sites_of(&there?.value.distribute.to);
    if !of.placed.options.contains(&placed) {
        return Some(format!("box {slug} is placed elsewhere than was acknowledged"));
    }
    for (path, known) in &of.secrets {
        match value_at(rows, caller, slug, path) {
            Ok(value) if known.options.contains(&value) => {}
            Ok(_) => return Some(format!("{slug}/{path} is not what was acknowledged")),
            Err(refusal) => return Some(format!("{slug}/{path} can't be read: {refusal}")),
        }
    }
    None
}

/// What a crash left open is what is there; whether the box is there.
fn settle(
    rows: &Snapshot,
    realm: Realm,
    caller: &holdfast_actors::access_control::Caller,
    slug: &str,
    of: &mut BoxModel,
) -> bool {
    let Ok(there) = rows.read::<DepositBox>(realm, &[slug]) else { return true };
    let Some(there) = there else { return false };
    of.there.set(true);
    of.placed.set(super::operators::sites_of(&there.value.distribute.to));
    for (path, known) in &mut of.secrets {
        if let Ok(value) = value_at(rows, caller, slug, path) {
            known.set(value);
        }
    }
    true
}

/// How a host's copy of a tenant's content differs from what is placed there; what changed later, or is not known for
/// certain, is not asked for.
fn differs(
    rows: &Snapshot,
    realm: Option<Realm>,
    id: &HostId,
    boxes: &BTreeMap<String, BoxModel>,
    by_us: u64,
) -> Option<String> {
    let mut held: BTreeMap<Vec<String>, String> = BTreeMap::new();
    let mut bounds = BTreeMap::new();
    if let Some(realm) = realm {
        let found = rows.list::<DepositBox>(realm, &[]).and_then(|all| Ok((all, rows.scan(Kind::Secret, realm, &[])?)));
        let (placed, secrets) = match found {
            Ok(found) => found,
            Err(refusal) => return Some(format!("its content can't be listed: {refusal}")),
        };
        bounds.extend(placed.iter().map(|row| (row.name().to_owned(), row.value.distribute.offline_s)));
        held.extend(placed.into_iter().map(|row| (row.path, String::new())));
        for raw in secrets {
            if let Some(value) = raw.body.and_then(|body| canary_in(body.expose())) {
                held.insert(raw.path, value);
            }
        }
    }
    for (slug, of) in boxes.iter().filter(|(_, of)| of.changed_us <= by_us) {
        let Some(placed) = Model::is_placed(of, &id.site) else { continue };
        if held.contains_key(&vec![slug.clone()]) != placed {
            return Some(format!("box {slug} is {}here", if placed { "not " } else { "" }));
        }
        if bounds.get(slug).is_some_and(|bound| *bound != of.offline_s) {
            return Some(format!("box {slug} may be served for another time than it should"));
        }
        for (path, known) in
            of.secrets.iter().filter(|(path, _)| of.written_us.get(*path).is_none_or(|at| *at <= by_us))
        {
            let Some(value) = known.known() else { continue };
            let wanted = value.as_ref().filter(|_| placed);
            if held.get(&vec![slug.clone(), path.clone()]) != wanted {
                return Some(format!("{slug}/{path} is not as it should be"));
            }
        }
    }
    held.keys().find(|path| !boxes.contains_key(&path[0])).map(|path| format!("{} is of no box", path.join("/")))
}

impl World {
    /// A hostile relay delivers a bundle once more, or a site's bundles in another order.
    pub fn replay(&mut self, host: usize) {
        let site = self.hosts[host].id.site.clone();
        let Some(kept) = self.model.bundles.get(&site).cloned() else { return };
        let Some(bytes) = self.dice.pick(&kept).cloned() else { return };
        let Some(local) = self.hosts[host].local.clone() else { return };
        self.count("bundles replayed");
        if self.sabotaged(Sabotage::SkipJudge) {
            self.apply_without_judging(&local, &bytes);
        } else {
            let _ = super::at_once(local.take_bundle(&bytes));
        }
        self.check_host(host, &local);
    }

    fn apply_without_judging(&mut self, local: &Local, bytes: &[u8]) {
        let Ok(verified) = local.trust.bundle(bytes, local.clock.now().wall_s()) else { return };
        let header = verified.header.clone();
        let _ = super::at_once(local.barrier.run(move |rows| {
            let name = header.tenant.as_str();
            let mut batch = holdfast_actors::rows::Batch::housekeeping();
            if let Some(mut copy) = rows.read::<Copy>(Realm::NODE, &[name])?.map(|row| row.value) {
                copy.position = header.target;
                batch.put(Realm::NODE, &[name], &copy);
            }
            Ok((batch, ()))
        }));
    }

    /// Keeps a bundle for a hostile relay.
    pub fn overhear(&mut self, id: &HostId, message: &FromCentral) {
        if let FromCentral::Bundle(bytes) = message {
            let kept = self.model.bundles.entry(id.site.clone()).or_default();
            if kept.len() < 40 {
                kept.push(bytes.clone());
            } else {
                let at = self.dice.below(40);
                if let Some(kept) = self.model.bundles.get_mut(&id.site) {
                    kept[at].clone_from(bytes);
                }
            }
        }
    }

    /// The names of an event, short: for the digest and for whoever steps through.
    pub fn name_of(event: &Event) -> String {
        use crate::sim::network::Parcel;
        match event {
            Event::Arrives(link, Parcel::Up(message)) => format!("link {link} up {}", name_up(message)),
            Event::Arrives(link, Parcel::Down(message)) => format!("link {link} down {}", name_down(message)),
            Event::Passes(hub, pass) => format!("pass of {} on {} ({hub})", pass.host, pass.conn),
            Event::Builds(hub, (tenant, site), ..) => format!("build of {tenant} for {site} ({hub})"),
            other => format!("{other:?}"),
        }
    }
}

fn name_up(message: &FromHost) -> String {
    match message {
        FromHost::Hello(hello) => format!("hello, sealed {}", hello.needs_seal_key),
        FromHost::Quote(_) => "quote".to_owned(),
        other => format!("{other:?}"),
    }
}

fn name_down(message: &FromCentral) -> &'static str {
    match message {
        FromCentral::Welcome { .. } => "welcome",
        FromCentral::Challenge(_) => "challenge",
        FromCentral::Verdict(_) => "verdict",
        FromCentral::Session(_) => "session key",
        FromCentral::Sealed { .. } => "sealed",
        FromCentral::Bundle(_) => "bundle",
        FromCentral::Standing(_) => "notice",
        FromCentral::Head(_) => "head",
        FromCentral::Permit(_) => "permit",
        FromCentral::Share(_) => "share",
        FromCentral::Sibling(_) => "sibling's notice",
        FromCentral::Certificate { .. } => "certificate",
    }
}

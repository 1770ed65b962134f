//! What people do, and what goes wrong, at random: weighted so that runs are long and much happens in them.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_actors::access_control::tenants::{CreateTenant, create_root_token, create_tenant};
use holdfast_actors::access_control::tokens::mint;
use holdfast_actors::access_control::{TenantKind, TokenId, VerifiedTokens, verify};
use holdfast_actors::audit_log::Line;
use holdfast_actors::distribute::{Distribute, Placement};
use holdfast_actors::ports::{Now, draw, draw_secret};
use holdfast_actors::rows::{Batch, ReadRows, Refusal, Rows};
use holdfast_actors::secret_store::{
    CheckedData, CreateBox, CurrentSecret, DeleteSecret, DepositBox, Marks, NewBox, SecretPath, Stamp, WriteSecret,
    create_box, default_categories, delete_secret, write_secret,
};
use holdfast_actors::site_registry::authorities::FreshKey;
use holdfast_actors::site_registry::sites::{
    Appraisal, CreateSite, Invite, NewHost, TOKEN_VALID_S, create_site, invite,
};
use holdfast_actors::site_registry::standing::Decision;
use holdfast_actors::site_registry::{EkTrust, Held, host, hosts, site};
use holdfast_actors::store::memory::MemoryEngine;
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{HostId, Realm, SiteName};
use holdfast_protocol::pki::pem;
use holdfast_protocol::secret::SecretBytes;
use holdfast_protocol::site_bundle::SiteBundle;
use holdfast_site_agent::state::{JoinState, StateFile};
use holdfast_site_agent::tpm::{AkBlob, EkKind, Identity, SealedBlob};
use holdfast_site_agent::uplink::core::{Attempt, Uplink};

use crate::sim::at_once;
use crate::sim::chance::SeededEntropy;
use crate::sim::chip::SimTpm;
use crate::sim::clock::MachineClock;
use crate::sim::disk::Disk;
use crate::sim::host::SimHost;
use crate::sim::model::{BoxModel, Known, Tenant};
use crate::sim::sabotage::Sabotage;
use crate::sim::world::{Event, Phase, World};

/// The category that all boxes are in.
const CATEGORY: &str = "app";
/// How long it may take at most until all is well again, once nothing goes wrong any more.
const WELL_WITHIN_US: u64 = 600_000_000;

/// What an operator sets out to do.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Write,
    Delete,
    Place,
    NewBox,
    ReadAtSite,
    ReadAtCentral,
    QuarantineHost,
    QuarantineSite,
    Readmit,
    Rotate,
    SealCentral,
    SealHost,
    NewSite,
    NewTenant,
    Tamper,
    Restore,
    Reboot,
    Replay,
}

/// What is done how often, of a thousand.
const DEEDS: [(Deed, u32); 18] = [
    (Deed::Write, 260),
    (Deed::Delete, 40),
    (Deed::Place, 80),
    (Deed::NewBox, 25),
    (Deed::ReadAtSite, 220),
    (Deed::ReadAtCentral, 50),
    (Deed::QuarantineHost, 20),
    (Deed::QuarantineSite, 6),
    (Deed::Readmit, 60),
    (Deed::Rotate, 8),
    (Deed::SealCentral, 4),
    (Deed::SealHost, 10),
    (Deed::NewSite, 6),
    (Deed::NewTenant, 4),
    (Deed::Tamper, 8),
    (Deed::Restore, 40),
    (Deed::Reboot, 15),
    (Deed::Replay, 60),
];

impl World {
    /// A deployment, with tenants, boxes, sites and hosts.
    pub fn set_up(&mut self) {
        self.begin_deployment();
        for _ in 0..1 + self.dice.below(3) {
            self.new_tenant();
        }
        let sites = if self.shape.sites <= 3 { 1 + self.dice.below(self.shape.sites) } else { self.shape.sites };
        for _ in 0..sites {
            self.new_site();
        }
        for _ in 0..self.model.tenants.len() * 2 {
            self.new_box();
        }
    }

    /// Disks begin to fail.
    pub fn let_things_go_wrong(&mut self) {
        self.central.disk.set_crashes(2);
        for host in &self.hosts {
            host.disk.set_crashes(4);
        }
    }

    /// Somebody does something.
    pub fn act(&mut self) {
        if self.phase != Phase::Chaos {
            self.tidy_up();
            self.settled = self.is_settled();
            return self.schedule(2_000_000, Event::Act);
        }
        if self.central.is_outdated() && self.dice.per_mille(150) {
            self.adopt();
        }
        let mut lot = self.dice.below(DEEDS.iter().map(|(_, weight)| *weight as usize).sum()) as u32;
        for (deed, weight) in DEEDS {
            if lot < weight {
                self.tell(|| format!("{deed:?}"));
                self.perform_deed(deed);
                break;
            }
            lot -= weight;
        }
        let in_us = self.dice.between(20_000, if self.shape.sites <= 3 { 1_500_000 } else { 6_000_000 });
        self.schedule(in_us, Event::Act);
    }

    fn perform_deed(&mut self, deed: Deed) {
        let host = self.dice.below(self.hosts.len());
        match deed {
            Deed::Write => self.write(),
            Deed::Delete => self.delete(),
            Deed::Place => self.place(),
            Deed::NewBox => self.new_box(),
            Deed::ReadAtSite => self.read_at_site(host),
            Deed::ReadAtCentral => self.check_central_content(),
            Deed::QuarantineHost => {
                let (id, wipe) = (self.hosts[host].id.clone(), self.dice.per_mille(300));
                self.decide(&id.site, Some(&id.host), Decision::Quarantine { wipe });
            }
            Deed::QuarantineSite => {
                let (id, wipe) = (self.hosts[host].id.clone(), self.dice.per_mille(200));
                self.decide(&id.site, None, Decision::Quarantine { wipe });
            }
            Deed::Readmit => self.readmit_one(),
            Deed::Rotate => self.rotate_seal(),
            Deed::SealCentral => {
                let again_us = self.dice.between(500_000, 40_000_000);
                self.seal_central(again_us);
            }
            Deed::SealHost => self.seal_host(host),
            Deed::NewSite if self.shape.sites <= 3 && self.hosts.len() < 9 => self.new_site(),
            Deed::NewTenant if self.model.tenants.len() < 3 => self.new_tenant(),
            Deed::NewSite | Deed::NewTenant => {}
            Deed::Tamper => self.tamper(host),
            Deed::Restore => self.restore_machine(host),
            Deed::Reboot => self.reboot(host),
            Deed::Replay => self.replay(host),
        }
    }

    /// Something goes wrong, or well again.
    pub fn misfortune(&mut self) {
        if self.phase != Phase::Chaos {
            return;
        }
        let host = self.dice.below(self.hosts.len());
        match self.dice.below(100) {
            0..30 => self.partition(host),
            30..55 => (0..self.hosts.len()).for_each(|host| {
                if self.dice.per_mille(500) {
                    self.heal(host);
                }
            }),
            55..65 => {
                self.count("crashes of hosts");
                let away_us = self.dice.between(100_000, 20_000_000);
                if self.hosts[host].local.is_some() {
                    self.host_ends(host, away_us);
                }
            }
            65..69 => {
                let away_us = self.dice.between(100_000, 20_000_000);
                if self.central.up {
                    self.central_ends(away_us);
                }
            }
            69..75 => {
                self.count("full disks");
                self.hosts[host].disk.set_full(true);
                self.hosts[host].well_since_us = self.time.us();
            }
            75..77 => {
                self.count("full disks");
                self.central.disk.set_full(true);
                self.central.well_since_us = self.time.us();
            }
            77..88 => self.make_room(),
            88..92 => {
                let off = self.dice.between(0, 400_000_000_000) as i64 - 200_000_000_000;
                self.count("clocks set wrong");
                if self.dice.per_mille(250) {
                    self.central.clock.set_off(off);
                } else {
                    self.hosts[host].clock.set_off(off);
                }
            }
            92..94 => {
                self.hosts[host].chip.set_fails(true);
                self.hosts[host].well_since_us = self.time.us();
            }
            _ => self.keep_a_copy(),
        }
        self.restore_central();
        let in_us = self.dice.between(200_000, if self.shape.sites <= 3 { 10_000_000 } else { 6_000_000 });
        self.schedule(in_us, Event::Misfortune);
    }

    fn make_room(&mut self) {
        let now_us = self.time.us();
        if self.central.disk.is_full() {
            self.central.disk.set_full(false);
            self.central.well_since_us = now_us;
        }
        for host in &mut self.hosts {
            if host.chip.fails() {
                host.chip.set_fails(false);
                host.well_since_us = now_us;
            }
            if host.disk.is_full() {
                host.disk.set_full(false);
                host.well_since_us = now_us;
            }
        }
    }

    fn keep_a_copy(&mut self) {
        let late = self.shape.events / 2 < self.events();
        if self.central.up && self.model.restored_from.is_none() && !(late && self.model.older.is_some()) {
            self.model.older = Some(self.central.engine.restarted());
            self.model.older_tenants = self.model.tenants.clone();
            self.model.older_sites = self.model.sites.clone();
            self.model.older_key = self.central.seal_keys.len() - 1;
        }
    }

    /// Central is restored from an older copy, once in the life of some worlds, and late.
    fn restore_central(&mut self) {
        let late = self.shape.events * 2 / 3 < self.events();
        if !late || !self.shape.seed.is_multiple_of(4) || self.model.restored_from.is_some() {
            return;
        }
        let Some(copy) = self.model.older.as_ref().map(MemoryEngine::restarted) else { return };
        self.count("restored copies");
        self.central_ends(60_000_000);
        let before = holdfast_actors::store::Engine::snapshot(&*copy_of(&self.central.engine));
        self.model.restored_from = before.ok().map(|view| view.revision().0);
        self.model.tenants = self.model.older_tenants.clone();
        self.model.sites = self.model.older_sites.clone();
        self.model.unknown_standing = true;
        self.central.engine = Arc::new(copy);
        self.central.key_of_copy = Some(self.model.older_key);
    }

    /// From here on nothing goes wrong any more.
    pub fn calm_down(&mut self) {
        self.tell(|| "nothing goes wrong from here on".to_owned());
        self.phase = Phase::Calm { until_us: self.time.us() + WELL_WITHIN_US };
        self.central.disk.set_crashes(0);
        self.central.disk.set_full(false);
        for host in 0..self.hosts.len() {
            self.hosts[host].disk.set_crashes(0);
            self.hosts[host].disk.set_full(false);
            self.hosts[host].chip.set_fails(false);
            self.heal(host);
            if self.hosts[host].chip.is_wrong() {
                self.hosts[host].chip.set_wrong(false);
            }
            self.reboot(host);
        }
    }

    /// What operators do until all is well: take back who is cut off, have those join who have not.
    fn tidy_up(&mut self) {
        if !self.central.up {
            return;
        }
        if self.central.barrier.is_sealed() {
            return self.unseal(self.central.life);
        }
        if self.central.is_outdated() {
            return self.adopt();
        }
        let held = self.all_held();
        for (place, name) in held {
            self.decide(&place, name.as_ref(), Decision::Readmit);
        }
        for host in 0..self.hosts.len() {
            if !self.hosts[host].has_joined() {
                self.join_again(host);
            }
            let by_operator = |it: &SimHost| {
                it.local.as_ref().is_some_and(|local| local.seal.is_sealed() && local.status.get().sealed_by_operator)
            };
            if by_operator(&self.hosts[host]) && self.hosts[host].session.is_some() {
                self.host_ends(host, 1_000_000);
            }
        }
    }

    fn all_held(&self) -> Vec<(SiteName, Option<holdfast_protocol::ids::HostName>)> {
        let mut held = Vec::new();
        let Ok(snapshot) = self.central.barrier.snapshot() else { return held };
        for place in &self.model.sites {
            let Ok(row) = site(&snapshot, place) else { continue };
            if row.value.standing.held != Held::Nothing {
                held.push((place.clone(), None));
            }
            for (name, entry) in hosts(&snapshot, place).unwrap_or_default() {
                if entry.standing.held != Held::Nothing {
                    held.push((place.clone(), Some(name)));
                }
            }
        }
        held
    }

    fn readmit_one(&mut self) {
        let held = self.all_held();
        let Some((place, name)) = self.dice.pick(&held).cloned() else { return };
        // Nothing would tell what it boots from what it should: an operator looks at such a machine himself.
        let host = self.hosts.iter().position(|it| it.id.site == place && Some(&it.id.host) == name.as_ref());
        if host.is_none_or(|host| self.is_learned(host) || !self.hosts[host].chip.is_wrong()) {
            self.decide(&place, name.as_ref(), Decision::Readmit);
        }
    }

    /// Whether central knows what a host should boot.
    fn is_learned(&self, host: usize) -> bool {
        let snapshot = self.central.barrier.snapshot().ok();
        let entry = snapshot.and_then(|snapshot| host_row(&snapshot, &self.hosts[host].id));
        entry.is_some_and(|entry| !entry.reference.0.is_empty())
    }

    fn seal_host(&mut self, host: usize) {
        let Some(local) = self.hosts[host].local.clone() else { return };
        local.status.change(|standing| standing.sealed_by_operator = true);
        at_once(local.shut("operator"));
        self.note_seal(host, true);
        self.hosts[host].well_since_us = self.time.us();
        self.session_tells_seal(host);
    }

    /// Only where it is known what the machine should show: a site that learns takes what it sees first.
    fn tamper(&mut self, host: usize) {
        if self.is_learned(host) {
            self.count("machines tampered with");
            self.hosts[host].chip.set_wrong(true);
            self.hosts[host].well_since_us = self.time.us();
        }
    }

    fn restore_machine(&mut self, host: usize) {
        if self.hosts[host].chip.is_wrong() {
            self.hosts[host].chip.set_wrong(false);
            self.reboot(host);
        }
    }

    /// A machine boots: its process ends and starts, its TPM counts.
    pub fn reboot(&mut self, host: usize) {
        self.count("reboots");
        let away_us = self.dice.between(1_000_000, 10_000_000);
        self.host_ends(host, away_us);
        self.hosts[host].chip.reboot();
        self.hosts[host].clock.boot();
    }

    // Tenants, boxes and secrets.

    /// A fresh UUID.
    pub fn uuid(&mut self) -> String {
        let bytes: [u8; 16] = draw(&*self.central.entropy);
        hex::encode(bytes)
    }

    fn new_tenant(&mut self) {
        let name = ["acme", "bolt", "crow"][self.model.tenants.len() % 3];
        let entropy = self.central.entropy.clone();
        let cmd = CreateTenant {
            name: name.parse().expect("a good name"),
            kind: TenantKind::ApplicationOwner,
            base: draw_secret(&*entropy),
            key: draw_secret(&*entropy),
            token_seed: draw_secret(&*entropy),
            by: "operator".to_owned(),
        };
        let now = self.central.now();
        let Ok(made) = self.central.change(move |rows| create_tenant(&cmd, rows, now)) else { return };
        let id = TokenId(draw(&*entropy));
        let Ok(claims) = self.central.commit(move |rows| create_root_token(made.realm, id, "operator", rows, now))
        else {
            return;
        };
        let Ok(snapshot) = self.central.barrier.snapshot() else { return };
        let Ok(token) = mint(&snapshot, &claims) else { return };
        let locate = |number: u32| Some(Realm(number));
        let Ok(caller) = verify(&token, &locate, &snapshot, now, &VerifiedTokens::default()) else { return };
        let tenant = Tenant {
            name: made.name,
            realm: made.realm,
            caller,
            token: token.to_string(),
            lines: snapshot.change_head(made.realm).map_or(0, |head| head.seq),
            lines_perhaps: 0,
            boxes: std::collections::BTreeMap::new(),
        };
        self.model.tenants.push(tenant);
        self.count("tenants");
    }

    fn any_placement(&mut self) -> Placement {
        match self.dice.below(10) {
            0..2 => Placement::None,
            2..5 if self.shape.sites <= 3 => Placement::All,
            2 => Placement::All,
            _ => {
                let mut sites = BTreeSet::new();
                for _ in 0..1 + self.dice.below(2) {
                    sites.extend(self.dice.pick(&self.model.sites).cloned());
                }
                Placement::Sites(sites)
            }
        }
    }

    fn new_box(&mut self) {
        let tenant = self.dice.below(self.model.tenants.len());
        if self.model.tenants.is_empty() || 5 <= self.model.tenants[tenant].boxes.len() {
            return;
        }
        let slug = format!("b{}", self.model.tenants[tenant].boxes.len());
        let offline_s = if self.dice.per_mille(300) { Some(self.dice.between(20, 120)) } else { None };
        let to = self.any_placement();
        let new = NewBox {
            name: slug.clone(),
            category_id: default_categories(0)[0].id.clone(),
            owner: "owners".to_owned(),
            distribute: Distribute { to: to.clone(), offline_s },
            ..NewBox::default()
        };
        let checked = new.check(&default_categories(0)).expect("a good box");
        let cmd = CreateBox {
            caller: self.model.tenants[tenant].caller.clone(),
            checked,
            id: self.uuid(),
            permission_ids: Vec::new(),
        };
        let now = self.central.now();
        let made = self.central.change(move |rows| create_box(&cmd, rows, now));
        if made.is_err() && !self.central.engine.has_stopped() {
            return;
        }
        self.line_follows(tenant, made.is_ok());
        let all = matches!(to, Placement::All);
        let mut fresh = BoxModel {
            placed: Known::of(sites_of(&to)),
            ever: sites_of(&to).unwrap_or_default(),
            ever_all: all,
            offline_s,
            there: Known::of(true),
            secrets: std::collections::BTreeMap::new(),
            changed_us: self.time.us(),
            written_us: std::collections::BTreeMap::new(),
        };
        if made.is_err() {
            fresh.there.perhaps(false);
        }
        self.model.tenants[tenant].boxes.insert(slug, fresh);
    }

    /// A change of a tenant was made, for certain or perhaps: it has one line.
    fn line_follows(&mut self, tenant: usize, certain: bool) {
        let of = &mut self.model.tenants[tenant];
        if certain {
            of.lines += 1
        } else {
            of.lines_perhaps += 1
        }
        self.count("changes");
    }

    fn any_box(&mut self) -> Option<(usize, String)> {
        let tenant = self.dice.below(self.model.tenants.len());
        let slugs: Vec<String> = self.model.tenants.get(tenant)?.boxes.keys().cloned().collect();
        Some((tenant, self.dice.pick(&slugs)?.clone()))
    }

    fn write(&mut self) {
        let Some((tenant, slug)) = self.any_box() else { return };
        let path = format!("s{}", self.dice.below(6));
        self.model.next_value += 1;
        let name = self.model.tenants[tenant].name.clone();
        let longest = if self.dice.below(20) == 0 { 30_000 } else { 40 };
        let padding = "x".repeat(self.dice.below(longest));
        let value = format!("canary-{name}-{}-{padding}", self.model.next_value);
        let data = SecretBytes::new(format!("{{\"v\":\"{value}\"}}").into_bytes());
        let cmd = WriteSecret {
            caller: self.model.tenants[tenant].caller.clone(),
            at: (CATEGORY.to_owned(), slug.clone()),
            path: SecretPath::new(vec![path.clone()]).expect("a good path"),
            data: CheckedData::new(data).expect("good data"),
            version_id: self.uuid(),
        };
        let now = self.central.now();
        let drop_line = self.sabotaged(Sabotage::DropAuditLine) && self.dice.per_mille(200);
        let result = if drop_line {
            let silent = value.clone();
            self.central.change(move |rows| write_silently(&cmd, &silent, rows, now))
        } else {
            self.central.change(move |rows| write_secret(&cmd, rows, now))
        };
        self.model.written.entry(name).or_default().insert(value.clone());
        self.came_of(tenant, &slug, &path, Some(value), result);
    }

    fn delete(&mut self) {
        let Some((tenant, slug)) = self.any_box() else { return };
        let paths: Vec<String> = self.model.tenants[tenant].boxes[&slug].secrets.keys().cloned().collect();
        let Some(path) = self.dice.pick(&paths).cloned() else { return };
        let cmd = DeleteSecret {
            caller: self.model.tenants[tenant].caller.clone(),
            at: (CATEGORY.to_owned(), slug.clone()),
            path: SecretPath::new(vec![path.clone()]).expect("a good path"),
        };
        let now = self.central.now();
        let result = self.central.change(move |rows| delete_secret(&cmd, rows, now));
        self.came_of(tenant, &slug, &path, None, result);
    }

    fn came_of(&mut self, tenant: usize, slug: &str, path: &str, value: Option<String>, result: Result<(), Refusal>) {
        let stopped = self.central.engine.has_stopped();
        let answered = result.is_ok() || (stopped && self.sabotaged(Sabotage::AnswerBeforeCommit));
        if !answered && !stopped {
            return;
        }
        self.line_follows(tenant, result.is_ok());
        let of = self.model.tenants[tenant].boxes.get_mut(slug).expect("it was picked from there");
        of.written_us.insert(path.to_owned(), self.time.us());
        let known = of.secrets.entry(path.to_owned()).or_insert_with(|| Known::of(None));
        if answered {
            known.set(value)
        } else {
            known.perhaps(value)
        }
        if answered {
            self.count("acknowledged writes");
        }
    }

    /// There is no call for it yet; the decision is the simplest there could be.
    fn place(&mut self) {
        let Some((tenant, slug)) = self.any_box() else { return };
        let (to, realm) = (self.any_placement(), self.model.tenants[tenant].realm);
        let (now, named, new) = (self.central.now(), slug.clone(), to.clone());
        let result = self.central.change(move |rows| place_box(rows, realm, &named, &new, now));
        let stopped = self.central.engine.has_stopped();
        if result.is_err() && !stopped {
            return;
        }
        self.line_follows(tenant, result.is_ok());
        let of = self.model.tenants[tenant].boxes.get_mut(&slug).expect("it was picked from there");
        of.changed_us = self.time.us();
        of.ever.extend(sites_of(&to).unwrap_or_default());
        of.ever_all |= matches!(to, Placement::All);
        if result.is_ok() { of.placed.set(sites_of(&to)) } else { of.placed.perhaps(sites_of(&to)) }
    }

    // Sites and hosts.

    fn new_site(&mut self) {
        self.model.sites_made += 1;
        let name: SiteName = format!("udc{}", self.model.sites_made).parse().expect("a good name");
        let entropy = self.central.entropy.clone();
        let number = 1 + self.dice.below(3);
        let mut made = Vec::new();
        for index in 0..number {
            let id = HostId { site: name.clone(), host: format!("{name}-{index}").parse().expect("a good name") };
            made.push(NewHost { name: id.host, ek_sha256: None, agent_id: self.uuid() });
        }
        // Few quotes where there are many hosts, so that other things happen too.
        let interval_ms = if self.shape.sites <= 3 { 12_000 } else { 60_000 };
        let cmd = CreateSite {
            name: name.clone(),
            ek_trust: EkTrust::Token,
            appraisal: Appraisal { learn: true, interval_ms: Some(interval_ms), ..Appraisal::default() },
            allow_local_unseal: false,
            reference: Default::default(),
            hosts: made,
            seal_key: draw_secret(&*entropy),
            dist_seed: draw_secret(&*entropy),
            api: FreshKey::draw(&*entropy),
            dist: FreshKey::draw(&*entropy),
            by: "operator".to_owned(),
        };
        let names: Vec<_> = cmd.hosts.iter().map(|host| host.name.clone()).collect();
        let now = self.central.now();
        if self.central.change(move |rows| create_site(&cmd, rows, now)).is_err() {
            return;
        }
        self.model.sites.push(name.clone());
        self.count("sites");
        let Some(bundle) = self.bundle_of(&name) else { return };
        for host in names {
            self.new_host(HostId { site: name.clone(), host }, &bundle);
        }
    }

    fn bundle_of(&mut self, name: &SiteName) -> Option<SiteBundle> {
        let cmd = Invite {
            site: name.clone(),
            seed: draw_secret(&*self.central.entropy),
            valid_s: TOKEN_VALID_S,
            central: vec!["central:7443".to_owned()],
            by: "operator".to_owned(),
        };
        let now = self.central.now();
        self.central.change(move |rows| invite(&cmd, rows, now)).ok()
    }

    fn new_host(&mut self, id: HostId, bundle: &SiteBundle) {
        let host = self.hosts.len();
        let seed = self.shape.seed ^ (host as u64 + 1) << 40;
        let entropy = Arc::new(SeededEntropy::new(seed, &id.to_string(), self.nonces.clone()));
        let chip = SimTpm::new(&draw_secret(&*entropy), self.time.clone());
        let mut roots = pem::decode_certificates(&bundle.root_ca).expect("our own root");
        let blob = SealedBlob { public: vec![1], private: vec![2] };
        let state = JoinState {
            deployment: bundle.deployment,
            host: id.clone(),
            central: bundle.central.clone(),
            root: roots.swap_remove(0),
            tpm: Identity {
                ek_kind: EkKind::P256,
                ek_public: chip.with(|tpm| tpm.ek_public().raw().to_vec()),
                ek_certificate: None,
            },
            ak: AkBlob {
                ek_kind: EkKind::P256,
                public: chip.with(|tpm| tpm.ak_public().raw().to_vec()),
                private: Vec::new(),
            },
            quic_seed: blob.clone(),
            rest_seed: blob,
            membership: None,
            renewal: None,
            host_secret: None,
            binding: Default::default(),
        };
        let file = StateFile::begin(&self.folder.path().join(host.to_string()), state).expect("a file can be kept");
        let off_us = self.dice.between(0, 60_000_000) as i64 - 30_000_000;
        let clock = MachineClock::new(self.time.clone(), off_us);
        let now = holdfast_actors::ports::Clock::now(&clock);
        let disk = Disk::new(seed);
        if self.phase == Phase::Chaos && 0 < self.events() {
            disk.set_crashes(4);
        }
        self.hosts.push(SimHost {
            id: id.clone(),
            disk,
            chip,
            clock,
            quic: SigningKey::from_seed(&draw_secret(&*entropy)),
            rest: SigningKey::from_seed(&draw_secret(&*entropy)),
            entropy,
            file,
            engine: Arc::new(MemoryEngine::new()),
            local: None,
            uplink: Uplink::new(Attempt::Session, now),
            life: 0,
            session: None,
            outage: None,
            armed_us: None,
            well_since_us: self.time.us(),
        });
        let token = bundle.host(&id.host).map(|invited| *invited.token.0.expose());
        self.joins(host, token);
    }

    fn joins(&mut self, host: usize, token: Option<[u8; 32]>) {
        if let Some(token) = token
            && self.enrol(host, Some(token)).is_ok()
        {
            let (in_us, life) = (self.dice.between(0, 2_000_000), self.hosts[host].life);
            self.schedule(in_us, Event::HostStarts(host, life));
        }
    }

    fn join_again(&mut self, host: usize) {
        let id = self.hosts[host].id.clone();
        let cmd = holdfast_actors::site_registry::sites::Reallow {
            site: id.site.clone(),
            host: Some(id.host.clone()),
            by: "operator".to_owned(),
        };
        let now = self.central.now();
        let permitted =
            self.central.change(move |rows| holdfast_actors::site_registry::sites::reallow(&cmd, rows, now));
        if permitted.is_ok()
            && let Some(bundle) = self.bundle_of(&id.site)
        {
            let token = bundle.host(&id.host).map(|invited| *invited.token.0.expose());
            self.joins(host, token);
        }
        // Its certificates were lost on their way, and central takes it for joined: it enrols by its pinned key.
        let joined = {
            let Ok(snapshot) = self.central.barrier.snapshot() else { return };
            host_joined(&snapshot, &id)
        };
        if joined && !self.hosts[host].has_joined() && self.enrol(host, None).is_ok() {
            let life = self.hosts[host].life;
            self.schedule(0, Event::HostStarts(host, life));
        }
    }

    // Timers and ends.

    /// Processes that did not survive a commit.
    pub fn bury_the_dead(&mut self) {
        if self.central.up && self.central.engine.has_stopped() {
            let away_us = self.dice.between(100_000, 15_000_000);
            self.central_ends(away_us);
        }
        for host in 0..self.hosts.len() {
            if self.hosts[host].local.is_some() && self.hosts[host].engine.has_stopped() {
                self.count("crashes of hosts");
                let away_us = self.dice.between(100_000, 15_000_000);
                self.host_ends(host, away_us);
            }
        }
    }

    /// Sets the timers that have a new deadline.
    pub fn arm_timers(&mut self) {
        self.arm_uplinks();
        let Some(hub) = &mut self.central.hub else { return };
        let number = hub.number;
        let (verifier, distribution) = (hub.verifier.next_deadline(), hub.distribution.next_deadline());
        let verifier = verifier.filter(|due| hub.verifier_armed != Some(*due));
        let distribution = distribution.filter(|due| hub.distribution_armed != Some(*due));
        hub.verifier_armed = verifier.or(hub.verifier_armed);
        hub.distribution_armed = distribution.or(hub.distribution_armed);
        if let Some(due) = verifier {
            self.schedule_at(self.central.clock.world_us_at(due), Event::VerifierDue(number));
        }
        if let Some(due) = distribution {
            self.schedule_at(self.central.clock.world_us_at(due), Event::DistributionDue(number));
        }
    }
}

fn copy_of(engine: &Arc<MemoryEngine>) -> Arc<MemoryEngine> {
    Arc::new(engine.restarted())
}

fn host_row(rows: &dyn Rows, id: &HostId) -> Option<holdfast_actors::site_registry::Host> {
    host(rows, id).ok().map(|row| row.value)
}

fn host_joined(rows: &dyn Rows, id: &HostId) -> bool {
    host(rows, id).is_ok_and(|entry| entry.value.identity.is_some())
}

/// Where a box is: `None` is everywhere.
pub fn sites_of(placement: &Placement) -> Option<BTreeSet<SiteName>> {
    match placement {
        Placement::All => None,
        Placement::None => Some(BTreeSet::new()),
        Placement::Sites(sites) => Some(sites.clone()),
    }
}

fn place_box(rows: &dyn Rows, realm: Realm, slug: &str, to: &Placement, now: Now) -> Result<(Batch, ()), Refusal> {
    let mut of = rows.read::<DepositBox>(realm, &[slug])?.ok_or(Refusal::NotFound("box"))?.value;
    of.distribute.to = to.clone();
    let mut batch = Batch::new(realm, Line::done(now.wall_us, "operator", "box.place", of.path()));
    batch.put(realm, &[slug], &of);
    Ok((batch, ()))
}

/// Sabotage: the change without its line.
fn write_silently(cmd: &WriteSecret, value: &str, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    write_secret(cmd, rows, now)?;
    let mut silent = Batch::housekeeping();
    let stamp = Stamp { by: "nobody".to_owned(), at_us: now.wall_us };
    let data = SecretBytes::new(format!("{{\"v\":\"{value}\"}}").into_bytes());
    let (version_id, created) = (cmd.version_id.clone(), stamp.clone());
    let path = cmd.path.below(&cmd.at.1);
    silent.put(
        cmd.caller.realm,
        &path,
        &CurrentSecret { data, version_id, created, updated: stamp, version: 1, marks: Marks::default() },
    );
    Ok((silent, ()))
}

//! Random histories: central writes, cuts and advances, hosts sync, die, restart and are sent what they had before.

use super::*;

/// Everything that ever was placed at a site: what a host there may know.
#[derive(Default)]
struct EverPlaced(BTreeMap<(usize, usize), Contents>);

#[derive(Debug, Clone)]
pub(super) enum Step {
    PutBox { tenant: usize, slug: u8, to: u8 },
    DeleteBox { tenant: usize, slug: u8 },
    PutSecret { tenant: usize, slug: u8, name: u8, bytes: usize },
    DeleteSecret { tenant: usize, slug: u8, name: u8 },
    PutKey { tenant: usize, name: u8, to: u8 },
    DeleteKey { tenant: usize, name: u8 },
    Common { tenant: usize, which: u8, name: u8, delete: bool },
    Private { tenant: usize, name: u8 },
    PutApprole { tenant: usize, name: u8, to: u8, drawn: u8, bound: bool },
    DeleteApprole { tenant: usize, name: u8 },
    Advance { site: usize },
    RaiseTerm,
    Compact,
    Cut { tenant: usize, site: usize },
    Sync { host: usize, tenant: usize },
    Interrupt { host: usize, tenant: usize, chunks: usize, restart: bool },
    Replay { host: usize, pick: usize },
    Sweep { host: usize },
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (tenant, site, host) = (0..2usize, 0..2usize, 0..HOSTS.len());
    let (slug, name) = (0..3u8, 0..4u8);
    let step = prop_oneof![
        4 => (tenant.clone(), slug.clone(), 0..5u8).prop_map(|(tenant, slug, to)| Step::PutBox { tenant, slug, to }),
        1 => (tenant.clone(), slug.clone()).prop_map(|(tenant, slug)| Step::DeleteBox { tenant, slug }),
        6 => (tenant.clone(), slug.clone(), name.clone(), prop_oneof![4 => 0..50usize, 1 => Just(200 << 10)])
            .prop_map(|(tenant, slug, name, bytes)| Step::PutSecret { tenant, slug, name, bytes }),
        2 => (tenant.clone(), slug.clone(), name.clone())
            .prop_map(|(tenant, slug, name)| Step::DeleteSecret { tenant, slug, name }),
        3 => (tenant.clone(), slug.clone(), 0..5u8).prop_map(|(tenant, name, to)| Step::PutKey { tenant, name, to }),
        1 => (tenant.clone(), slug.clone()).prop_map(|(tenant, name)| Step::DeleteKey { tenant, name }),
        3 => (tenant.clone(), 0..6u8, name.clone(), any::<bool>())
            .prop_map(|(tenant, which, name, delete)| Step::Common { tenant, which, name, delete }),
        2 => (tenant.clone(), name.clone()).prop_map(|(tenant, name)| Step::Private { tenant, name }),
        3 => (tenant.clone(), 0..2u8, 0..5u8, 0..6u8, any::<bool>())
            .prop_map(|(tenant, name, to, drawn, bound)| Step::PutApprole { tenant, name, to, drawn, bound }),
        1 => (tenant.clone(), 0..2u8).prop_map(|(tenant, name)| Step::DeleteApprole { tenant, name }),
        1 => site.clone().prop_map(|site| Step::Advance { site }),
        1 => Just(Step::RaiseTerm),
        1 => Just(Step::Compact),
        2 => (tenant.clone(), site.clone()).prop_map(|(tenant, site)| Step::Cut { tenant, site }),
        8 => (host.clone(), tenant.clone()).prop_map(|(host, tenant)| Step::Sync { host, tenant }),
        3 => (host.clone(), tenant.clone(), 0..4usize, any::<bool>())
            .prop_map(|(host, tenant, chunks, restart)| Step::Interrupt { host, tenant, chunks, restart }),
        4 => (host.clone(), any::<usize>()).prop_map(|(host, pick)| Step::Replay { host, pick }),
        1 => host.prop_map(|host| Step::Sweep { host }),
    ];
    prop::collection::vec(step, 1..60)
}

/// Sites of the hosts.
pub(super) const HOSTS: [usize; 3] = [0, 0, 1];

pub(super) struct World {
    pub(super) central: Node,
    pub(super) hosts: Vec<Host>,
    ever: EverPlaced,
    pub(super) sent: Vec<Sent>,
    epochs: [u64; 2],
    writes: u64,
}

impl World {
    pub(super) fn new() -> Self {
        let hosts = HOSTS.into_iter().map(Host::new).collect();
        Self { central: central(), hosts, ever: EverPlaced::default(), sent: Vec::new(), epochs: [1; 2], writes: 0 }
    }

    pub(super) fn step(&mut self, step: Step) {
        self.writes += 1;
        let write = self.writes;
        let realm = |tenant: usize| TENANTS[tenant].1;
        let slug = |slug: u8| format!("box{slug}");
        match step {
            Step::PutKey { tenant, name, to } => {
                let key = transit_key(placement(to), u8::try_from(write % 251).unwrap());
                self.central.write(|batch| batch.put(realm(tenant), &[&format!("key{name}")], &key));
            }
            Step::DeleteKey { tenant, name } => {
                self.central.write(|batch| batch.delete::<TransitKey>(realm(tenant), &[&format!("key{name}")]));
            }
            Step::PutBox { tenant, slug: of, to } => {
                let (to, slug) = (placement(to), slug(of));
                self.central.write(|batch| {
                    batch.put(realm(tenant), &[&slug], &boxed(&slug, to));
                    batch.put(realm(tenant), &[&format!("id of {slug}")], &BoxId { slug: slug.clone() });
                });
            }
            Step::DeleteBox { tenant, slug: of } => {
                self.central.write(|batch| batch.delete::<DepositBox>(realm(tenant), &[&slug(of)]));
            }
            Step::PutSecret { tenant, slug: of, name, bytes } => {
                let mut data = format!("canary-{write}").into_bytes();
                data.resize(data.len() + bytes, 7);
                let version = SecretVersion {
                    data: SecretBytes::new(b"old".to_vec()),
                    action: VersionAction::Update,
                    written: stamp(),
                    ended: stamp(),
                    version: 1,
                    marks: Marks::default(),
                };
                self.central.write(|batch| {
                    batch.put(realm(tenant), &[&slug(of), "dir", &name.to_string()], &current(data));
                    batch.put(realm(tenant), &[&slug(of), "dir", &name.to_string(), "v"], &version);
                });
            }
            Step::DeleteSecret { tenant, slug: of, name } => self
                .central
                .write(|batch| batch.delete::<CurrentSecret>(realm(tenant), &[&slug(of), "dir", &name.to_string()])),
            Step::Common { tenant, which, name, delete } => self.common(realm(tenant), which, name, delete),
            Step::Private { tenant, name } => self.central.write(|batch| {
                let login = Login { password_hash: format!("canary-hash-{write}"), full_name: None };
                batch.put(realm(tenant), &[&name.to_string()], &login);
                batch.put(realm(tenant), &[&name.to_string()], &TokenKey { key_id: 1, seed: secret(9) });
            }),
            Step::Advance { site } => {
                self.epochs[site] += 1;
                let epoch = self.epochs[site];
                self.central.write(|batch| batch.put(Realm::NODE, &[SITES[site]], &place(epoch, Held::Nothing)));
            }
            Step::RaiseTerm => self
                .central
                .run(|rows| {
                    let mut deployment = crate::site_registry::deployment(rows)?;
                    deployment.term = deployment.term.next();
                    let mut batch = Batch::housekeeping();
                    batch.put(Realm::NODE, &["deployment"], &deployment);
                    Ok((batch, ()))
                })
                .unwrap(),
            Step::Compact => {
                let revision = self.central.engine.snapshot().unwrap().revision();
                self.central.engine.compact(revision).unwrap();
            }
            Step::PutApprole { tenant, name, to, drawn, bound } => self.central.write(|batch| {
                let name = format!("role{name}");
                batch.put(realm(tenant), &[&name], &approle(placement(to), (drawn % 2, drawn / 2), bound));
            }),
            Step::DeleteApprole { tenant, name } => {
                self.central.write(|batch| batch.delete::<Approle>(realm(tenant), &[&format!("role{name}")]));
            }
            Step::Cut { tenant, site } => drop(self.central.build(tenant, site, None).unwrap()),
            Step::Sync { host, tenant } => self.sync(host, tenant, usize::MAX),
            Step::Interrupt { host, tenant, chunks, restart } => {
                self.sync(host, tenant, chunks);
                if restart {
                    self.hosts[host].node = self.hosts[host].node.restarted();
                }
            }
            Step::Replay { host, pick } => self.replay(host, pick),
            Step::Sweep { host } => self.hosts[host].sweep(),
        }
        self.note_what_is_placed();
        (0..HOSTS.len()).for_each(|host| self.check_only_placed(host));
    }

    fn common(&self, realm: Realm, which: u8, name: u8, delete: bool) {
        let (write, name) = (self.writes, name.to_string());
        self.central.write(|batch| match (which, delete) {
            (0, false) => {
                let groups = [format!("group {write}")].into();
                batch.put(realm, &[&name], &Principal { groups, disabled: false });
            }
            (0, true) => batch.delete::<Principal>(realm, &[&name]),
            (1, false) => {
                let public = signer().public().clone();
                batch.put(realm, &[&key_id_segment(1)], &TokenVerifier { key_id: 1, public });
            }
            (1, true) => batch.delete::<TokenVerifier>(realm, &[&key_id_segment(1)]),
            (2, false) => {
                let not_before_us = i64::try_from(write).unwrap();
                batch.put(realm, &["principal", &name], &Revocation::Principal { not_before_us });
            }
            (2, true) => batch.delete::<Revocation>(realm, &["principal", &name]),
            (3, false) => {
                let (allow, instance) = (vec![format!("/v1/{write}")], write);
                let (deny, globbing, origin) = (Vec::new(), Globbing::Segments, Origin::Api);
                batch.put(realm, &[&name], &KesPolicy { allow, deny, globbing, instance, origin, written: stamp() });
            }
            (3, true) => batch.delete::<KesPolicy>(realm, &[&name]),
            (4, false) => {
                let standing = KesStanding::Policy { name: "p".parse().unwrap(), instance: write };
                batch.put(realm, &[&name], &Assignment { standing, origin: Origin::Api, assigned: stamp() });
            }
            (4, true) => batch.delete::<Assignment>(realm, &[&name]),
            (_, false) => {
                let (display_name, path) = (format!("category {write}"), "app".to_owned());
                let category = Category { id: name.clone(), display_name, path, created: stamp(), updated: stamp() };
                batch.put(realm, &[&name], &category);
            }
            (_, true) => batch.delete::<Category>(realm, &[&name]),
        });
    }

    fn note_what_is_placed(&mut self) {
        for tenant in 0..TENANTS.len() {
            for site in 0..SITES.len() {
                self.ever.0.entry((tenant, site)).or_default().extend(placed(&self.central, tenant, site));
            }
        }
    }

    /// Whatever a host has, complete or not, was once placed at its site.
    fn check_only_placed(&self, host: usize) {
        let host = &self.hosts[host];
        let realms: BTreeMap<Realm, usize> = (0..TENANTS.len())
            .filter_map(|tenant| Some((tenant, host.copy(tenant)?)))
            .flat_map(|(tenant, copy)| {
                copy.realm.into_iter().chain(copy.shadow.map(|shadow| shadow.realm)).map(move |realm| (realm, tenant))
            })
            .collect();
        for (realm, tenant) in realms {
            let all = host.node.rows(&Kind::ALL, realm);
            assert!(all.is_subset(&self.ever.0[&(tenant, host.site)]), "something that was never placed here");
        }
    }

    /// Up to `chunks` transactions of a sync; all of it where there is no bound.
    pub(super) fn sync(&mut self, host: usize, tenant: usize, chunks: usize) {
        let mut chunks_left = chunks;
        for _ in 0..3 {
            let host = &self.hosts[host];
            let before = host.position(tenant);
            let Some((target, sent)) = self.central.build(tenant, host.site, before.as_ref()).unwrap() else { break };
            self.sent.push(sent.clone());
            let rows = if self.writes.is_multiple_of(2) { 2 } else { CHUNK_ROWS_MAX };
            let superseded = host.copy(tenant).and_then(|copy| copy.realm);
            let outcomes = host.take_all(&sent, rows, &mut chunks_left);
            if chunks_left == 0 {
                return;
            }
            assert_eq!(host.position(tenant), Some(target));
            let (last, others) = outcomes.split_last().unwrap();
            assert!(others.iter().all(|outcome| *outcome == Some(Outcome::Partly)));
            let Some(Outcome::Applied { superseded: told }) = last else { panic!("{last:?}") };
            let is_full = host.copy(tenant).and_then(|copy| copy.realm) != superseded;
            assert_eq!(*told, if is_full { superseded } else { None }, "what is superseded is told");
            assert!(before.is_none_or(|before| (before.term, before.dist_epoch) <= (target.term, target.dist_epoch)));
            assert!(before.is_none_or(|before| before.seq < target.seq || before.term < target.term));
        }
        let host = &self.hosts[host];
        let expected = placed(&self.central, tenant, host.site);
        let Some(realm) = host.copy(tenant).and_then(|copy| copy.realm) else {
            assert!(expected.is_empty());
            return;
        };
        assert_eq!(host.node.rows(&Kind::ALL, realm), expected);
        let rows = host.node.barrier.snapshot().unwrap();
        assert_eq!(locate(&rows, TENANTS[tenant].1.0).unwrap(), Some(realm));
    }

    fn replay(&mut self, host: usize, pick: usize) {
        if self.sent.is_empty() {
            return;
        }
        let sent = &self.sent[pick % self.sent.len()];
        let host = &self.hosts[host];
        let held: Vec<_> = (0..TENANTS.len()).map(|tenant| host.copy(tenant)).collect();
        for bytes in sent.bundles.iter().rev().chain(&sent.bundles) {
            let header = bundle::verify(bytes, signer().public()).unwrap().header;
            let tenant = TENANTS.iter().position(|(name, _)| *name == header.tenant.as_str()).unwrap();
            let before = host.position(tenant);
            let outcome = host.take(bytes, &sent.key, 3, &mut usize::MAX.clone());
            let after = host.position(tenant);
            match outcome {
                None => assert_ne!(header.site, site_name(host.site)),
                Some(Outcome::AlreadyThere) => assert_eq!(before, Some(header.target)),
                Some(Outcome::OutOfStep(told)) => assert_eq!(told, before.unwrap_or_default()),
                Some(Outcome::Alarm(_)) => assert!(before.is_some()),
                Some(Outcome::Partly) => {}
                Some(Outcome::Applied { .. }) => {
                    assert_eq!(after, Some(header.target));
                    continue;
                }
            }
            assert_eq!(before, after, "{outcome:?} moves nothing");
        }
        for (tenant, held) in held.into_iter().enumerate() {
            if let Some(before) = held.filter(|copy| copy.realm.is_some()) {
                let after = host.position(tenant).unwrap();
                let moved = before.position != after;
                assert!(!moved || before.position.term < after.term || before.position.seq < after.seq);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_host_that_has_synced_holds_what_is_placed_at_its_site_and_nothing_else(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        for host in 0..HOSTS.len() {
            (0..TENANTS.len()).for_each(|tenant| world.sync(host, tenant, usize::MAX));
            world.hosts[host].sweep();
            let node = &world.hosts[host].node;
            let snapshot = node.barrier.snapshot().unwrap();
            let mut used = BTreeSet::from([Realm::NODE]);
            used.extend((0..TENANTS.len()).filter_map(|tenant| world.hosts[host].copy(tenant)?.realm));
            used.extend((0..TENANTS.len()).filter_map(|tenant| Some(world.hosts[host].copy(tenant)?.shadow?.realm)));
            prop_assert_eq!(snapshot.realms().unwrap(), used, "nothing is left of what was before");
            prop_assert_eq!(verify_store(&*node.engine.snapshot().unwrap()).unwrap().first_break, None);
        }
    }
}

pub(super) fn placement(to: u8) -> Placement {
    match to {
        0 => Placement::None,
        1 => Placement::All,
        2 => Placement::Sites([site_name(0)].into()),
        3 => Placement::Sites([site_name(1)].into()),
        _ => Placement::Sites([site_name(0), site_name(1), "later".parse().unwrap()].into()),
    }
}

/// Central with one placed box and a host in step.
pub(super) fn in_step() -> World {
    let mut world = World::new();
    world.step(Step::PutBox { tenant: 0, slug: 0, to: 1 });
    world.step(Step::PutSecret { tenant: 0, slug: 0, name: 0, bytes: 1 });
    world.step(Step::Sync { host: 0, tenant: 0 });
    world
}

//! The blast radius says what was delivered, no less and no more, and closes as that is rotated.

use super::super::blast::{Counts, Cursor, Entry, Scope, Status, open_keys, page, summary};
use super::super::holdings::ValueDigest;
use super::super::reads::{find, keep};
use super::world::{HOSTS, Step, World, steps};
use super::*;
use crate::access_control::records::{Tenant, TenantKind};
use holdfast_protocol::ids::HostId;
use holdfast_protocol::wire::ReadItem;

/// What went out and proves something: a secret's path and value, an approle's name, role-id and instance, or a key's name,
/// bytes and version.
type Told = BTreeSet<(Kind, Vec<String>, Vec<u8>, Vec<u8>)>;
/// An entry: kind, path, id, digest, and whether it is of use.
type Said = BTreeSet<(Kind, Vec<String>, String, ValueDigest, Status)>;

fn name_of(host: usize) -> HostName {
    format!("h{host}").parse().unwrap()
}

/// A world that remembers what went out.
struct Watched {
    world: World,
    to_site: BTreeMap<(usize, usize), Told>,
    to_host: BTreeMap<(usize, usize), Told>,
}

impl Watched {
    fn new() -> Self {
        Self { world: World::new(), to_site: BTreeMap::new(), to_host: BTreeMap::new() }
    }

    fn step(&mut self, step: Step) {
        match step {
            // Bundles of central go to whom they are sent.
            Step::Replay { .. } => {}
            Step::Sync { host, tenant } | Step::Interrupt { host, tenant, .. } => self.deliver(host, tenant),
            Step::Cut { tenant, site } => {
                let base = None;
                if let Some((_, sent)) = self.build(tenant, site, base, &BTreeSet::new()) {
                    self.to_site.entry((site, tenant)).or_default().extend(secrets_in(&sent));
                }
            }
            other => self.world.step(other),
        }
    }

    fn build(
        &self,
        tenant: usize,
        site: usize,
        base: Option<&Position>,
        hosts: &BTreeSet<HostName>,
    ) -> Option<(Position, Sent)> {
        let (name, realm) = TENANTS[tenant];
        let tenant = TenantRef { name: name.parse().unwrap(), realm };
        self.world.central.build_for(&tenant, site, base, hosts).unwrap()
    }

    fn deliver(&mut self, host: usize, tenant: usize) {
        let site = self.world.hosts[host].site;
        let base = self.world.hosts[host].position(tenant);
        let Some((_, sent)) = self.build(tenant, site, base.as_ref(), &[name_of(host)].into()) else { return };
        let told = secrets_in(&sent);
        self.to_site.entry((site, tenant)).or_default().extend(told.clone());
        self.to_host.entry((host, tenant)).or_default().extend(told);
        self.world.hosts[host].take_all(&sent, CHUNK_ROWS_MAX, &mut usize::MAX.clone());
        self.world.hosts[host].sweep();
    }

    fn report(&self, site: usize, host: Option<usize>, tenant: usize) -> Vec<Entry> {
        let scope = scope(site, host, Some(tenant));
        let rows = self.world.central.barrier.snapshot().unwrap();
        page(&rows, &scope, None, usize::MAX).unwrap().entries
    }

    /// What an entry must say, from the values that went out and those that are there now.
    fn expected(&self, tenant: usize, told: Option<&Told>) -> Said {
        let realm = TENANTS[tenant].1;
        let rows = self.world.central.barrier.snapshot().unwrap();
        let keys = rows.realm_keys(realm).unwrap();
        let of_use = |kind: Kind, path: &[String], value: &[u8], instance: &[u8]| {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            if kind == Kind::Secret {
                let now = rows.read::<CurrentSecret>(realm, &path).unwrap();
                return now.map(|now| now.value.data.expose() == value);
            }
            if kind == Kind::TransitKey {
                let now = rows.read::<TransitKey>(realm, &path).unwrap();
                return now.map(|now| now.value.encrypting().unwrap().material.key.expose() == value);
            }
            // A thief has secret-ids and tokens of the instance, or logs in with the role-id where that is enough.
            let now = rows.read::<Approle>(realm, &path).unwrap()?.value;
            Some(now.instance == instance || (!now.bind_secret_id && now.role_id.expose() == value))
        };
        let told = told.into_iter().flatten().map(|(kind, path, value, instance)| {
            let status = match of_use(*kind, path, value, instance) {
                None => Status::Deleted,
                Some(true) => Status::Open,
                Some(false) => Status::Rotated,
            };
            let id = match kind {
                Kind::Secret => "v".to_owned(),
                Kind::TransitKey => String::from_utf8(instance.clone()).unwrap(),
                _ => hex::encode(ValueDigest::of(&keys, instance).0),
            };
            (*kind, path.clone(), id, ValueDigest::of(&keys, value), status)
        });
        told.collect()
    }
}

fn scope(site: usize, host: Option<usize>, tenant: Option<usize>) -> Scope {
    let tenant = tenant.map(|tenant| (TENANTS[tenant].0.parse().unwrap(), TENANTS[tenant].1));
    Scope { site: site_name(site), host: host.map(name_of), tenant, open_only: false }
}

fn secrets_in(sent: &Sent) -> Told {
    let items = sent.bundles.iter().flat_map(|bytes| {
        let verified = bundle::verify(bytes, signer().public()).unwrap();
        verified.open(&sent.key).unwrap()
    });
    let of_item = |item: Item| {
        let body = item.body?.0;
        match Kind::from_byte(item.kind) {
            Some(Kind::Secret) => {
                let now: CurrentSecret = crate::rows::decode_body(body.expose()).unwrap();
                Some((Kind::Secret, item.path, now.data.expose().to_vec(), Vec::new()))
            }
            Some(Kind::Approle) => {
                let now: Approle = crate::rows::decode_body(body.expose()).unwrap();
                Some((Kind::Approle, item.path, now.role_id.expose().to_vec(), now.instance.to_vec()))
            }
            Some(Kind::TransitKey) => {
                let now: TransitKey = crate::rows::decode_body(body.expose()).unwrap();
                let version = now.encrypting().unwrap();
                let number = version.number.to_string().into_bytes();
                Some((Kind::TransitKey, item.path, version.material.key.expose().to_vec(), number))
            }
            _ => None,
        }
    };
    items.filter_map(of_item).collect()
}

fn said(entries: &[Entry]) -> Said {
    let of_entry = |entry: &Entry| {
        let Entry { kind, path, held, status, .. } = entry.clone();
        (kind, path, held.id, held.digest, status)
    };
    let said: Said = entries.iter().map(of_entry).collect();
    assert_eq!(said.len(), entries.len(), "nothing is said twice");
    said
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_report_is_what_was_delivered_to_the_site_and_to_each_host(steps in steps()) {
        let mut watched = Watched::new();
        for step in steps {
            watched.step(step);
        }
        for tenant in 0..TENANTS.len() {
            for (site, name) in SITES.iter().enumerate() {
                let expected = watched.expected(tenant, watched.to_site.get(&(site, tenant)));
                prop_assert_eq!(said(&watched.report(site, None, tenant)), expected, "at {}", name);
            }
            for host in 0..HOSTS.len() {
                let expected = watched.expected(tenant, watched.to_host.get(&(host, tenant)));
                let reported = watched.report(watched.world.hosts[host].site, Some(host), tenant);
                prop_assert_eq!(said(&reported), expected, "at host {}", host);
            }
        }
        // A quarantine renews the keys that the report says are open, and no others.
        let rows = watched.world.central.barrier.snapshot().unwrap();
        let whole = |site| (site, None);
        let places = (0..SITES.len()).map(whole);
        for (site, host) in places.chain((0..HOSTS.len()).map(|host| (watched.world.hosts[host].site, Some(host)))) {
            let renewed = open_keys(&rows, &site_name(site), host.map(name_of).as_ref()).unwrap();
            let renewed: BTreeSet<_> =
                renewed.into_iter().map(|key| (key.realm, key.name.to_string(), key.number.to_string())).collect();
            let open = page(&rows, &Scope { open_only: true, ..scope(site, host, None) }, None, usize::MAX).unwrap();
            let keys = open.entries.into_iter().filter(|entry| entry.kind == Kind::TransitKey);
            let open: BTreeSet<_> = keys.map(|entry| (entry.realm, entry.path[0].clone(), entry.held.id)).collect();
            prop_assert_eq!(renewed, open, "of {:?}", (site, host));
        }
    }
}

fn put(watched: &mut Watched, name: u8, value: &str) {
    let path = ["box0", "dir", &name.to_string()];
    watched.world.central.write(|batch| batch.put(TENANTS[0].1, &path, &current(value.as_bytes().to_vec())));
    // The world takes note of what is placed with each of its steps.
    watched.world.step(Step::Sweep { host: 0 });
}

/// Host 0 holds two secrets.
fn two_held() -> Watched {
    let mut watched = Watched::new();
    watched.step(Step::PutBox { tenant: 0, slug: 0, to: 1 });
    (0..2).for_each(|name| put(&mut watched, name, "first"));
    watched.deliver(0, 0);
    watched
}

fn statuses(watched: &Watched) -> Vec<(String, Status)> {
    let mut told: Vec<_> =
        watched.report(0, None, 0).into_iter().map(|entry| (entry.path[2].clone(), entry.status)).collect();
    told.sort();
    told
}

#[test]
fn an_entry_closes_when_its_secret_is_rotated_or_deleted_and_not_before() {
    use Status::{Deleted, Open, Rotated};
    let mut watched = two_held();
    let is = |watched: &Watched, first, second| {
        assert_eq!(statuses(watched), [("0".to_owned(), first), ("1".to_owned(), second)]);
    };
    is(&watched, Open, Open);
    put(&mut watched, 0, "first");
    is(&watched, Open, Open);
    put(&mut watched, 0, "second");
    is(&watched, Rotated, Open);
    watched.step(Step::DeleteSecret { tenant: 0, slug: 0, name: 1 });
    is(&watched, Rotated, Deleted);
    // Leaving the site takes nothing out of a thief's head.
    watched.step(Step::PutBox { tenant: 0, slug: 0, to: 0 });
    watched.deliver(0, 0);
    is(&watched, Rotated, Deleted);
    put(&mut watched, 0, "first");
    is(&watched, Open, Deleted);
    let rows = watched.world.central.barrier.snapshot().unwrap();
    let counts = summary(&rows, &scope(0, None, None)).unwrap();
    assert_eq!((counts.total.vaults, counts.total.secrets, counts.total.versions), (1, 2, 2));
    assert_eq!((counts.total.open, counts.total.closed(), counts.tenants.len()), (1, 1, 1));
    assert_eq!(summary(&rows, &scope(1, None, None)).unwrap().tenants, BTreeMap::new());
}

#[test]
fn an_approle_closes_when_nothing_that_its_hosts_know_or_have_issued_logs_in() {
    use Status::{Deleted, Open, Rotated};
    let mut watched = two_held();
    // Role-id and instance are told by `drawn`, see the world.
    let put = |watched: &mut Watched, drawn, bound| {
        watched.step(Step::PutApprole { tenant: 0, name: 0, to: 2, drawn, bound });
    };
    let is = |watched: &Watched, status| {
        let told = watched.report(0, None, 0);
        let told: Vec<_> = told.iter().filter(|entry| entry.kind == Kind::Approle).collect();
        assert!(told.len() == 1 && told[0].status == status, "{told:?}");
        assert_eq!((&told[0].path, told[0].last_read_us), (&vec!["role0".to_owned()], None));
    };
    put(&mut watched, 0, true);
    watched.deliver(0, 0);
    is(&watched, Open);
    // Revoked: the same role-id, another instance. Where the role-id is enough, that ends nothing.
    put(&mut watched, 2, true);
    is(&watched, Rotated);
    put(&mut watched, 2, false);
    is(&watched, Open);
    put(&mut watched, 3, false);
    is(&watched, Rotated);
    watched.step(Step::DeleteApprole { tenant: 0, name: 0 });
    is(&watched, Deleted);
    let rows = watched.world.central.barrier.snapshot().unwrap();
    let counts = summary(&rows, &scope(0, None, None)).unwrap().total;
    assert_eq!((counts.vaults, counts.secrets, counts.approles, counts.versions), (1, 2, 1, 3));
    assert_eq!(summary(&rows, &scope(1, None, None)).unwrap().total, Counts::default(), "it never went there");
}

#[test]
fn a_host_that_was_away_has_not_what_came_and_went_meanwhile() {
    let site_of_0 = HOSTS[0];
    let sibling = (1..HOSTS.len()).find(|host| HOSTS[*host] == site_of_0).unwrap();
    let mut watched = two_held();
    put(&mut watched, 0, "second");
    watched.deliver(sibling, 0);
    put(&mut watched, 0, "third");
    watched.deliver(sibling, 0);
    let held = |host| watched.report(site_of_0, host, 0).iter().filter(|entry| entry.path[2] == "0").count();
    assert_eq!((held(None), held(Some(0)), held(Some(sibling))), (3, 1, 2));
    watched.deliver(0, 0);
    let held = |host| watched.report(site_of_0, host, 0).iter().filter(|entry| entry.path[2] == "0").count();
    assert_eq!((held(None), held(Some(0)), held(Some(sibling))), (3, 2, 2));
}

#[test]
fn pages_together_are_the_whole_whatever_their_size() {
    let mut watched = Watched::new();
    watched.step(Step::PutBox { tenant: 0, slug: 0, to: 1 });
    for round in 0..3 {
        (0..40).for_each(|name| put(&mut watched, name, &format!("value {round}")));
        watched.deliver(0, 0);
    }
    let whole = watched.report(0, None, 0);
    assert_eq!(whole.len(), 120);
    let rows = watched.world.central.barrier.snapshot().unwrap();
    for limit in [1, 4, 7, 119, 120] {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let found = page(&rows, &scope(0, None, None), after.as_ref(), limit).unwrap();
            assert!(found.entries.len() <= limit.max(3), "{}", found.entries.len());
            all.extend(found.entries);
            after = found.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(all, whole, "{limit}");
    }
    let open = Scope { open_only: true, ..scope(0, None, None) };
    let open = page(&rows, &open, None, usize::MAX).unwrap().entries;
    assert!(open.len() == 40 && open.iter().all(|entry| entry.status == Status::Open));
    let elsewhere = Cursor { tenant: "beta".parse().unwrap(), item: "00".to_owned() };
    assert!(matches!(page(&rows, &scope(0, None, Some(0)), Some(&elsewhere), 1), Err(Refusal::Invalid(_))));
}

#[test]
fn a_tenant_made_again_sees_nothing_of_the_one_before() {
    let watched = two_held();
    let rows = watched.world.central.barrier.snapshot().unwrap();
    let later = Scope { tenant: Some((TENANTS[0].0.parse().unwrap(), Realm(9))), ..scope(0, None, None) };
    assert!(page(&rows, &later, None, 10).unwrap().entries.is_empty());
    assert_eq!(summary(&rows, &later).unwrap().total, Counts::default());
}

/// What a host says that it read, as it is kept.
fn told(watched: &Watched, site: usize, item: ReadItem) -> usize {
    let host = HostId { site: site_name(site), host: name_of(0) };
    let central = &watched.world.central;
    let found = find(&central.barrier.snapshot().unwrap(), &host, vec![item], Now { wall_us: 50, ..NOW }).unwrap();
    let count = found.len();
    central.run(move |rows| keep(&found, rows)).unwrap();
    count
}

#[test]
fn a_host_tells_of_what_its_own_site_holds_and_of_nothing_else() {
    let watched = two_held();
    watched.world.central.write(|batch| {
        for (name, realm) in TENANTS {
            let tenant = Tenant {
                name: name.parse().unwrap(),
                realm,
                kind: TenantKind::ApplicationOwner,
                set_up: true,
                created_us: 0,
                deleted_us: None,
            };
            batch.put(Realm::NODE, &[name], &tenant);
        }
    });
    let item = |tenant_number, path: &[&str], at_us| ReadItem {
        tenant_number,
        path: path.iter().map(|segment| (*segment).to_owned()).collect(),
        version: "v".to_owned(),
        at_us,
    };
    let held = ["box0", "dir", "0"];
    for (site, item) in [
        (1, item(1, &held, 5)),
        (0, item(2, &held, 5)),
        (0, item(9, &held, 5)),
        (0, item(1, &["box0", "dir", "9"], 5)),
        (0, item(1, &["box0"; 17], 5)),
        (0, ReadItem { version: "w".to_owned(), ..item(1, &held, 5) }),
    ] {
        let what = format!("{item:?}");
        assert_eq!(told(&watched, site, item), 0, "{what}");
    }
    assert!(watched.report(0, None, 0).iter().all(|entry| entry.last_read_us.is_none()));
    // Nobody reads in the future, and an older word takes nothing back.
    for (at_us, kept) in [(20, 20), (10, 20), (i64::MAX, 50)] {
        assert_eq!(told(&watched, 0, item(1, &held, at_us)), 1);
        let read: Vec<_> = watched.report(0, Some(0), 0).into_iter().map(|entry| entry.last_read_us).collect();
        assert!(read.contains(&Some(kept)) && read.contains(&None), "{read:?}");
    }
}

#[test]
fn a_key_whose_hmac_key_was_sent_is_to_be_renewed_though_it_was_rotated() {
    let mut watched = Watched::new();
    let realm = TENANTS[0].1;
    let mut key = transit_key(Placement::All, 7);
    watched.world.central.write(|batch| batch.put(realm, &["key0"], &key));
    watched.world.step(Step::Sweep { host: 0 });
    watched.deliver(0, 0);
    let open = |watched: &Watched| {
        let rows = watched.world.central.barrier.snapshot().unwrap();
        open_keys(&rows, &site_name(0), None).unwrap().into_iter().map(|key| key.number).collect::<Vec<_>>()
    };
    assert_eq!(open(&watched), [1]);
    // As a rotation does it: another key, the same for HMACs. Then as a quarantine does it.
    for (hmac_key, expected) in [(7, vec![2]), (9, vec![])] {
        let fresh = FreshKey { key: secret(8 + hmac_key), hmac_key: secret(hmac_key) };
        key.push(Material::fresh(Cipher::Aes256Gcm, &fresh), stamp(), (1, crate::key_store::Why::Rotated));
        watched.world.central.write(|batch| batch.put(realm, &["key0"], &key));
        assert_eq!(open(&watched), expected);
    }
}

//! Rotations against hosts whose sessions break off between any two steps.

use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::pki::{LEAF_VALID_S, Serial};

use super::*;
use crate::site_registry::fixtures::{DEPLOYMENT, NOW, Store, after, id, new_site, secret};
use crate::site_registry::restored::{Claims, ShownCertificate, Stray, examine, stray};
use crate::site_registry::sites::create_site;
use crate::site_registry::standing::Decision;
use crate::site_registry::{EkTrust, HostState};

const A: &str = "udc1/a";
const B: &str = "udc1/b";
const API: CertificateUse = CertificateUse::Api;
const DIST: CertificateUse = CertificateUse::Dist;

/// What a host has on its disk and shows.
#[derive(Debug, Clone)]
struct Machine {
    id: HostId,
    dist: Vec<Vec<u8>>,
    api: Vec<Vec<u8>>,
    /// What its REST server shows, which begins with what is on the disk.
    shown: Vec<Vec<u8>>,
}

/// Steps left before everything breaks off.
struct Steps(u32);

impl Steps {
    fn take(&mut self) -> Option<()> {
        self.0 = self.0.checked_sub(1)?;
        Some(())
    }
}

fn fingerprint(chain: &[Vec<u8>]) -> [u8; 32] {
    read::issued_sha256(&chain[0]).unwrap()
}

struct World {
    store: Store,
    now: Now,
    drawn: u8,
}

impl World {
    /// A site whose hosts have joined.
    fn new() -> (Self, Machine, Machine) {
        let store = Store::initialised();
        let cmd = new_site("udc1", EkTrust::Token, &[("a", None), ("b", None)]);
        store.run(move |rows| create_site(&cmd, rows, NOW)).unwrap();
        let world = Self { store, now: NOW, drawn: 100 };
        let (a, b) = (world.joins(A), world.joins(B));
        (world, a, b)
    }

    /// As an enrolment leaves it.
    fn joins(&self, whom: &str) -> Machine {
        let (whom, now) = (id(whom), self.now);
        let machine = self.store.run(move |rows| {
            let (key, number) = (SigningKey::from_seed(&secret(90)).public().clone(), CertificateNumber(1));
            let leaf = Leaf::HostQuic { host: whom.clone(), generation: HostGeneration(1), number };
            let of = |which, leaf: &Leaf| {
                let serial = Serial([9; 16]);
                Loaded::read(rows, authority_of(&whom.site, which))?.chain(leaf, &key, serial, now)
            };
            let (dist, api) = (of(DIST, &leaf)?, of(API, &rest_leaf(&whom))?);
            let certified = |chain: &[Vec<u8>]| {
                Ok::<_, Refusal>(Certified::new(key.clone(), Issued::of(&chain[0], CertificateGeneration(1), number)?))
            };
            let mut entry = host(rows, &whom)?.value;
            let (ek_public, ak_public) = (vec![1], vec![2]);
            (entry.state, entry.generation) = (HostState::Joined, HostGeneration(1));
            entry.identity = Some(Identity { ek_public, ak_public, dist: certified(&dist)?, api: certified(&api)? });
            let mut batch = Batch::housekeeping();
            put(&mut batch, &whom, &entry);
            Ok((batch, Machine { id: whom.clone(), shown: api.clone(), dist, api }))
        });
        machine.unwrap()
    }

    fn rotates(&mut self, which: CertificateUse, authority: bool) -> Result<u64, Refusal> {
        self.drawn += 1;
        let fresh = FreshKey { seed: secret(self.drawn), serial: Serial([self.drawn; 16]) };
        let rotation = if authority { Rotation::Authority(fresh) } else { Rotation::Certificates };
        let cmd = Rotate { site: "udc1".parse().unwrap(), which, rotation, by: "alice".to_owned() };
        let now = self.now;
        self.store.run(move |rows| rotate(&cmd, rows, now))
    }

    fn identity(&self, whom: &HostId) -> Identity {
        host(&self.store.rows(), whom).unwrap().value.identity.unwrap()
    }

    fn place(&self) -> Site {
        site(&self.store.rows(), &"udc1".parse().unwrap()).unwrap().value
    }

    fn authorities(&self) -> Vec<Vec<u8>> {
        dist_authorities(&self.store.rows(), &"udc1".parse().unwrap(), &self.place()).unwrap()
    }

    /// Whether central lets it in with what it has.
    fn lets_in(&self, machine: &Machine) -> bool {
        let known = self.identity(&machine.id).dist.is(&fingerprint(&machine.dist));
        known && self.authorities().iter().any(|issuer| read::issued_by(&machine.dist[0], issuer).is_ok())
    }

    /// What a host that has passed is given.
    fn issues(&mut self, whom: &HostId) -> Vec<Given> {
        self.drawn = self.drawn.wrapping_add(1);
        let serials = Serials { dist: Serial([self.drawn; 16]), api: Serial([self.drawn; 16]) };
        let (cmd, now) = (Issue { host: whom.clone(), serials }, self.now);
        self.store.run(move |rows| issue(&cmd, rows, now)).unwrap()
    }

    /// Sessions of a host until there is nothing left to be given; `None`: they broke off.
    fn meets(&mut self, machine: &mut Machine, steps: &mut Steps) -> Option<()> {
        machine.shown = machine.api.clone();
        loop {
            assert!(self.lets_in(machine), "a host must always be able to come back");
            let (whom, now) = (machine.id.clone(), self.now);
            let dist = fingerprint(&machine.dist);
            if self.identity(&whom).dist.is_next(&dist) {
                steps.take()?;
                let whom = whom.clone();
                self.store.run(move |rows| confirm(&whom, DIST, &dist, rows, now)).unwrap();
            }
            steps.take()?;
            let mut comes_again = false;
            for Given { which, chain } in self.issues(&whom) {
                steps.take()?;
                let given = fingerprint(&chain);
                match which {
                    API => machine.api = chain,
                    DIST => machine.dist = chain,
                }
                steps.take()?;
                let told = whom.clone();
                self.store.run(move |rows| stored(&told, which, &given, rows)).unwrap();
                comes_again |= which == DIST;
                if which == API {
                    machine.shown = machine.api.clone();
                    steps.take()?;
                    let told = whom.clone();
                    self.store.run(move |rows| confirm(&told, API, &given, rows, now)).unwrap();
                }
            }
            if !comes_again {
                return Some(());
            }
        }
    }

    /// All of a host's sessions, undisturbed.
    fn visits(&mut self, machine: &mut Machine) {
        self.meets(machine, &mut Steps(u32::MAX)).unwrap();
    }

    fn progress(&self, whom: &str) -> (Progress, Progress) {
        let (place, known) = (self.place(), self.identity(&id(whom)));
        (known.api.progress(&place.certificates.api), known.dist.progress(&place.certificates.dist))
    }

    fn lines(&self, action: &str) -> usize {
        self.store.actions().iter().filter(|line| line.as_str() == action).count()
    }
}

/// More than one rotation of everything takes.
const STEPS: u32 = 12;

#[test]
fn a_rotation_that_breaks_off_between_any_two_steps_is_carried_through() {
    for authority in [false, true] {
        for (first, between) in (0..STEPS).flat_map(|first| [None, Some(API), Some(DIST)].map(|again| (first, again))) {
            for second in 0..STEPS {
                let (mut world, mut a, mut b) = World::new();
                let before = (a.api.clone(), a.dist.clone());
                world.rotates(API, authority).unwrap();
                world.rotates(DIST, authority).unwrap();
                let _ = world.meets(&mut a, &mut Steps(first));
                if let Some(which) = between {
                    world.rotates(which, true).unwrap();
                }
                let _ = world.meets(&mut a, &mut Steps(second));
                world.visits(&mut a);
                world.visits(&mut b);
                let done = (Progress::Confirmed, Progress::Confirmed);
                assert_eq!((world.progress(A), world.progress(B)), (done, done));
                let known = world.identity(&a.id);
                assert_eq!(known.api.held.fingerprint, fingerprint(&a.shown));
                assert_eq!(known.dist.held.fingerprint, fingerprint(&a.dist));
                assert!(a.api != before.0 && a.dist != before.1);
                let certificates = world.place().certificates;
                assert!(certificates.api.earlier.is_empty() && certificates.dist.earlier.is_empty());
                assert_eq!(world.authorities().len(), 1);
                assert_eq!(world.authorities()[0], a.dist[1]);
            }
        }
    }
}

#[test]
fn a_rotation_that_overtakes_another_in_one_session_leaves_the_host_what_it_may_have_on_its_disk() {
    for steps in 0..STEPS {
        let (mut world, mut a, _) = World::new();
        world.rotates(DIST, true).unwrap();
        let _ = world.meets(&mut a, &mut Steps(steps));
        world.rotates(DIST, true).unwrap();
        // Given at once to who is connected, and lost with the connection.
        world.issues(&a.id);
        assert!(world.lets_in(&a), "after {steps} steps");
        world.visits(&mut a);
        assert_eq!(world.progress(A).1, Progress::Confirmed);
        assert_eq!(world.identity(&a.id).dist.held.generation, CertificateGeneration(3));
    }
}

#[test]
fn the_earlier_authority_is_trusted_until_the_last_host_has_confirmed() {
    let (mut world, mut a, mut b) = World::new();
    let (earlier, before) = (b.dist[1].clone(), fingerprint(&a.dist));
    assert_eq!(world.rotates(DIST, true).unwrap(), 2);
    assert_eq!(world.progress(A), (Progress::Confirmed, Progress::Pending));
    world.visits(&mut a);
    assert_eq!((world.progress(A).1, world.progress(B).1), (Progress::Confirmed, Progress::Pending));
    assert!(world.lets_in(&b) && world.authorities().contains(&earlier));
    let of_a = world.identity(&a.id).dist.held;
    assert!(!world.identity(&a.id).dist.is(&before), "the one before it is of no use any more");
    world.visits(&mut b);
    assert!(!world.authorities().contains(&earlier));
    assert_eq!((of_a.number, of_a.generation), (CertificateNumber(2), CertificateGeneration(2)));
    assert_eq!(read::peer_of(&a.dist[0]).unwrap().number, CertificateNumber(2));
    assert_eq!(world.lines("site.update-dist-ca"), 1);
    assert_eq!(world.lines("host.certificate-issued"), 2);
    assert_eq!(world.lines("host.certificate-confirmed"), 2);
    assert_eq!(world.lines("site.authority-dropped"), 1);
}

#[test]
fn what_a_host_has_on_its_disk_is_installed_and_what_it_shows_is_confirmed() {
    let (mut world, mut a, _) = World::new();
    world.rotates(DIST, false).unwrap();
    // Issue, take, say so; then it is gone.
    assert_eq!(world.meets(&mut a, &mut Steps(3)), None);
    assert_eq!(world.progress(A).1, Progress::Installed);
    world.visits(&mut a);
    assert_eq!(world.progress(A).1, Progress::Confirmed);
}

#[test]
fn a_host_that_is_cut_off_holds_back_nothing() {
    let (mut world, mut a, b) = World::new();
    world.rotates(API, true).unwrap();
    world.rotates(DIST, true).unwrap();
    world.visits(&mut a);
    assert_eq!(world.authorities().len(), 2);
    world.store.decide(B, Decision::Quarantine { wipe: false });
    assert_eq!((world.authorities().len(), world.place().certificates.api.earlier.len()), (1, 0));
    assert_eq!(world.rotates(DIST, false).unwrap(), 1, "only the other is waited for");
    let given = world.store.run({
        let cmd = Issue { host: b.id.clone(), serials: Serials { dist: Serial([1; 16]), api: Serial([1; 16]) } };
        move |rows| issue(&cmd, rows, NOW)
    });
    assert_eq!(given.unwrap(), []);
    assert!(!is_due(&b.id, &world.store.rows(), NOW).unwrap());
}

#[test]
fn a_site_without_hosts_has_a_new_authority_at_once() {
    let store = Store::initialised();
    let cmd = new_site("udc1", EkTrust::Token, &[("a", None)]);
    store.run(move |rows| create_site(&cmd, rows, NOW)).unwrap();
    let mut world = World { store, now: NOW, drawn: 0 };
    let before = world.authorities();
    assert_eq!(world.rotates(DIST, true).unwrap(), 0);
    let after = world.authorities();
    assert_eq!(after.len(), 1);
    assert_ne!(before, after);
}

#[test]
fn certificates_are_renewed_when_two_thirds_of_their_time_are_over() {
    let (mut world, mut a, _) = World::new();
    let third = u32::try_from(LEAF_VALID_S / 3).unwrap();
    for (seconds, due) in [(0, false), (third, false), (2 * third - 3600, false), (2 * third + 60, true)] {
        assert_eq!(is_due(&a.id, &world.store.rows(), after(seconds)).unwrap(), due, "{seconds}");
    }
    world.now = after(2 * third + 60);
    let before = (a.api.clone(), a.dist.clone());
    world.visits(&mut a);
    assert!(a.api != before.0 && a.dist != before.1);
    assert_eq!((&a.api[1], &a.dist[1]), (&before.0[1], &before.1[1]), "by the same authorities");
    assert!(!is_due(&a.id, &world.store.rows(), world.now).unwrap());
    assert_eq!(world.place().certificates.dist.generation, CertificateGeneration(1));
}

#[test]
fn what_expired_on_its_way_is_issued_anew() {
    let (mut world, mut a, _) = World::new();
    world.rotates(DIST, false).unwrap();
    assert_eq!(world.meets(&mut a, &mut Steps(1)), None);
    let lost = world.identity(&a.id).dist.next.unwrap();
    world.now = after(u32::try_from(LEAF_VALID_S).unwrap() + 1);
    assert_eq!(world.meets(&mut a, &mut Steps(1)), None);
    let next = world.identity(&a.id).dist.next.unwrap();
    assert_eq!((lost.issued.number, next.issued.number), (CertificateNumber(2), CertificateNumber(3)));
}

#[test]
fn authorities_are_replaced_only_so_often_while_a_host_is_away() {
    let (mut world, mut a, mut b) = World::new();
    for _ in 0..EARLIER_MAX {
        world.rotates(API, true).unwrap();
        world.visits(&mut a);
    }
    assert_eq!(
        world.place().certificates.api.earlier.len(),
        EARLIER_MAX,
        "the one that is away holds all of them back"
    );
    let refused = world.rotates(API, true);
    assert!(matches!(&refused, Err(Refusal::Conflict(why)) if why.contains("quarantine")), "{refused:?}");
    world.rotates(API, false).unwrap();
    world.visits(&mut a);
    world.visits(&mut b);
    world.rotates(API, true).unwrap();
}

#[test]
fn a_rotation_of_no_site_is_refused() {
    let (mut world, ..) = World::new();
    let cmd =
        Rotate { site: "udc9".parse().unwrap(), which: API, rotation: Rotation::Certificates, by: "alice".to_owned() };
    assert!(matches!(world.store.run(move |rows| rotate(&cmd, rows, NOW)), Err(Refusal::NotFound("site"))));
    assert_eq!(world.lines("site.update-api-cert"), 0);
    assert_eq!(world.rotates(API, false).unwrap(), 2);
}

#[test]
fn words_about_other_certificates_change_nothing() {
    let (mut world, mut a, b) = World::new();
    world.rotates(API, false).unwrap();
    assert_eq!(world.meets(&mut a, &mut Steps(1)), None);
    let before = world.identity(&a.id);
    for which in [API, DIST] {
        for shown in [[7; 32], fingerprint(&b.api), before.api.held.fingerprint, before.dist.held.fingerprint] {
            let whom = a.id.clone();
            world.store.run(move |rows| stored(&whom, which, &shown, rows)).unwrap();
            let whom = a.id.clone();
            world.store.run(move |rows| confirm(&whom, which, &shown, rows, NOW)).unwrap();
        }
    }
    assert_eq!(world.identity(&a.id), before);
}

/// What a host shows when it connects, and nothing else.
fn shows(machine: &Machine) -> ShownCertificate {
    let peer = read::peer_of(&machine.dist[0]).unwrap();
    assert_eq!(peer.deployment, DEPLOYMENT);
    ShownCertificate { generation: peer.generation, number: peer.number, fingerprint: fingerprint(&machine.dist) }
}

#[test]
fn a_certificate_that_was_replaced_is_no_proof_of_a_lost_life_and_one_that_is_not_known_is() {
    let (mut world, mut a, mut b) = World::new();
    let (copy, old) = (World { store: world.store.copied(), now: NOW, drawn: 0 }, a.clone());
    world.rotates(DIST, true).unwrap();
    world.visits(&mut a);
    world.visits(&mut b);
    let finds = |world: &World, machine: &Machine| {
        let certificate = Some(shows(machine));
        let claims = Claims { host: &machine.id, certificate, head: None, notice: None, positions: &[] };
        let rows = world.store.rows();
        (examine(claims, &rows).unwrap().is_some(), stray(&machine.id, &shows(machine), &rows).unwrap())
    };
    assert_eq!(finds(&world, &old), (false, Stray::Replaced), "of this life, and of no use any more");
    assert!(!world.lets_in(&old));
    assert!(!finds(&world, &a).0);
    assert_eq!(finds(&copy, &a), (true, Stray::Lost), "the copy never issued it");
    assert!(!finds(&copy, &old).0);
}

//! What is kept decrypted says the same as reading would, whatever has happened in between.

use holdfast_protocol::kes::PolicyName;

use super::racing::{decide, store};
use super::*;
use crate::access_control::globs::Globbing;
use crate::access_control::identities::{AssignPolicy, Assignment, assign_policy, forget_identity, identity, judge};
use crate::access_control::policies::{Policy, Rules, WritePolicy, delete_policy, write_policy};
use crate::access_control::records::Revocation;
use crate::barrier::{Barrier, Snapshot};
use crate::key_store::hot::KEPT_MAX;
use crate::rows::Batch;
use crate::store::Engine;
use crate::tally::tally;

const NAMES: [&str; 2] = ["a", "b"];
const PATHS: [&str; 2] = ["/v1/key/generate/a", "/v1/key/decrypt/a"];

#[derive(Debug, Clone)]
enum Step {
    Create { name: usize },
    Rotate { name: usize },
    Distribute { name: usize, placed: bool },
    Delete { name: usize },
    Write { path: usize },
    DeletePolicy,
    Assign { client: u8 },
    Forget { client: u8 },
    Block { blocked: bool },
    Elsewhere { rows: usize },
    Look { name: usize, client: u8, path: usize },
    LookBack { name: usize, client: u8, path: usize },
    Compact,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (name, path, client) = (0..2usize, 0..2usize, 0..2u8);
    let looked = (name.clone(), client.clone(), path.clone());
    let step = prop_oneof![
        2 => name.clone().prop_map(|name| Step::Create { name }),
        2 => name.clone().prop_map(|name| Step::Rotate { name }),
        1 => (name.clone(), any::<bool>()).prop_map(|(name, placed)| Step::Distribute { name, placed }),
        1 => name.prop_map(|name| Step::Delete { name }),
        2 => path.prop_map(|path| Step::Write { path }),
        1 => Just(Step::DeletePolicy),
        2 => client.clone().prop_map(|client| Step::Assign { client }),
        1 => client.prop_map(|client| Step::Forget { client }),
        1 => any::<bool>().prop_map(|blocked| Step::Block { blocked }),
        1 => prop_oneof![4 => 1..5usize, 1 => Just(1100usize)].prop_map(|rows| Step::Elsewhere { rows }),
        8 => looked.clone().prop_map(|(name, client, path)| Step::Look { name, client, path }),
        2 => looked.prop_map(|(name, client, path)| Step::LookBack { name, client, path }),
        1 => Just(Step::Compact),
    ];
    prop::collection::vec(step, 1..60)
}

fn policy() -> PolicyName {
    "p".parse().unwrap()
}

fn client(fill: u8) -> Identity {
    Identity([fill; 32])
}

struct Kept {
    barrier: Barrier,
    engine: std::sync::Arc<crate::store::memory::MemoryEngine>,
    /// Of some time ago.
    old: Snapshot,
    drawn: u8,
}

impl Kept {
    fn new() -> Self {
        let (barrier, engine) = store();
        let old = barrier.snapshot().unwrap();
        Self { barrier, engine, old, drawn: 0 }
    }

    /// Done or refused: what counts is what is there then.
    fn change<T: Send + 'static>(&self, change: impl FnMut(&dyn Rows) -> Result<(Batch, T), Refusal> + Send + 'static) {
        drop(decide(&self.barrier, change));
    }

    fn step(&mut self, step: Step) {
        self.drawn = self.drawn.wrapping_add(1);
        let fill = self.drawn;
        let key = |at: usize| name(NAMES[at]);
        match step {
            Step::Create { name } => {
                let (name, cipher, distribute) = (key(name), Cipher::Aes256Gcm, everywhere());
                let cmd = CreateKey { by: NODE, name, cipher, fresh: fresh(fill), distribute };
                self.change(move |rows| create_key(&cmd, rows, at(1)));
            }
            Step::Rotate { name } => {
                let name = key(name);
                let cmd = RotateKey { by: NODE, name, cipher: None, fresh: fresh(fill), renew_hmac: true };
                self.change(move |rows| rotate_key(&cmd, rows, at(1)));
            }
            Step::Distribute { name, placed } => {
                let distribute = if placed { everywhere() } else { Distribute::default() };
                let cmd = SetDistribute { by: NODE, name: key(name), distribute };
                self.change(move |rows| set_distribute(&cmd, rows, at(1)));
            }
            Step::Delete { name } => {
                let name = key(name);
                self.change(move |rows| delete_key(&NODE, &name, rows, at(1)));
            }
            Step::Write { path } => {
                let (allow, deny) = (vec![PATHS[path].to_owned()], Vec::new());
                let rules = Rules { allow, deny, globbing: Globbing::Segments };
                let cmd = WritePolicy { by: NODE, name: policy(), rules };
                self.change(move |rows| write_policy(&cmd, rows, at(1)));
            }
            Step::DeletePolicy => self.change(|rows| delete_policy(&NODE, &policy(), rows, at(1))),
            Step::Assign { client: of } => {
                let cmd = AssignPolicy { by: NODE, identity: client(of), policy: policy() };
                self.change(move |rows| assign_policy(&cmd, rows, at(1)));
            }
            Step::Forget { client: of } => self.change(move |rows| forget_identity(&NODE, client(of), rows, at(1))),
            Step::Block { blocked } => self.change(move |_| {
                let mut batch = Batch::housekeeping();
                batch.put(TENANT, &["tenant"], &Revocation::Tenant { not_before_us: 0, blocked });
                Ok((batch, ()))
            }),
            Step::Elsewhere { rows } => (0..rows).for_each(|row| self.elsewhere(row)),
            Step::Look { name, client, path } => self.look(&self.barrier.snapshot().unwrap(), name, client, path),
            Step::LookBack { name, client, path } => {
                self.look(&self.old, name, client, path);
                self.old = self.barrier.snapshot().unwrap();
            }
            Step::Compact => {
                let revision = self.barrier.snapshot().unwrap().revision();
                self.engine.compact(revision).unwrap();
            }
        }
    }

    /// A row that none of this is about.
    fn elsewhere(&self, row: usize) {
        self.change(move |_| {
            let mut batch = Batch::housekeeping();
            batch.put(Realm::NODE, &[&row.to_string()], &Revocation::Token { expires_us: 1 });
            Ok((batch, ()))
        });
    }

    /// What is listed is what is there, read one by one.
    fn look_at_lists(&self, rows: &Snapshot, hot: &HotRealm<'_>) {
        let keys: Vec<_> = NAMES.iter().filter_map(|of| Some(((*of).to_owned(), self.placed(rows, of)?))).collect();
        let listed = |keys: &[Listed<Distribute>]| keys.iter().map(|key| (key.name.clone(), key.of.clone())).collect();
        let told: Vec<_> = listed(&hot.key_names().unwrap());
        assert_eq!(told, keys);
        assert_eq!(tally::<TransitKey>(rows, TENANT).unwrap(), u32::try_from(keys.len()).unwrap());
        let policies = usize::from(crate::access_control::policies::policy(rows, TENANT, &policy()).is_ok());
        assert_eq!(hot.policy_names().unwrap().len(), policies);
        assert_eq!(tally::<Policy>(rows, TENANT).unwrap(), u32::try_from(policies).unwrap());
        let assigned = rows.list::<Assignment>(TENANT, &[]).unwrap().len();
        assert_eq!(tally::<Assignment>(rows, TENANT).unwrap(), u32::try_from(assigned).unwrap());
        let known = (0..2u8).filter_map(|of| identity(rows, TENANT, client(of)).ok());
        let known: Vec<_> =
            known.map(|known| (known.identity.to_string(), known.policy.map(|(name, _)| name))).collect();
        let told: Vec<_> = hot.identities().unwrap().iter().map(|one| (one.name.clone(), one.of.clone())).collect();
        assert_eq!(told, known);
    }

    fn placed(&self, rows: &Snapshot, of: &str) -> Option<Distribute> {
        rows.read::<TransitKey>(TENANT, &[of]).unwrap().map(|row| row.value.distribute)
    }

    /// Twice: what is kept the first time is used the second.
    fn look(&self, rows: &Snapshot, at: usize, of: u8, path: usize) {
        let udc1: SiteName = "udc1".parse().unwrap();
        let gate = Gate { site: Some(&udc1), lease_ok: &|_| true, read: &|_, _| {} };
        for _ in 0..2 {
            let hot = HotRealm::new(rows, TENANT).unwrap();
            let bytes = |key: &TransitKey| crate::rows::encode_body(key).expose().to_vec();
            let kept = hot.lookup(&gate, &name(NAMES[at])).map(|key| bytes(&key));
            let read = lookup(rows, TENANT, &gate, &name(NAMES[at])).map(|key| bytes(&key));
            assert_eq!(kept.map_err(|why| why.to_string()), read.map_err(|why| why.to_string()));
            let kept = hot.judge(client(of), PATHS[path]).map(|known| (*known).clone());
            let read = judge(rows, TENANT, client(of), PATHS[path]);
            assert_eq!(kept.map_err(|why| why.to_string()), read.map_err(|why| why.to_string()));
            self.look_at_lists(rows, &hot);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_kept_is_what_is_there(steps in steps()) {
        let mut kept = Kept::new();
        steps.into_iter().for_each(|step| kept.step(step));
    }
}

#[test]
fn only_so_much_is_kept() {
    let kept = Kept::new();
    for number in 0..=KEPT_MAX {
        let (name, cipher) = (name(&format!("k{number}")), Cipher::Aes256Gcm);
        let cmd = CreateKey { by: NODE, name, cipher, fresh: fresh(1), distribute: Distribute::default() };
        kept.change(move |rows| create_key(&cmd, rows, at(1)));
    }
    let rows = kept.barrier.snapshot().unwrap();
    let hot = HotRealm::new(&rows, TENANT).unwrap();
    for number in 0..=KEPT_MAX {
        assert!(hot.lookup(&Gate::CENTRAL, &name(&format!("k{number}"))).is_ok());
        assert!(hot.kept_keys() <= KEPT_MAX);
    }
    assert_eq!(hot.kept_keys(), 1, "at the bound all are forgotten");
}

#[test]
fn what_is_kept_goes_with_the_keyring() {
    let mut kept = Kept::new();
    kept.step(Step::Create { name: 0 });
    let rows = kept.barrier.snapshot().unwrap();
    let weak = HotRealm::new(&rows, TENANT).unwrap().weak(&name("a"));
    assert!(weak.upgrade().is_some(), "it is kept when nobody uses it");
    kept.old = kept.barrier.snapshot().unwrap();
    let ring = kept.barrier.seal().unwrap();
    drop((rows, kept));
    assert!(weak.upgrade().is_some());
    drop(ring);
    assert!(weak.upgrade().is_none(), "it outlived the keys");
}

//! KES clients: policies, identities, and what the configuration says of them.

use holdfast_protocol::crypto::transit::Cipher;
use holdfast_protocol::kes::{Identity, KeyName, PolicyName};

use super::*;
use crate::access_control::authority::Authority;
use crate::access_control::configured::{Change, Configured, ConfiguredPolicy, outstanding, settle};
use crate::access_control::globs::Globbing;
use crate::access_control::identities::{
    AssignPolicy, Assignment, Standing, assign_policy, forget_identity, identities, identity, judge, set_admin,
};
use crate::access_control::policies::{
    Origin, PATH_BYTES_MAX, PATTERN_BYTES_MAX, PATTERNS_MAX, Policy, RULES_BYTES_MAX, Rules, WritePolicy,
    delete_policy, policies, policy, write_policy,
};
use crate::key_store::{FreshKey, TransitKey};

const NODE: Authority = Authority::Node { realm: ACME, part: "test" };
const ADMIN: Identity = Identity([0xad; 32]);
const APP: Identity = Identity([0xa1; 32]);
const OTHER: Identity = Identity([0xb2; 32]);
const GENERATE: &str = "/v1/key/generate/app-1";

fn policy_name(text: &str) -> PolicyName {
    text.parse().unwrap()
}

fn rules(allow: &[&str], deny: &[&str], globbing: Globbing) -> Rules {
    let owned = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    Rules { allow: owned(allow), deny: owned(deny), globbing }
}

fn client(identity: Identity, path: &str) -> Authority {
    Authority::Client { realm: ACME, identity, path: path.to_owned() }
}

/// A tenant with an administrator's identity.
struct Clients(World);

impl Clients {
    fn new() -> Self {
        let mut clients = Self(world());
        clients.0.rows.run(|rows| set_admin(&NODE, ADMIN, rows, at(3))).unwrap();
        clients
    }

    fn write_by(&mut self, by: Authority, name: &str, rules: Rules) -> Result<(), Refusal> {
        let cmd = WritePolicy { by, name: policy_name(name), rules };
        self.0.rows.run(|rows| write_policy(&cmd, rows, at(4)))
    }

    fn write(&mut self, name: &str, allow: &[&str]) {
        let by = client(ADMIN, "/v1/policy/write/x");
        self.write_by(by, name, rules(allow, &[], Globbing::Segments)).unwrap();
    }

    fn delete(&mut self, name: &str) -> Result<(), Refusal> {
        let by = client(ADMIN, "/v1/policy/delete/x");
        self.0.rows.run(|rows| delete_policy(&by, &policy_name(name), rows, at(4)))
    }

    fn assign_by(&mut self, by: Authority, policy: &str, identity: Identity) -> Result<(), Refusal> {
        let cmd = AssignPolicy { by, identity, policy: policy_name(policy) };
        self.0.rows.run(|rows| assign_policy(&cmd, rows, at(5)))
    }

    fn assign(&mut self, policy: &str, identity: Identity) -> Result<(), Refusal> {
        self.assign_by(client(ADMIN, "/v1/identity/assign/x/y"), policy, identity)
    }

    fn forget(&mut self, identity: Identity) -> Result<(), Refusal> {
        let by = client(ADMIN, "/v1/identity/forget/x");
        self.0.rows.run(|rows| forget_identity(&by, identity, rows, at(6)))
    }

    fn may(&self, identity: Identity, path: &str) -> bool {
        match judge(&self.0.rows, ACME, identity, path) {
            Ok(known) => {
                assert_eq!(known.identity, identity);
                true
            }
            Err(Refusal::Denied) => false,
            Err(other) => panic!("{other}"),
        }
    }

    fn known(&self) -> Vec<Identity> {
        identities(&self.0.rows, ACME).unwrap().into_iter().map(|known| known.name.parse().unwrap()).collect()
    }

    /// Does all that the configuration asks for.
    fn configure(&mut self, wanted: &Configured) -> Vec<Change> {
        let changes = outstanding(&self.0.rows, ACME, wanted).unwrap();
        let lines = self.0.rows.lines.len();
        for change in &changes {
            let fresh = FreshKey { key: secret(1), hmac_key: secret(2) };
            let to = (ACME, Cipher::Aes256Gcm);
            self.0.rows.run(|rows| settle(change, to, &fresh, rows, at(7))).unwrap();
        }
        assert_eq!(self.0.rows.lines.len(), lines + changes.len(), "each change has its line");
        assert_eq!(outstanding(&self.0.rows, ACME, wanted).unwrap(), [], "nothing is left to do");
        changes
    }
}

#[test]
fn an_identity_may_do_what_its_policy_says_and_deny_comes_first() {
    let mut clients = Clients::new();
    let app = rules(&["/v1/key/generate/app-*", "/v1/key/decrypt/*"], &["/v1/key/*/app-2"], Globbing::Segments);
    clients.write_by(NODE, "app", app).unwrap();
    clients.assign_by(NODE, "app", APP).unwrap();
    for (identity, path, may) in [
        (APP, GENERATE, true),
        (APP, "/v1/key/generate/other", false),
        (APP, "/v1/key/generate/app-1/more", false),
        (APP, "/v1/key/generate/app-2", false),
        (APP, "/v1/key/decrypt/other", true),
        (APP, "/v1/key/decrypt/app-2", false),
        (OTHER, GENERATE, false),
        (ADMIN, GENERATE, true),
        (ADMIN, "/v1/anything", true),
    ] {
        assert_eq!(clients.may(identity, path), may, "{identity} {path}");
    }
    // In another tenant none of them is anybody.
    assert!(matches!(judge(&clients.0.rows, SYSTEM, ADMIN, GENERATE), Err(Refusal::Denied)));
}

#[test]
fn a_policy_is_judged_in_the_meaning_it_was_written_in() {
    let mut clients = Clients::new();
    for (name, identity, globbing) in [("seg", APP, Globbing::Segments), ("pre", OTHER, Globbing::Prefixes)] {
        clients.write_by(NODE, name, rules(&["/v1/key/*"], &[], globbing)).unwrap();
        clients.assign_by(NODE, name, identity).unwrap();
    }
    assert_eq!((clients.may(APP, GENERATE), clients.may(OTHER, GENERATE)), (false, true));
    assert_eq!((clients.may(APP, "/v1/key/x"), clients.may(OTHER, "/v1/key/x")), (true, true));
}

#[test]
fn of_a_blocked_tenant_nobody_may_do_anything() {
    let mut clients = Clients::new();
    let acme = "acme".parse().unwrap();
    for (blocked, may) in [(true, false), (false, true)] {
        clients.0.rows.run(|rows| set_blocked(&acme, blocked, "test", rows, at(6))).unwrap();
        assert_eq!(clients.may(ADMIN, GENERATE), may);
    }
}

#[test]
fn a_policy_reaches_at_once_whoever_has_it() {
    let mut clients = Clients::new();
    clients.write("app", &["/v1/key/generate/*"]);
    clients.assign("app", APP).unwrap();
    assert!(clients.may(APP, GENERATE));
    clients.write("app", &["/v1/key/decrypt/*"]);
    assert_eq!((clients.may(APP, GENERATE), clients.may(APP, "/v1/key/decrypt/a")), (false, true));
    clients.write("other", &[GENERATE]);
    clients.assign("other", APP).unwrap();
    assert_eq!((clients.may(APP, GENERATE), clients.may(APP, "/v1/key/decrypt/a")), (true, false));
    clients.forget(APP).unwrap();
    assert!(!clients.may(APP, GENERATE));
    assert!(matches!(clients.forget(APP), Err(Refusal::NotFound("identity"))));
}

#[test]
fn who_had_a_policy_that_was_deleted_has_not_a_later_one_of_its_name() {
    let mut clients = Clients::new();
    clients.write("app", &["/v1/key/generate/*"]);
    clients.assign("app", APP).unwrap();
    assert_eq!(clients.known(), [APP, ADMIN]);
    clients.delete("app").unwrap();
    assert!(matches!(clients.delete("app"), Err(Refusal::NotFound("policy"))));
    assert_eq!((clients.may(APP, GENERATE), clients.known()), (false, vec![ADMIN]));
    clients.write("app", &["*", "/v1/key/generate/*"]);
    assert_eq!((clients.may(APP, GENERATE), clients.known()), (false, vec![ADMIN]));
    assert!(matches!(identity(&clients.0.rows, ACME, APP), Err(Refusal::NotFound("identity"))));
    clients.assign("app", APP).unwrap();
    assert!(clients.may(APP, GENERATE));
}

#[test]
fn nobody_gives_himself_a_policy_and_an_administrator_has_none() {
    let mut clients = Clients::new();
    clients.write("all", &["/v1/*/*/*", "/v1/*/*/*/*"]);
    clients.assign("all", APP).unwrap();
    let by = client(APP, "/v1/identity/assign/all/x");
    assert!(matches!(clients.assign_by(by.clone(), "all", APP), Err(Refusal::Denied)));
    assert!(matches!(clients.assign("all", ADMIN), Err(Refusal::Denied)), "an administrator neither");
    clients.assign_by(by.clone(), "all", OTHER).unwrap();
    assert!(matches!(clients.assign_by(by, "all", ADMIN), Err(Refusal::Invalid(why)) if why == "identity is root"));
    assert!(matches!(clients.assign("none", APP), Err(Refusal::NotFound("policy"))));
    assert!(matches!(clients.forget(ADMIN), Err(Refusal::Invalid(_))));
    let by = client(ADMIN, "/v1");
    assert!(matches!(clients.0.rows.run(|rows| set_admin(&by, OTHER, rows, at(6))), Err(Refusal::Denied)));
    assert!(clients.may(ADMIN, GENERATE));
}

#[test]
fn what_is_not_permitted_changes_nothing() {
    let mut clients = Clients::new();
    clients.write("app", &["/v1/key/*/*"]);
    clients.assign("app", APP).unwrap();
    let (lines, revision) = (clients.0.rows.lines.len(), clients.0.rows.revision());
    let anything = rules(&["*"], &[], Globbing::Segments);
    let by = |path| client(APP, path);
    assert!(matches!(clients.write_by(by("/v1/policy/write/app"), "app", anything), Err(Refusal::Denied)));
    assert!(matches!(clients.assign_by(by("/v1/identity/assign/app/x"), "app", OTHER), Err(Refusal::Denied)));
    let (delete, forget) = (by("/v1/policy/delete/app"), by("/v1/identity/forget/x"));
    let gone = clients.0.rows.run(|rows| delete_policy(&delete, &policy_name("app"), rows, at(4)));
    assert!(matches!(gone, Err(Refusal::Denied)));
    assert!(matches!(clients.0.rows.run(|rows| forget_identity(&forget, APP, rows, at(4))), Err(Refusal::Denied)));
    assert_eq!((clients.0.rows.lines.len(), clients.0.rows.revision()), (lines, revision));
}

#[test]
fn a_token_of_an_administrator_does_as_well_and_of_no_other() {
    let mut clients = Clients::new();
    let admin = clients.0.verify(&clients.0.roots[1], at(3)).unwrap();
    let any = || rules(&["/v1/*"], &[], Globbing::Segments);
    clients.write_by(Authority::Admin(admin.clone()), "app", any()).unwrap();
    let written = policy(&clients.0.rows, ACME, &policy_name("app")).unwrap().value;
    assert_eq!((written.origin, written.written.by.as_str()), (Origin::Api, "root"));
    clients.0.rows.run(|rows| set_blocked(&"acme".parse().unwrap(), true, "test", rows, at(6))).unwrap();
    assert!(matches!(clients.write_by(Authority::Admin(admin), "app", any()), Err(Refusal::Unauthenticated)));
}

#[test]
fn no_policy_lets_a_path_be_called_that_is_longer_than_any_there_is() {
    let mut clients = Clients::new();
    clients.write_by(NODE, "p", rules(&["/v1/*"], &[], Globbing::Prefixes)).unwrap();
    let policy = policy(&clients.0.rows, ACME, &policy_name("p")).unwrap().value;
    let longest = format!("/v1/{}", "a".repeat(PATH_BYTES_MAX - 4));
    assert!(policy.permits(&longest) && !policy.permits(&format!("{longest}a")));
}

#[test]
fn patterns_have_bounds() {
    let mut clients = Clients::new();
    let (longest, most) = ("a".repeat(PATTERN_BYTES_MAX), vec!["a"; PATTERNS_MAX]);
    let too_long = format!("{longest}a");
    let full = vec![longest.as_str(); RULES_BYTES_MAX / PATTERN_BYTES_MAX];
    for (allow, deny, globbing, good) in [
        (full.as_slice(), &[][..], Globbing::Segments, true),
        (&full, &["a"], Globbing::Segments, false),
        (&most, &[], Globbing::Segments, true),
        (&most, &["a"], Globbing::Segments, false),
        (&[longest.as_str()], &[], Globbing::Segments, true),
        (&[], &[too_long.as_str()], Globbing::Prefixes, false),
        (&["["], &[], Globbing::Segments, false),
        (&[], &["["], Globbing::Segments, false),
        (&["["], &[], Globbing::Prefixes, true),
        (&[], &[], Globbing::Segments, true),
    ] {
        let outcome = clients.write_by(NODE, "p", rules(allow, deny, globbing));
        assert!(if good { outcome.is_ok() } else { matches!(outcome, Err(Refusal::Invalid(_))) });
    }
}

fn configured(policies: &[(&str, &[&str], &[Identity])], keys: &[&str]) -> Configured {
    let policies = policies.iter().map(|(name, allow, identities)| {
        let rules = rules(allow, &[], Globbing::Segments);
        (policy_name(name), ConfiguredPolicy { rules, identities: identities.iter().copied().collect() })
    });
    let keys = keys.iter().map(|name| name.parse().unwrap()).collect();
    Configured { admins: BTreeSet::from([ADMIN]), policies: policies.collect(), keys, serving: None }
}

fn key(clients: &Clients, name: &str) -> Option<TransitKey> {
    clients.0.rows.read::<TransitKey>(ACME, &[name]).unwrap().map(|row| row.value)
}

#[test]
fn the_configuration_becomes_rows_once() {
    let mut clients = Clients(world());
    let wanted = configured(&[("app", &["/v1/key/generate/*"], &[APP]), ("idle", &[], &[])], &["preset"]);
    let changes = clients.configure(&wanted);
    assert_eq!(changes.len(), 5);
    assert!(clients.may(APP, GENERATE) && clients.may(ADMIN, GENERATE));
    assert_eq!(key(&clients, "preset").unwrap().origin, Origin::Config);
    assert_eq!(clients.configure(&wanted), []);
}

#[test]
fn what_is_gone_from_the_configuration_goes_and_a_key_stays() {
    let mut clients = Clients(world());
    clients.configure(&configured(&[("app", &["/v1/key/*/*"], &[APP, OTHER]), ("b", &[], &[])], &["one", "two"]));
    let before = *key(&clients, "one").unwrap().versions[0].material.key.expose();
    clients.configure(&configured(&[("app", &["/v1/key/decrypt/*"], &[APP])], &["two"]));
    assert_eq!((clients.may(APP, GENERATE), clients.may(APP, "/v1/key/decrypt/a")), (false, true));
    assert_eq!(clients.known(), [APP, ADMIN]);
    let left: Vec<_> = policies(&clients.0.rows, ACME).unwrap().iter().map(|row| row.name().to_owned()).collect();
    assert_eq!(left, ["app"]);
    let kept = key(&clients, "one").unwrap();
    assert_eq!((kept.origin, *kept.versions[0].material.key.expose()), (Origin::Api, before));
    clients.configure(&Configured::default());
    assert_eq!((clients.known(), policies(&clients.0.rows, ACME).unwrap().len()), (vec![], 0));
    assert_eq!(key(&clients, "two").unwrap().origin, Origin::Api);
}

#[test]
fn the_configuration_stands_above_what_the_api_wrote_and_the_api_changes_none_of_it() {
    let mut clients = Clients::new();
    clients.write("app", &["/v1/key/decrypt/*"]);
    clients.write("mine", &["/v1/key/decrypt/*"]);
    clients.assign("mine", APP).unwrap();
    clients.assign("mine", OTHER).unwrap();
    clients.configure(&configured(&[("app", &["/v1/key/generate/*"], &[APP])], &[]));
    assert!(clients.may(APP, GENERATE) && !clients.may(OTHER, GENERATE), "what the API made beside it stays");
    let conflict = |outcome: Result<(), Refusal>| assert!(matches!(outcome, Err(Refusal::Conflict(_))));
    let by = client(ADMIN, "/v1");
    conflict(clients.write_by(by, "app", rules(&["*"], &[], Globbing::Segments)));
    conflict(clients.delete("app"));
    conflict(clients.assign("mine", APP));
    conflict(clients.forget(APP));
    conflict(clients.assign("app", OTHER));
    assert!(!clients.may(OTHER, GENERATE));
    // By the API: so it outlives another run of the same configuration.
    assert!(clients.may(OTHER, "/v1/key/decrypt/x"));
    assert_eq!(clients.configure(&configured(&[("app", &["/v1/key/generate/*"], &[APP])], &[])), []);
}

#[test]
fn what_takes_rights_away_comes_first_and_alone_takes_of_the_reserve() {
    let mut clients = Clients(world());
    let all = ["/v1/key/*/*"];
    let before = configured(&[("app", &all, &[APP]), ("gone", &all, &[]), ("less", &all, &[OTHER])], &["one"]);
    clients.configure(&before);
    // One policy goes, one says less, and an identity moves to a new one.
    let after = configured(&[("less", &[], &[OTHER]), ("new", &[], &[APP])], &["two"]);
    let changes = outstanding(&clients.0.rows, ACME, &after).unwrap();
    let first: Vec<_> = changes.iter().take_while(|change| change.withdraws()).cloned().collect();
    let expected = [
        Change::DeletePolicy(policy_name("app")),
        Change::DeletePolicy(policy_name("gone")),
        Change::RewritePolicy(policy_name("less"), rules(&[], &[], Globbing::Segments)),
        Change::ForgetIdentity(APP),
    ];
    assert_eq!(first, expected);
    for change in &first {
        let fresh = FreshKey { key: secret(1), hmac_key: secret(2) };
        let (batch, ()) = settle(change, (ACME, Cipher::Aes256Gcm), &fresh, &clients.0.rows, at(7)).unwrap();
        assert!(batch.reserve, "{change:?}");
        clients.0.rows.run(|rows| settle(change, (ACME, Cipher::Aes256Gcm), &fresh, rows, at(7))).unwrap();
    }
    assert!(!clients.may(APP, GENERATE) && !clients.may(OTHER, GENERATE), "for the rest there may be no room");
    for change in outstanding(&clients.0.rows, ACME, &after).unwrap() {
        assert!(!change.withdraws(), "{change:?}");
        let fresh = FreshKey { key: secret(1), hmac_key: secret(2) };
        let settled = settle(&change, (ACME, Cipher::Aes256Gcm), &fresh, &clients.0.rows, at(7));
        assert!(settled.is_err() || !settled.unwrap().0.reserve, "{change:?}");
    }
    clients.configure(&after);
}

#[test]
fn who_had_a_policy_of_the_api_has_not_the_one_that_the_configuration_puts_in_its_place() {
    let mut clients = Clients::new();
    clients.write("app", &["/v1/key/generate/*"]);
    clients.assign("app", APP).unwrap();
    clients.assign("app", OTHER).unwrap();
    let wanted = configured(&[("app", &["/v1/key/generate/*"], &[OTHER])], &[]);
    clients.configure(&wanted);
    assert_eq!((clients.may(APP, GENERATE), clients.may(OTHER, GENERATE)), (false, true));
    // Written anew by the configuration it stays the same one.
    clients.configure(&configured(&[("app", &["/v1/key/generate/app-*"], &[OTHER])], &[]));
    assert_eq!((clients.may(APP, GENERATE), clients.may(OTHER, GENERATE)), (false, true));
}

#[test]
fn two_parts_of_a_configuration_say_together_what_is_so_or_nothing() {
    let mut all = configured(&[("a", &["/v1/*"], &[APP])], &["one"]);
    all.merge(&configured(&[("a", &["/v1/*"], &[OTHER]), ("b", &[], &[])], &["two"])).unwrap();
    assert_eq!(all, configured(&[("a", &["/v1/*"], &[APP, OTHER]), ("b", &[], &[])], &["one", "two"]));
    let before = all.clone();
    let mut other_admin = configured(&[], &[]);
    other_admin.admins = BTreeSet::from([APP]);
    for (bad, why) in [
        (configured(&[("a", &["/v2/*"], &[])], &[]), "policy a: says something else"),
        (configured(&[("b", &[], &[APP])], &[]), "has both"),
        (other_admin, "is an administrator"),
    ] {
        let told = all.merge(&bad).unwrap_err().to_string();
        assert!(told.contains(why), "{told}");
        assert_eq!(all, before);
    }
}

#[test]
fn a_configuration_that_contradicts_itself_is_refused() {
    let good = configured(&[("a", &["/v1/*"], &[APP]), ("b", &[], &[OTHER])], &[]);
    assert!(good.check().is_ok());
    let bad = [
        (configured(&[("a", &[], &[APP]), ("b", &[], &[APP])], &[]), "has both"),
        (configured(&[("a", &[], &[ADMIN])], &[]), "is an administrator"),
        (configured(&[("a", &["["], &[])], &[]), "policy a: syntax error"),
    ];
    for (bad, why) in bad {
        let told = bad.check().unwrap_err().to_string();
        assert!(told.contains(why), "{told}");
        assert!(matches!(outstanding(&world().rows, ACME, &bad), Err(Refusal::Invalid(_))));
    }
}

#[test]
fn an_administrator_who_gets_a_policy_by_the_configuration_is_none_any_more() {
    let mut clients = Clients(world());
    clients.configure(&configured(&[], &[]));
    let mut wanted = configured(&[("app", &["/v1/key/generate/*"], &[ADMIN])], &[]);
    wanted.admins = BTreeSet::from([APP]);
    clients.configure(&wanted);
    assert!(clients.may(ADMIN, GENERATE) && !clients.may(ADMIN, "/v1/key/decrypt/a") && clients.may(APP, "/v1/x"));
    let row = clients.0.rows.read::<Assignment>(ACME, &[&ADMIN.to_string()]).unwrap().unwrap();
    assert!(matches!(row.value.standing, Standing::Policy { name, .. } if name.as_str() == "app"));
}

#[test]
fn at_a_host_with_copies_the_same_is_said() {
    let mut clients = Clients::new();
    clients.write("app", &["/v1/key/generate/*"]);
    clients.assign("app", APP).unwrap();
    let (mut host, here) = (MapRows::new(), Realm(9));
    clients.0.rows.copy_to(&[Kind::Policy, Kind::Identity, Kind::Revocation], ACME, &mut host, here);
    assert!(judge(&host, here, APP, GENERATE).is_ok() && judge(&host, here, ADMIN, "/v1/x").is_ok());
    assert!(matches!(judge(&host, here, APP, "/v1/key/decrypt/a"), Err(Refusal::Denied)));
    let names: Vec<Policy> = policies(&host, here).unwrap().into_iter().map(|row| row.value).collect();
    assert_eq!(names.len(), 1);
}

#[test]
fn a_preset_key_that_somebody_made_is_kept_and_not_deleted_by_the_api() {
    use crate::key_store::{CreateKey, create_key, delete_key};
    let mut clients = Clients::new();
    let name: KeyName = "preset".parse().unwrap();
    let by = client(ADMIN, "/v1/key/create/preset");
    let cmd = CreateKey {
        by: by.clone(),
        name: name.clone(),
        cipher: Cipher::ChaCha20Poly1305,
        fresh: FreshKey { key: secret(8), hmac_key: secret(9) },
        distribute: crate::distribute::Distribute::default(),
    };
    clients.0.rows.run(|rows| create_key(&cmd, rows, at(5))).unwrap();
    assert_eq!(clients.configure(&configured(&[], &["preset"])).len(), 1);
    let kept = key(&clients, "preset").unwrap();
    assert_eq!((kept.origin, kept.versions[0].material.key.expose()), (Origin::Config, &[8; 32]));
    let outcome = clients.0.rows.run(|rows| delete_key(&by, &name, rows, at(6)));
    assert!(matches!(outcome, Err(Refusal::Conflict(_))));
    clients.configure(&configured(&[], &[]));
    clients.0.rows.run(|rows| delete_key(&by, &name, rows, at(6))).unwrap();
}

//! Tenants, logins and tokens as ledgers.

use std::collections::BTreeSet;

use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::Realm;

use super::logins::{LogIn, PutUser, log_in, login_of, put_user, refresh, revoke_own, revoke_principal};
use super::tenants::{CreateTenant, SetupTenant, create_tenant, set_blocked, setup_tenant, tenant};
use super::tokens::{mint, text_of};
use super::*;
use crate::ports::Now;
use crate::rows::{Kind, ReadRows, Refusal, Rows};
use crate::testing::{MapRows, at, secret};

mod approles;
mod clients;

/// A deployment with the tenants `system` and `acme`, each with an administrator, and their root tokens.
struct World {
    rows: MapRows,
    roots: [String; 2],
    verified: VerifiedTokens,
}

fn create(rows: &mut MapRows, name: &str, kind: TenantKind) -> Result<Tenant, Refusal> {
    let (base, key, token_seed) = (secret(1), secret(2), secret(name.as_bytes()[0]));
    let cmd = CreateTenant { name: name.parse().unwrap(), kind, base, key, token_seed, by: "test".into() };
    rows.run(|rows| create_tenant(&cmd, rows, at(1)))
}

fn setup(rows: &mut MapRows, name: &str, number: u8) -> Result<Claims, Refusal> {
    let cmd = SetupTenant {
        name: name.parse().unwrap(),
        admin_username: "admin".into(),
        password_hash: format!("hash of {name}"),
        full_name: None,
        token_id: TokenId([number; 16]),
        by: "test".into(),
    };
    rows.run(|rows| setup_tenant(&cmd, rows, at(2)))
}

fn world() -> World {
    let mut rows = MapRows::new();
    let mut root = |name, kind, number| {
        create(&mut rows, name, kind).unwrap();
        let claims = setup(&mut rows, name, number).unwrap();
        mint(&rows, &claims).unwrap().to_string()
    };
    let roots = [root("system", TenantKind::System, 1), root("acme", TenantKind::ApplicationOwner, 2)];
    World { rows, roots, verified: VerifiedTokens::default() }
}

const SYSTEM: Realm = Realm(1);
const ACME: Realm = Realm(2);

impl World {
    fn verify(&self, text: &str, now: Now) -> Result<Caller, Refusal> {
        verify(text, &|number| Some(Realm(number)), &self.rows, now, &self.verified)
    }

    fn log_in(&mut self, realm: Realm, username: &str, number: u8, now: Now) -> Result<String, Refusal> {
        let row = login_of(&self.rows, realm, username)?.ok_or(Refusal::Unauthenticated)?;
        let (username, token_id) = (username.to_owned(), TokenId([number; 16]));
        let cmd = LogIn { realm, username, verified_version: row.version, token_id, ttl_s: 3600 };
        let logged_in = self.rows.run(|rows| log_in(&cmd, rows, now))?;
        Ok(mint(&self.rows, &logged_in.claims)?.to_string())
    }

    fn put_user(&mut self, caller: Caller, username: &str, groups: &[&str], disabled: bool) -> Result<bool, Refusal> {
        // Whoever is there keeps the password, and with it the tokens.
        let is_new = login_of(&self.rows, caller.realm, username)?.is_none();
        let cmd = PutUser {
            caller,
            username: username.to_owned(),
            password_hash: is_new.then(|| "hash".into()),
            full_name: None,
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            disabled,
        };
        self.rows.run(|rows| put_user(&cmd, rows, at(10)))
    }
}

#[test]
fn tenants_have_free_names_and_realms_of_their_own() {
    let mut rows = MapRows::new();
    assert_eq!(create(&mut rows, "acme", TenantKind::SiteProvider).unwrap().realm, Realm(2));
    assert_eq!(create(&mut rows, "system", TenantKind::System).unwrap().realm, Realm(1));
    assert_eq!(create(&mut rows, "other", TenantKind::ApplicationOwner).unwrap().realm, Realm(3));
    assert!(matches!(create(&mut rows, "acme", TenantKind::SiteProvider), Err(Refusal::Exists(_))));
    assert!(matches!(create(&mut rows, "more", TenantKind::System), Err(Refusal::Invalid(_))));
    let mut empty = MapRows::new();
    assert!(matches!(create(&mut empty, "system", TenantKind::SiteProvider), Err(Refusal::Invalid(_))));
}

#[test]
fn a_tenant_is_set_up_once() {
    let mut rows = MapRows::new();
    assert!(matches!(setup(&mut rows, "acme", 1), Err(Refusal::NotFound(_))));
    create(&mut rows, "acme", TenantKind::ApplicationOwner).unwrap();
    let claims = setup(&mut rows, "acme", 1).unwrap();
    assert_eq!((claims.kind, claims.expires_us, claims.tenant), (TokenKind::Root, 0, 2));
    assert!(matches!(setup(&mut rows, "acme", 2), Err(Refusal::Conflict(_))));
    assert!(tenant(&rows, &"acme".parse().unwrap()).unwrap().unwrap().set_up);
}

#[test]
fn tokens_name_their_tenant_principal_and_rights() {
    let mut world = world();
    let system = world.verify(&world.roots[0], at(3)).unwrap();
    let acme = world.verify(&world.roots[1], at(3)).unwrap();
    assert!(system.is_system() && system.is_admin() && system.is_root());
    assert!(!acme.is_system() && acme.is_admin());
    let admin = world.log_in(ACME, "admin", 9, at(3)).unwrap();
    let admin = world.verify(&admin, at(3)).unwrap();
    assert!(admin.is_admin() && !admin.is_root() && !admin.is_system());
    assert_eq!((admin.realm, admin.actor()), (ACME, "admin"));

    world.put_user(acme, "bob", &["devs"], false).unwrap();
    let bob = world.log_in(ACME, "bob", 10, at(3)).unwrap();
    let bob = world.verify(&bob, at(3)).unwrap();
    assert!(!bob.is_admin());
    assert_eq!(bob.groups, BTreeSet::from(["devs".to_owned()]));
    assert!(matches!(world.put_user(bob, "eve", &[ADMINS], false), Err(Refusal::Denied)));
}

#[test]
fn a_token_of_another_tenants_key_is_refused() {
    let world = world();
    let claims = Claims::new(ACME, 1, TokenId([5; 16]), "root".into(), TokenKind::Root);
    let own = text_of(&SigningKey::from_seed(&secret(b'a')), &claims);
    assert!(world.verify(&own, at(3)).is_ok());
    let foreign = text_of(&SigningKey::from_seed(&secret(b's')), &claims);
    assert!(matches!(world.verify(&foreign, at(3)), Err(Refusal::Unauthenticated)));
    for tenant in [0, 3, u32::MAX] {
        let claims = Claims { tenant, ..claims.clone() };
        let text = text_of(&SigningKey::from_seed(&secret(b'a')), &claims);
        assert!(matches!(world.verify(&text, at(3)), Err(Refusal::Unauthenticated)), "{tenant}");
    }
    let unknown_key = text_of(&SigningKey::from_seed(&secret(b'a')), &Claims { key_id: 2, ..claims });
    assert!(matches!(world.verify(&unknown_key, at(3)), Err(Refusal::Unauthenticated)));
}

#[test]
fn a_token_ends() {
    let mut world = world();
    let text = world.log_in(ACME, "admin", 9, at(100)).unwrap();
    assert!(world.verify(&text, at(100 + 3599)).is_ok());
    assert!(world.verify(&text, at(100 + 3600)).is_err());
    assert!(world.verify(&world.roots[1], at(i64::from(u32::MAX))).is_ok());
}

#[test]
fn a_revoked_token_stays_revoked_and_others_hold() {
    let mut world = world();
    let (one, two) =
        (world.log_in(ACME, "admin", 9, at(10)).unwrap(), world.log_in(ACME, "admin", 10, at(10)).unwrap());
    let caller = world.verify(&one, at(11)).unwrap();
    world.rows.run(|rows| revoke_own(&caller, rows, at(11))).unwrap();
    assert!(world.verify(&one, at(11)).is_err());
    assert!(matches!(caller.renewed(&world.rows, at(11)), Err(Refusal::Unauthenticated)));
    assert!(world.verify(&two, at(11)).is_ok());
}

#[test]
fn revoking_a_principal_ends_what_was_issued_before_and_nothing_after() {
    let mut world = world();
    let before = world.log_in(ACME, "admin", 9, at(10)).unwrap();
    world.rows.run(|rows| revoke_principal(ACME, "admin", "test", rows, at(10))).unwrap();
    assert!(world.verify(&before, at(10)).is_err());
    // The clock has stepped back meanwhile.
    let after = world.log_in(ACME, "admin", 10, at(5)).unwrap();
    assert!(world.verify(&after, at(10)).is_ok());
    world.rows.run(|rows| revoke_principal(ACME, "admin", "test", rows, at(5))).unwrap();
    assert!(world.verify(&after, at(10)).is_err());
    assert!(world.verify(&world.roots[1], at(10)).is_ok());
    let nobody = world.rows.run(|rows| revoke_principal(ACME, "nobody", "test", rows, at(5)));
    assert!(matches!(nobody, Err(Refusal::NotFound(_))));
}

#[test]
fn a_blocked_tenant_neither_logs_in_nor_uses_tokens_until_unblocked() {
    let mut world = world();
    let text = world.log_in(ACME, "admin", 9, at(10)).unwrap();
    let acme = "acme".parse().unwrap();
    for _ in 0..2 {
        world.rows.run(|rows| set_blocked(&acme, true, "test", rows, at(11))).unwrap();
    }
    assert!(world.verify(&text, at(12)).is_err());
    assert!(world.verify(&world.roots[1], at(12)).is_err());
    assert!(world.verify(&world.roots[0], at(12)).is_ok());
    assert!(matches!(world.log_in(ACME, "admin", 10, at(12)), Err(Refusal::Unauthenticated)));
    world.rows.run(|rows| set_blocked(&acme, false, "test", rows, at(13))).unwrap();
    assert!(world.verify(&text, at(14)).is_ok());
}

#[test]
fn disabling_and_regrouping_bite_without_a_new_token() {
    let mut world = world();
    let root = world.verify(&world.roots[1], at(3)).unwrap();
    assert!(world.put_user(root.clone(), "bob", &["devs"], false).unwrap());
    let text = world.log_in(ACME, "bob", 9, at(10)).unwrap();
    assert!(!world.put_user(root.clone(), "bob", &["ops"], false).unwrap());
    assert!(world.verify(&text, at(11)).unwrap().groups.contains("ops"));
    world.put_user(root, "bob", &["ops"], true).unwrap();
    assert!(world.verify(&text, at(11)).is_err());
    assert!(matches!(world.log_in(ACME, "bob", 10, at(12)), Err(Refusal::Unauthenticated)));
}

#[test]
fn only_an_administrators_login_takes_of_the_reserve() {
    let mut world = world();
    for (number, realm, groups, may) in [
        (0, SYSTEM, &["admins"][..], true),
        (0, SYSTEM, &["ops"], false),
        (0, SYSTEM, &[], false),
        (1, ACME, &["admins"], false),
    ] {
        let root = world.verify(&world.roots[number], at(3)).unwrap();
        world.put_user(root, "bob", groups, false).unwrap();
        let verified_version = login_of(&world.rows, realm, "bob").unwrap().unwrap().version;
        let (username, token_id) = ("bob".to_owned(), TokenId([9; 16]));
        let cmd = LogIn { realm, username, verified_version, token_id, ttl_s: 60 };
        let (batch, _) = log_in(&cmd, &world.rows, at(10)).unwrap();
        assert_eq!(batch.reserve, may, "{realm:?} {groups:?}");
    }
}

#[test]
fn a_password_changed_meanwhile_does_not_log_in_by_the_old_one() {
    let mut world = world();
    let root = world.verify(&world.roots[1], at(3)).unwrap();
    world.put_user(root.clone(), "bob", &[], false).unwrap();
    let verified_version = login_of(&world.rows, ACME, "bob").unwrap().unwrap().version;
    world.put_user(root, "bob", &[], false).unwrap();
    let cmd = LogIn { realm: ACME, username: "bob".into(), verified_version, token_id: TokenId([9; 16]), ttl_s: 60 };
    assert!(matches!(world.rows.run(|rows| log_in(&cmd, rows, at(10))), Err(Refusal::Unauthenticated)));
}

#[test]
fn a_login_of_nobody_is_no_fault() {
    let world = world();
    for (realm, name) in [(ACME, "nobody"), (ACME, ""), (ACME, "a:b"), (Realm(9), "admin"), (Realm::NODE, "admin")] {
        assert!(login_of(&world.rows, realm, name).unwrap().is_none(), "{realm:?} {name}");
    }
    assert!(login_of(&world.rows, SYSTEM, &"a".repeat(300)).unwrap().is_none());
}

#[test]
fn refreshing_replaces_the_token_as_often_as_allowed() {
    let mut world = world();
    let first = world.log_in(ACME, "admin", 9, at(10)).unwrap();
    let caller = world.verify(&first, at(20)).unwrap();
    let fresh = |world: &mut World, caller: &Caller, number, max| {
        let id = TokenId([number; 16]);
        world.rows.run(|rows| refresh(caller, id, 3600, max, rows, at(20)))
    };
    assert!(matches!(fresh(&mut world, &caller, 10, 0), Err(Refusal::Denied)));
    assert!(world.verify(&first, at(20)).is_ok());
    let second = fresh(&mut world, &caller, 10, 1).unwrap();
    assert_eq!(second.refresh_count, 1);
    assert!(world.verify(&first, at(20)).is_err());
    let second = mint(&world.rows, &second.claims).unwrap();
    let caller = world.verify(&second, at(3615)).unwrap();
    assert!(matches!(fresh(&mut world, &caller, 11, 1), Err(Refusal::Denied)));
    let root = world.verify(&world.roots[1], at(20)).unwrap();
    assert!(matches!(fresh(&mut world, &root, 12, 9), Err(Refusal::Denied)));
}

#[test]
fn a_site_judges_tokens_by_copies_of_rows_without_the_signing_key() {
    let mut world = world();
    let text = world.log_in(ACME, "admin", 9, at(10)).unwrap();
    let (mut site, local) = (MapRows::new(), Realm(5));
    let kinds = [Kind::Principal, Kind::TokenVerifier, Kind::Revocation];
    world.rows.copy_to(&kinds, ACME, &mut site, local);
    let locate = |number| (number == ACME.0).then_some(local);
    let judge = |site: &MapRows, text: &str| verify(text, &locate, site, at(11), &world.verified);
    let caller = judge(&site, &text).unwrap();
    assert_eq!((caller.realm, caller.tenant), (local, ACME.0));
    assert!(judge(&site, &world.roots[0]).is_err(), "a site with nothing of the tenant");
    assert!(site.list::<TokenKey>(local, &[]).unwrap().is_empty());

    let caller = verify(&text, &|number| Some(Realm(number)), &world.rows, at(11), &world.verified).unwrap();
    let id = caller.token_id;
    world.rows.run(|rows| revoke_own(&caller, rows, at(11))).unwrap();
    world.rows.copy_to(&kinds, ACME, &mut site, local);
    assert!(verify(&text, &locate, &site as &dyn Rows, at(11), &world.verified).is_err(), "{id}");
}

#[test]
fn tokens_are_listed_by_what_holds_and_revoked_by_their_names() {
    use super::issued::{all_issued, issued, revoke};
    let mut world = world();
    let root = world.verify(&world.roots[1], at(3)).unwrap();
    world.put_user(root.clone(), "bob", &[], false).unwrap();
    let text = world.log_in(ACME, "bob", 10, at(20)).unwrap();
    let bob = world.verify(&text, at(21)).unwrap();
    let names = |world: &World, now| -> Vec<TokenId> {
        all_issued(&world.rows, ACME, now).unwrap().into_iter().map(|one| one.id).collect()
    };
    assert_eq!(names(&world, at(21)), [TokenId([2; 16]), TokenId([10; 16])]);
    assert_eq!(issued(&world.rows, ACME, bob.token_id, at(21)).unwrap().unwrap().token.principal, "bob");
    assert_eq!(names(&world, at(20 + 3600)), [TokenId([2; 16])], "what has expired holds no more");
    assert!(matches!(world.rows.run(|rows| revoke(&bob, TokenId([2; 16]), rows, at(22))), Err(Refusal::Denied)));
    let nobodys = TokenId([77; 16]);
    assert!(matches!(world.rows.run(|rows| revoke(&root, nobodys, rows, at(22))), Err(Refusal::NotFound(_))));
    world.rows.run(|rows| revoke(&root, bob.token_id, rows, at(22))).unwrap();
    assert!(matches!(world.verify(&text, at(23)), Err(Refusal::Unauthenticated)));
    assert_eq!(names(&world, at(23)), [TokenId([2; 16])]);
    // Blocking shows, too.
    world.rows.run(|rows| set_blocked(&"acme".parse().unwrap(), true, "test", rows, at(24))).unwrap();
    assert!(names(&world, at(25)).is_empty());
}

//! Approles, at central and at a site's host that has copies of the rows.

use holdfast_protocol::ids::ItemName;
use holdfast_protocol::secret::{Secret, SecretBytes};

use super::*;
use crate::access_control::approle_logins::{
    ApproleLogin, Issuer, MintSecretId, SECRET_IDS_MAX, log_in_approle, mint_secret_id, renew_approle_token,
    secret_id_text, token_text,
};
use crate::access_control::approles::{
    ApproleSpec, FreshRole, PutApprole, PutDone, delete_approle, put_approle, revoke_approle,
};
use crate::distribute::{Distribute, Placement};
use crate::rows::Expected;

const LOCAL: Realm = Realm(9);

/// What a host of a site gets.
const COPIED: [Kind; 4] = [Kind::Approle, Kind::Principal, Kind::TokenVerifier, Kind::Revocation];

/// Central with an approle `reader` of `acme`, and hosts.
struct Programs {
    world: World,
    drawn: u8,
}

/// What a program has.
#[derive(Clone, Default)]
struct Program {
    role_id: Option<String>,
    secret_id: Option<String>,
}

fn name() -> ItemName {
    "reader".parse().unwrap()
}

fn spec() -> ApproleSpec {
    ApproleSpec { token_policies: BTreeSet::from(["readers".to_owned()]), token_ttl_s: 60, ..ApproleSpec::default() }
}

/// Where a tenant lies at central.
fn central(number: u32) -> Option<Realm> {
    Some(Realm(number))
}

/// And at a host that has content of `acme` only.
fn host(number: u32) -> Option<Realm> {
    (number == ACME.0).then_some(LOCAL)
}

impl Programs {
    fn new(spec: ApproleSpec) -> (Self, Program) {
        let mut programs = Self { world: world(), drawn: 0 };
        let done = programs.put(spec).unwrap();
        assert!(done.created);
        let role_id = String::from_utf8(done.approle.role_id.expose().to_vec()).unwrap();
        (programs, Program { role_id: Some(role_id), secret_id: None })
    }

    fn admin(&self) -> Caller {
        self.world.verify(&self.world.roots[1], at(3)).unwrap()
    }

    fn draw(&mut self) -> u8 {
        self.drawn += 1;
        self.drawn
    }

    fn put(&mut self, spec: ApproleSpec) -> Result<PutDone, Refusal> {
        let drawn = self.draw();
        let fresh = FreshRole { role: [drawn; 16], instance: [drawn; 16] };
        let change = Box::new(move |_: Option<ApproleSpec>| Ok(spec.clone()));
        let (caller, expected) = (self.admin(), Expected::Anything);
        let cmd = PutApprole { caller, name: name(), change, expected, fresh };
        self.world.rows.run(|rows| put_approle(&cmd, rows, at(4)))
    }

    fn mint(&mut self, caller: Caller, ttl_s: Option<u64>, num_uses: Option<u32>) -> Result<String, Refusal> {
        let issuer = Issuer::Central;
        let number = self.draw();
        mint_at(&mut self.world.rows, caller, issuer, (number, ttl_s, num_uses))
    }

    fn log_in(&mut self, as_program: &Program, now: i64) -> Result<String, Refusal> {
        let number = self.draw();
        log_in_at(&mut self.world.rows, as_program, (Issuer::Central, &central), number, now)
    }

    /// A host with the newest rows.
    fn host(&self) -> MapRows {
        let mut rows = MapRows::new();
        self.world.rows.copy_to(&COPIED, ACME, &mut rows, LOCAL);
        rows
    }

    fn sync(&self, host: &mut MapRows) {
        self.world.rows.copy_to(&COPIED, ACME, host, LOCAL);
    }

    fn at_host(&self, rows: &MapRows, token: &str, now: i64) -> Result<Caller, Refusal> {
        verify(token, &host, rows, at(now), &self.world.verified)
    }
}

fn mint_at(
    rows: &mut MapRows,
    caller: Caller,
    issuer: Issuer,
    (number, ttl_s, num_uses): (u8, Option<u64>, Option<u32>),
) -> Result<String, Refusal> {
    let secret = || Secret::fill_with(|into: &mut [u8; 28]| into.fill(number));
    let tenant = caller.tenant;
    let cmd =
        MintSecretId { caller, approle: name(), secret: secret(), accessor: [number; 16], ttl_s, num_uses, issuer };
    rows.run(|rows| mint_secret_id(&cmd, rows, at(5)))?;
    Ok(secret_id_text(tenant, &secret()).to_string())
}

fn log_in_at(
    rows: &mut MapRows,
    as_program: &Program,
    (issuer, locate): (Issuer, &dyn Fn(u32) -> Option<Realm>),
    number: u8,
    now: i64,
) -> Result<String, Refusal> {
    let bytes = |text: &Option<String>| text.clone().map(SecretBytes::from);
    let cmd = ApproleLogin {
        role_id: bytes(&as_program.role_id),
        secret_id: bytes(&as_program.secret_id),
        token_id: TokenId([number; 16]),
        host_key: secret(200),
        issuer,
    };
    let claims = rows.run(|rows| log_in_approle(&cmd, locate, rows, at(now)))?;
    Ok(token_text(rows, &claims)?.to_string())
}

fn is_nobody<T>(outcome: &Result<T, Refusal>) -> bool {
    matches!(outcome, Err(Refusal::Unauthenticated))
}

#[test]
fn a_program_shows_both_ids_and_counts_as_a_member_of_its_policies() {
    let (mut programs, mut program) = Programs::new(spec());
    assert!(is_nobody(&programs.log_in(&program, 6)), "the role-id alone is not enough");
    let admin = programs.admin();
    program.secret_id = Some(programs.mint(admin, None, None).unwrap());
    let token = programs.log_in(&program, 6).unwrap();
    let caller = programs.world.verify(&token, at(7)).unwrap();
    assert_eq!((caller.principal.as_str(), caller.groups.len()), ("approle:reader", 1));
    assert!(caller.groups.contains("readers") && !caller.is_admin() && !caller.is_root());
    assert!(is_nobody(&programs.world.verify(&token, at(66))), "it ends with its time to live");
    for (role_id, secret_id) in [
        (None, program.secret_id.clone()),
        (Some("hfr_other".to_owned()), program.secret_id.clone()),
        (program.secret_id.clone(), program.secret_id.clone()),
        (program.role_id.clone(), Some("hfs_AAAA".to_owned())),
        (program.role_id.clone(), program.role_id.clone()),
        (None, None),
    ] {
        assert!(is_nobody(&programs.log_in(&Program { role_id, secret_id }, 6)));
    }
}

#[test]
fn a_secret_id_ends_with_its_time_and_its_uses() {
    let (mut programs, program) = Programs::new(ApproleSpec { secret_id_ttl_s: 10, secret_id_num_uses: 3, ..spec() });
    let admin = programs.admin();
    let secret_id = Some(programs.mint(admin.clone(), None, Some(2)).unwrap());
    let twice = Program { secret_id, ..program.clone() };
    assert!(programs.log_in(&twice, 6).is_ok() && programs.log_in(&twice, 6).is_ok());
    assert!(is_nobody(&programs.log_in(&twice, 6)));
    let secret_id = Some(programs.mint(admin.clone(), Some(5), None).unwrap());
    let brief = Program { secret_id, ..program };
    assert!(programs.log_in(&brief, 9).is_ok() && is_nobody(&programs.log_in(&brief, 10)));
    for (ttl_s, num_uses) in [(Some(11), None), (Some(0), None), (None, Some(4)), (None, Some(0))] {
        assert!(matches!(programs.mint(admin.clone(), ttl_s, num_uses), Err(Refusal::Invalid(_))));
    }
}

#[test]
fn one_id_is_enough_only_where_the_approle_says_so() {
    let (mut programs, _) = Programs::new(ApproleSpec { weak_secret_id: true, ..spec() });
    let admin = programs.admin();
    let secret_id = Some(programs.mint(admin.clone(), None, None).unwrap());
    for role_id in [None, secret_id.clone()] {
        assert!(programs.log_in(&Program { role_id, secret_id: secret_id.clone() }, 6).is_ok());
    }
    let other = Program { role_id: Some("hfr_other".to_owned()), secret_id };
    assert!(is_nobody(&programs.log_in(&other, 6)));
    let (mut programs, program) = Programs::new(ApproleSpec { bind_secret_id: false, ..spec() });
    assert!(programs.log_in(&program, 6).is_ok());
    assert!(matches!(programs.mint(programs.admin(), None, None), Err(Refusal::Conflict(_))));
    let mut text = program.role_id.unwrap().into_bytes();
    text[12] ^= 1;
    let guess = Program { role_id: Some(String::from_utf8(text).unwrap()), secret_id: None };
    assert!(is_nobody(&programs.log_in(&guess, 6)));
}

#[test]
fn only_administrators_and_those_whom_the_approle_names_have_secret_ids_made() {
    let (mut programs, _) =
        Programs::new(ApproleSpec { secret_id_minters: BTreeSet::from(["schedulers".to_owned()]), ..spec() });
    let admin = programs.admin();
    for (number, (user, groups, may)) in
        [("sam", &["schedulers"][..], true), ("rita", &["readers"], false), ("ann", &["admins"], true)]
            .iter()
            .enumerate()
    {
        programs.world.put_user(admin.clone(), user, groups, false).unwrap();
        let token = programs.world.log_in(ACME, user, 100 + u8::try_from(number).unwrap(), at(10)).unwrap();
        let caller = programs.world.verify(&token, at(11)).unwrap();
        assert_eq!(programs.mint(caller, None, None).is_ok(), *may, "{user}");
    }
    let system = programs.world.verify(&programs.world.roots[0], at(3)).unwrap();
    assert!(matches!(programs.mint(system, None, None), Err(Refusal::NotFound("approle"))), "another tenant's is none");
}

#[test]
fn what_a_host_issues_holds_at_that_host_and_nowhere_else() {
    let (programs, program) = Programs::new(spec());
    let (mut here, mut there) = (programs.host(), programs.host());
    let mut admin = programs.at_host(&here, &programs.world.roots[1], 5).unwrap();
    let secret_id = Some(mint_at(&mut here, admin.clone(), Issuer::Host, (7, None, None)).unwrap());
    let program = Program { secret_id, ..program };
    let at_a_host = (Issuer::Host, &host as &dyn Fn(u32) -> Option<Realm>);
    let token = log_in_at(&mut here, &program, at_a_host, 8, 6).unwrap();
    let caller = programs.at_host(&here, &token, 7).unwrap();
    assert_eq!((caller.realm, caller.principal.as_str()), (LOCAL, "approle:reader"));
    assert!(is_nobody(&log_in_at(&mut there, &program, at_a_host, 8, 6)), "its secret-id is known here only");
    assert!(is_nobody(&programs.at_host(&there, &token, 7)));
    assert!(is_nobody(&programs.world.verify(&token, at(7))), "central knows nothing of it");
    // Nor after the other host has a key of its own.
    admin.realm = LOCAL;
    let secret_id = Some(mint_at(&mut there, admin, Issuer::Host, (9, None, None)).unwrap());
    let other = Program { secret_id, ..program.clone() };
    let bytes = |text: &Option<String>| text.clone().map(SecretBytes::from);
    let cmd = ApproleLogin {
        role_id: bytes(&other.role_id),
        secret_id: bytes(&other.secret_id),
        token_id: TokenId([3; 16]),
        host_key: secret(201),
        issuer: Issuer::Host,
    };
    there.run(|rows| log_in_approle(&cmd, &host, rows, at(6))).unwrap();
    assert!(is_nobody(&programs.at_host(&there, &token, 7)));
    // Its content comes anew in full; what the host has issued stays.
    programs.sync(&mut here);
    assert!(programs.at_host(&here, &token, 7).is_ok());
    assert!(log_in_at(&mut here, &program, at_a_host, 10, 7).is_ok());
}

#[test]
fn a_host_vouches_for_programs_only() {
    let (programs, program) = Programs::new(spec());
    let mut here = programs.host();
    let admin = programs.at_host(&here, &programs.world.roots[1], 5).unwrap();
    let secret_id = Some(mint_at(&mut here, admin, Issuer::Host, (7, None, None)).unwrap());
    log_in_at(&mut here, &Program { secret_id, ..program }, (Issuer::Host, &host), 8, 6).unwrap();
    let key = SigningKey::from_seed(&secret(200));
    for (kind, principal) in [(TokenKind::Root, "root"), (TokenKind::User, "admin")] {
        let claims = Claims::new(ACME, 0, TokenId([1; 16]), principal.to_owned(), kind);
        assert!(is_nobody(&programs.at_host(&here, &text_of(&key, &claims), 7)), "{principal}");
    }
    let program = |principal: &str| {
        let kind = TokenKind::Approle([1; 16]);
        text_of(&key, &Claims::new(ACME, 0, TokenId([1; 16]), principal.to_owned(), kind))
    };
    assert!(programs.at_host(&here, &program("approle:reader"), 7).is_ok(), "so it is the kind that counts");
    for bad in ["reader", "admin", "approle:other", "approle:"] {
        assert!(is_nobody(&programs.at_host(&here, &program(bad), 7)), "{bad}");
    }
}

#[test]
fn what_a_program_may_do_follows_its_approle_at_once() {
    let (mut programs, program) = Programs::new(spec());
    let admin = programs.admin();
    let program = Program { secret_id: Some(programs.mint(admin.clone(), None, None).unwrap()), ..program };
    let token = programs.log_in(&program, 6).unwrap();
    let mut here = programs.host();
    assert!(programs.at_host(&here, &token, 7).is_ok(), "a token of central's holds where the approle is");
    programs.put(ApproleSpec { token_policies: BTreeSet::from(["writers".to_owned()]), ..spec() }).unwrap();
    let groups = programs.world.verify(&token, at(7)).unwrap().groups;
    assert_eq!(groups, BTreeSet::from(["writers".to_owned()]), "the same token");
    assert!(programs.log_in(&program, 7).is_ok(), "and the same secret-id");
    // What proves a program changes: all that was issued ends.
    programs.put(ApproleSpec { weak_secret_id: true, ..spec() }).unwrap();
    programs.sync(&mut here);
    assert!(is_nobody(&programs.world.verify(&token, at(7))) && is_nobody(&programs.at_host(&here, &token, 7)));
    assert!(is_nobody(&programs.log_in(&program, 7)));
    let again = Program { secret_id: Some(programs.mint(admin.clone(), None, None).unwrap()), ..program };
    let token = programs.log_in(&again, 7).unwrap();
    let drawn = [programs.draw(); 16];
    let drawn_us = |programs: &Programs| {
        programs.world.rows.read::<Approle>(ACME, &[name().as_str()]).unwrap().unwrap().value.instance_us
    };
    assert_eq!(drawn_us(&programs), at(4).wall_us);
    programs.world.rows.run(|rows| revoke_approle((&admin, &name(), drawn), rows, at(8))).unwrap();
    assert_eq!(drawn_us(&programs), at(8).wall_us);
    programs.put(ApproleSpec { weak_secret_id: true, token_ttl_s: 30, ..spec() }).unwrap();
    assert_eq!(drawn_us(&programs), at(8).wall_us, "the same instance");
    assert!(is_nobody(&programs.world.verify(&token, at(8))) && is_nobody(&programs.log_in(&again, 8)));
    assert!(programs.world.rows.list::<SecretId>(ACME, &[]).unwrap().is_empty(), "none is left lying about");
    let last = Program { secret_id: Some(programs.mint(admin.clone(), None, None).unwrap()), ..again };
    let token = programs.log_in(&last, 8).unwrap();
    let removal = (&admin, &name(), &Expected::Anything);
    programs.world.rows.run(|rows| delete_approle(removal, rows, at(9))).unwrap();
    assert!(is_nobody(&programs.world.verify(&token, at(9))));
    // One of the same name is another one.
    programs.put(spec()).unwrap();
    assert!(is_nobody(&programs.world.verify(&token, at(9))) && is_nobody(&programs.log_in(&last, 9)));
}

#[test]
fn a_blocked_tenant_has_no_programs() {
    let (mut programs, program) = Programs::new(spec());
    let admin = programs.admin();
    let program = Program { secret_id: Some(programs.mint(admin, None, None).unwrap()), ..program };
    let token = programs.log_in(&program, 6).unwrap();
    let acme = "acme".parse().unwrap();
    programs.world.rows.run(|rows| set_blocked(&acme, true, "test", rows, at(7))).unwrap();
    assert!(is_nobody(&programs.world.verify(&token, at(7))) && is_nobody(&programs.log_in(&program, 7)));
    programs.world.rows.run(|rows| set_blocked(&acme, false, "test", rows, at(7))).unwrap();
    assert!(programs.world.verify(&token, at(7)).is_ok() && programs.log_in(&program, 7).is_ok());
}

#[test]
fn a_program_renews_its_token_and_a_user_does_so_by_other_means() {
    let (mut programs, program) = Programs::new(spec());
    let admin = programs.admin();
    let program = Program { secret_id: Some(programs.mint(admin.clone(), None, Some(1)).unwrap()), ..program };
    let token = programs.log_in(&program, 6).unwrap();
    let caller = programs.world.verify(&token, at(60)).unwrap();
    let renewal = |caller: &Caller, rows: &mut MapRows| {
        rows.run(|rows| renew_approle_token((caller, TokenId([77; 16]), Issuer::Central), &secret(3), rows, at(60)))
    };
    let claims = renewal(&caller, &mut programs.world.rows).unwrap();
    let renewed = token_text(&programs.world.rows, &claims).unwrap();
    assert!(programs.world.verify(&renewed, at(100)).is_ok() && is_nobody(&programs.world.verify(&token, at(100))));
    assert!(matches!(renewal(&admin, &mut programs.world.rows), Err(Refusal::Denied)));
    let users_way = programs.world.rows.run(|rows| refresh(&caller, TokenId([78; 16]), 60, 9, rows, at(60)));
    assert!(matches!(users_way, Err(Refusal::Denied)));
}

#[test]
fn what_can_not_be_an_approle_is_refused() {
    let (mut programs, _) = Programs::new(spec());
    let groups = |count: usize| (0..count).map(|number| format!("g{number}")).collect::<BTreeSet<_>>();
    let distribute = Distribute { to: Placement::All, offline_s: Some(60) };
    for bad in [
        ApproleSpec { fixed_role_id: Some("short".into()), ..spec() },
        ApproleSpec { fixed_role_id: Some("has a blank in it".into()), ..spec() },
        ApproleSpec { bind_secret_id: false, fixed_role_id: Some("long-enough".into()), ..spec() },
        ApproleSpec { bind_secret_id: false, weak_secret_id: true, ..spec() },
        ApproleSpec { token_ttl_s: 0, ..spec() },
        ApproleSpec { token_ttl_s: u64::MAX, ..spec() },
        ApproleSpec { token_policies: groups(65), ..spec() },
        ApproleSpec { token_policies: BTreeSet::from(["admins".into()]), ..spec() },
        ApproleSpec { token_policies: BTreeSet::from([String::new()]), ..spec() },
        ApproleSpec { distribute, ..spec() },
    ] {
        let shown = format!("{bad:?}");
        assert!(matches!(programs.put(bad), Err(Refusal::Invalid(_))), "{shown}");
    }
    let fixed = ApproleSpec { fixed_role_id: Some("ba4bb5b7-f126-48f7-a2be-cae8aaacb4cf".into()), ..spec() };
    let done = programs.put(fixed).unwrap();
    assert_eq!(done.approle.role_id.expose(), b"ba4bb5b7-f126-48f7-a2be-cae8aaacb4cf");
    assert!(programs.put(spec()).unwrap().approle.role_id.expose().starts_with(b"hfr_"), "drawn anew");
}

#[test]
fn dead_secret_ids_make_room_and_live_ones_have_a_bound() {
    let (mut programs, _) = Programs::new(ApproleSpec { secret_id_ttl_s: 1, ..spec() });
    let admin = programs.admin();
    let put = |rows: &mut MapRows, count: usize, expires_us: i64, instance: [u8; 16]| {
        for number in 0..count {
            rows.run(|_| {
                let (approle, by) = ("reader".to_owned(), "x".to_owned());
                let id = SecretId { approle, instance, uses_left: None, expires_us, accessor: [0; 16], by };
                let mut batch = crate::rows::Batch::housekeeping();
                batch.put(ACME, &["2", &format!("{expires_us}-{number}")], &id);
                Ok((batch, ()))
            })
            .unwrap();
        }
    };
    let count = |rows: &MapRows| rows.list::<SecretId>(ACME, &[]).unwrap().len();
    put(&mut programs.world.rows, 70, 1, [1; 16]);
    programs.mint(admin.clone(), None, None).unwrap();
    assert_eq!(count(&programs.world.rows), 70 - 64 + 1, "as many as fit one change go");
    put(&mut programs.world.rows, SECRET_IDS_MAX - 1, i64::MAX, [1; 16]);
    assert!(matches!(programs.mint(admin, None, None), Err(Refusal::Conflict(_))));
}

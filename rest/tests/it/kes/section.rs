//! The section of the configuration.

use std::io::Write as _;

use holdfast_protocol::pki::pem;
use holdfast_rest::kes::{ClientAuth, Listener, Profile, of_tenants};

use super::*;

fn mistakes(text: &str) -> Vec<String> {
    let checker = Checker::parse(text).unwrap();
    let section = Section::read(&checker, "kes", &[]);
    match checker.finish(section) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.0.into_iter().map(|error| error.key).collect(),
    }
}

#[test]
fn without_it_the_operators_serve_themselves() {
    let checker = Checker::parse("").unwrap();
    let operator = "ab".repeat(32);
    let section = Section::read(&checker, "kes", std::slice::from_ref(&operator));
    assert_eq!((section.profile, section.tenant.as_str()), (Profile::Seed, "system"));
    assert!(!section.accept_expired_certificates);
    assert_eq!(section.configured.admins, BTreeSet::from([operator.parse().unwrap()]));
}

#[test]
fn all_of_it_is_read() {
    let (admin, app) = ("0a".repeat(32), "0b".repeat(32));
    let section = section(&format!(
        "[kes]\nprofile = \"current\"\ntenant = \"acme\"\naccept_expired_certificates = true\n\
         admin_identity = {admin:?}\nkeys = [\"preset-key\"]\n[kes.policy.app]\nallow = [\"/v1/key/create/app-*\"]\n\
         deny = [\"/v1/key/create/app-x\"]\nidentities = [{app:?}]\n[kes.api.\"/v1/status\"]\nskip_auth = true\n\
         timeout = \"17s\"\n"
    ));
    assert_eq!((section.profile, section.tenant.as_str()), (Profile::Current, "acme"));
    assert!(section.accept_expired_certificates);
    assert_eq!(section.configured.admins, BTreeSet::from([admin.parse().unwrap()]));
    let policy = &section.configured.policies[&"app".parse().unwrap()];
    assert_eq!((policy.rules.allow.len(), policy.rules.deny.len()), (1, 1));
    assert_eq!(policy.identities, BTreeSet::from([app.parse().unwrap()]));
}

#[test]
fn mistakes_are_named() {
    for (text, key) in [
        ("profile = \"new\"", "kes.profile"),
        ("tenant = \"A B\"", "kes.tenant"),
        ("admin_identity = \"disabled\"", "kes.admin_identity"),
        ("keys = [\"a-\"]", "kes.keys"),
        ("unknown = 1", "kes.unknown"),
        ("[kes.policy.\"a b\"]", "kes.policy.a b"),
        ("[kes.policy.a]\nallow = [\"[\"]", "kes.policy"),
        ("[kes.policy.a]\npaths = []", "kes.policy.a.paths"),
        ("[kes.api.\"/v1/nothing\"]", "kes.api./v1/nothing"),
        ("[kes.api.\"/v1/key/list/\"]\nskip_auth = true", "kes.api./v1/key/list/.skip_auth"),
        ("[kes.api.\"/v1/key/list\"]\ntimeout = \"31s\"", "kes.api./v1/key/list.timeout"),
    ] {
        assert_eq!(mistakes(&format!("[kes]\n{text}\n")), [key], "{text}");
    }
    let twice = "ab".repeat(32);
    let text = format!("[kes.policy.a]\nidentities = [{twice:?}]\n[kes.policy.b]\nidentities = [{twice:?}]\n");
    assert_eq!(mistakes(&text), ["kes.policy"]);
}

/// Where the main listener is.
const REST: &str = "127.0.0.1:7373";

/// Keys, and what is wrong there.
type Mistakes = Vec<(String, String)>;

fn listeners(text: &str) -> Result<(Vec<Listener>, Configured), Mistakes> {
    let checker = Checker::parse(text).unwrap();
    let main = Section::read(&checker, "kes", &[]);
    let all = Listener::read_all(&checker, &[("listen.rest", REST.parse().unwrap())], &[]);
    let of_acme = of_tenants(&checker, &main, &all).remove(&"acme".parse().unwrap()).unwrap_or_default();
    let told = |errors: holdfast_rest::config::ConfigErrors| {
        errors.0.into_iter().map(|error| (error.key, error.problem)).collect()
    };
    checker.finish((all, of_acme)).map_err(told)
}

fn ca_file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn further_listeners_have_sections_of_their_own() {
    let authority = Credentials::new("authority", 9).certificate;
    let file = ca_file(pem::certificates(std::slice::from_ref(&authority)).as_bytes());
    let text = format!(
        "[[kes.listener]]\naddress = \"127.0.0.1:7374\"\nprofile = \"current\"\ntenant = \"acme\"\nkeys = [\"k\"]\n\
         [kes.listener.policy.app]\nallow = [\"/v1/*\"]\n[kes.listener.api.\"/v1/status\"]\nskip_auth = true\n\
         [[kes.listener]]\naddress = \"127.0.0.1:0\"\nclient_auth = \"verify\"\nca_file = {:?}\n\
         [[kes.listener]]\naddress = \"127.0.0.1:0\"\nclient_auth = \"request\"\n",
        file.path()
    );
    let (all, of_acme) = listeners(&text).unwrap();
    assert_eq!((all[0].address.port(), &all[0].client_auth), (7374, &ClientAuth::Any));
    assert_eq!((all[0].section.profile, all[0].section.tenant.as_str()), (Profile::Current, "acme"));
    assert!(all[0].section.skips_any_auth() && !all[1].section.skips_any_auth());
    assert_eq!(all[1].client_auth, ClientAuth::Verify(vec![authority]));
    assert_eq!((all[2].section.profile, &all[2].client_auth), (Profile::Seed, &ClientAuth::Request));
    assert_eq!((of_acme.policies.len(), of_acme.keys.len()), (1, 1));
    assert_eq!(listeners("").unwrap(), (Vec::new(), Configured::default()));
}

#[test]
fn sections_of_one_tenant_say_together_what_is_so() {
    let who = |seed: &str| seed.repeat(32);
    let section = |head: &str, tenant: &str, rest: &str| {
        let policy = format!("[{head}.policy.app]\nallow = [\"/v1/*\"]\nidentities = [{:?}]\n", who(rest));
        format!("tenant = {tenant:?}\nprofile = \"current\"\n{policy}")
    };
    let main = format!("[kes]\n{}", section("kes", "acme", "0a"));
    let listener = |rest: &str| format!("[[kes.listener]]\naddress = \"127.0.0.1:0\"\n{rest}");
    let (_, all) = listeners(&format!("{main}{}", listener(&section("kes.listener", "acme", "0b")))).unwrap();
    assert_eq!(all.policies[&"app".parse().unwrap()].identities.len(), 2);
    let of_another = listener(&format!("tenant = \"beta\"\nadmin_identity = {:?}\n", who("0a")));
    assert!(listeners(&format!("{main}{of_another}")).is_ok(), "who has a policy there may be an administrator here");
    for (rest, why) in [
        (format!("admin_identity = {:?}\n", who("0a")), "is an administrator"),
        ("profile = \"current\"\n[kes.listener.policy.app]\nallow = [\"/v2/*\"]\n".to_owned(), "says something else"),
        ("profile = \"seed\"\n[kes.listener.policy.app]\nallow = [\"/v1/*\"]\n".to_owned(), "says something else"),
    ] {
        let mistakes = listeners(&format!("{main}{}", listener(&format!("tenant = \"acme\"\n{rest}")))).unwrap_err();
        let [(key, told)] = mistakes.as_slice() else { panic!("{mistakes:?}") };
        assert!(key == "kes.listener.0.policy" && told.contains(why), "{key}: {told}");
    }
}

#[test]
fn mistakes_of_listeners_are_named() {
    let (empty, good) = (ca_file(b""), "address = \"127.0.0.1:7374\"");
    let no_file = "ca_file = \"/nowhere/ca.crt\"";
    for (text, key) in [
        ("".to_owned(), "address"),
        ("address = \"here\"".to_owned(), "address"),
        (format!("address = {REST:?}"), "address"),
        (format!("{good}\nclient_auth = \"none\""), "client_auth"),
        (format!("{good}\nclient_auth = \"verify\""), "ca_file"),
        (format!("{good}\nclient_auth = \"verify\"\n{no_file}"), "ca_file"),
        (format!("{good}\nclient_auth = \"verify\"\nca_file = {:?}", empty.path()), "ca_file"),
        (format!("{good}\nclient_auth = \"any\"\n{no_file}"), "ca_file"),
        (format!("{good}\nprofile = \"new\""), "profile"),
        (format!("{good}\ncolour = 1"), "colour"),
        (format!("{good}\n[kes.listener.policy.a]\npaths = []"), "policy.a.paths"),
        (format!("{good}\n[kes.listener.api.\"/v1/nothing\"]"), "api./v1/nothing"),
    ] {
        let mistakes = listeners(&format!("[[kes.listener]]\n{text}\n")).unwrap_err();
        let keys: BTreeSet<&str> = mistakes.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, BTreeSet::from([format!("kes.listener.0.{key}").as_str()]), "{text}: {mistakes:?}");
    }
    let twice = format!("[[kes.listener]]\n{good}\n[[kes.listener]]\n{good}\n");
    let mistakes = listeners(&twice).unwrap_err();
    let told = ("kes.listener.1.address".to_owned(), "is the address of kes.listener.0.address".to_owned());
    assert_eq!(mistakes, [told]);
    assert_eq!(listeners("[kes]\nlistener = 5\n").unwrap_err()[0].0, "kes.listener");
}

//! The section of the configuration.

use holdfast_rest::kes::Profile;

use super::*;

fn mistakes(text: &str) -> Vec<String> {
    let checker = Checker::parse(text).unwrap();
    let section = Section::read(&checker, &[]);
    match checker.finish(section) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.0.into_iter().map(|error| error.key).collect(),
    }
}

#[test]
fn without_it_the_operators_serve_themselves() {
    let checker = Checker::parse("").unwrap();
    let operator = "ab".repeat(32);
    let section = Section::read(&checker, std::slice::from_ref(&operator));
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
        ("[[kes.listener]]\naddress = \"127.0.0.1:1\"", "kes.listener"),
        ("[kes.proxy]\nidentities = []", "kes.proxy"),
    ] {
        assert_eq!(mistakes(&format!("[kes]\n{text}\n")), [key], "{text}");
    }
    let twice = "ab".repeat(32);
    let text = format!("[kes.policy.a]\nidentities = [{twice:?}]\n[kes.policy.b]\nidentities = [{twice:?}]\n");
    assert_eq!(mistakes(&text), ["kes.policy"]);
}

//! What wins over what, and what a profile may not say.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use super::*;

const CANARY: &str = "a-canary-that-nobody-repeats";

/// A folder with a configuration file, as its owner keeps it.
fn configured(text: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "config.toml", text, 0o600);
    folder
}

fn write(folder: &TempDir, name: &str, text: &str, mode: u32) {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

fn resolved(folder: &Path, given: Given, environment: &[(&str, &str)]) -> Result<Settings, Failure> {
    let file = folder.join("config.toml").display().to_string();
    let known: Vec<(&str, &str)> = environment.iter().copied().chain([("HOLDFAST_CONFIG", file.as_str())]).collect();
    let variable = |name: &str| {
        let found = known.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    Settings::resolve(given, &variable)
}

fn refusal(folder: &TempDir, given: Given, environment: &[(&str, &str)]) -> String {
    match resolved(folder.path(), given, environment) {
        Err(failure) => format!("{} {failure:?}", failure.chain()),
        Ok(_) => panic!("it is refused"),
    }
}

fn value<T: Clone>(set: &Option<Set<T>>) -> (T, Origin) {
    let set = set.as_ref().expect("it is set");
    (set.value.clone(), set.from.clone())
}

fn token(settings: &Settings) -> (String, Origin) {
    let (token, from) = value(&settings.token);
    let shown = match token {
        Token::Text(text) => text.to_string(),
        Token::File(path) => format!("given {}", path.display()),
        Token::OwnFile(path) => format!("own {}", path.file_name().unwrap_or_default().display()),
    };
    (shown, from)
}

const PROFILES: &str = r#"
    [profile.default]
    addr = "https://default:1"
    ca-file = "ca.crt"
    tenant = "acme"
    output = "json"
    [profile.prod]
    addr = "https://prod:1"
    client-cert = "admin.crt"
    client-key = "/keys/admin.key"
    token-file = "prod-token"
"#;

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_a_profile() {
    let folder = configured(PROFILES);
    let of = |given, environment: &[(&str, &str)]| value(&resolved(folder.path(), given, environment).unwrap().addr);
    let flag = || Given { addr: Some("https://flag:1".to_owned()), ..Given::default() };
    let variable = [("HOLDFAST_ADDR", "https://variable:1")];
    assert_eq!(of(flag(), &variable), ("https://flag:1".to_owned(), Origin::Flag));
    assert_eq!(of(Given::default(), &variable).1, Origin::Environment("HOLDFAST_ADDR"));
    assert_eq!(of(Given::default(), &[("HOLDFAST_ADDR", "")]), ("https://default:1".to_owned(), Origin::Profile));
    assert_eq!(of(Given::default(), &[("HOLDFAST_PROFILE", "prod")]).0, "https://prod:1");
    let named = || Given { profile: Some("default".to_owned()), ..Given::default() };
    assert_eq!(of(named(), &[("HOLDFAST_PROFILE", "prod")]).0, "https://default:1");

    let output =
        |given, environment: &[(&str, &str)]| value(&resolved(folder.path(), given, environment).unwrap().output);
    let table = || Given { output: Some(Output::Table), ..Given::default() };
    assert_eq!(output(table(), &[("HOLDFAST_OUTPUT", "json")]), (Output::Table, Origin::Flag));
    assert_eq!(output(Given::default(), &[("HOLDFAST_OUTPUT", "table")]).0, Output::Table);
    assert_eq!(output(Given::default(), &[]), (Output::Json, Origin::Profile));
    let tenant = resolved(folder.path(), Given::default(), &[("HOLDFAST_TENANT", "other")]).unwrap().tenant;
    assert_eq!(value(&tenant).0, "other");
}

#[test]
fn pairs_come_from_one_place_and_paths_are_meant_beside_the_file() {
    let folder = configured(PROFILES);
    let of = |given, environment: &[(&str, &str)]| resolved(folder.path(), given, environment).unwrap();
    let (identity, from) = value(&of(Given::default(), &[("HOLDFAST_PROFILE", "prod")]).identity);
    assert_eq!((identity.cert, from), (folder.path().join("admin.crt"), Origin::Profile));
    assert_eq!(identity.key, Path::new("/keys/admin.key"));
    let pair = [("HOLDFAST_PROFILE", "prod"), ("HOLDFAST_CLIENT_CERT", "c"), ("HOLDFAST_CLIENT_KEY", "k")];
    assert_eq!(value(&of(Given::default(), &pair).identity).0.key, Path::new("k"));
    assert!(refusal(&folder, Given::default(), &pair[..2]).contains("go together"));

    // A pin that is typed is not overruled by an authority from elsewhere.
    let pinned = Given { pin: Some([7; 32]), ..Given::default() };
    let trust = of(pinned, &[("HOLDFAST_CA_FILE", "other.crt")]).trust;
    assert!(matches!(value(&trust), (Trust::Pin(_), Origin::Flag)));
    let Trust::CaFile(path) = value(&of(Given::default(), &[]).trust).0 else { panic!("an authority") };
    assert_eq!(path, folder.path().join("ca.crt"));
}

#[test]
fn a_token_is_found_in_order_and_a_profiles_own_goes_nowhere_else() {
    let folder = configured(PROFILES);
    let of = |given, environment: &[(&str, &str)]| resolved(folder.path(), given, environment).unwrap();
    let prod = ("HOLDFAST_PROFILE", "prod");
    assert!(of(Given::default(), &[prod]).token.is_none(), "it is not there before a login");
    write(&folder, "prod-token", CANARY, 0o600);
    write(&folder, "default.token", CANARY, 0o600);
    assert_eq!(token(&of(Given::default(), &[prod])), ("own prod-token".to_owned(), Origin::Profile));
    assert_eq!(token(&of(Given::default(), &[])).0, "own default.token");
    let file = ("HOLDFAST_TOKEN_FILE", "t");
    assert_eq!(token(&of(Given::default(), &[prod, file])).0, "given t");
    let text = ("HOLDFAST_TOKEN", CANARY);
    assert_eq!(token(&of(Given::default(), &[prod, file, text])).0, CANARY);
    let flag = Given { token: Some(Token::File("f".into())), ..Given::default() };
    assert_eq!(token(&of(flag, &[prod, file, text])), ("given f".to_owned(), Origin::Flag));

    let elsewhere = of(Given::default(), &[prod, ("HOLDFAST_ADDR", "https://other:1")]);
    assert!(elsewhere.token.is_none() && elsewhere.withheld);
    let named_again = of(Given::default(), &[prod, ("HOLDFAST_ADDR", "https://prod:1/")]);
    assert!(named_again.token.is_some() && !named_again.withheld);
}

#[test]
fn a_file_with_a_token_is_its_owners_alone() {
    let text = format!("[profile.default]\naddr = \"https://a\"\ntoken = \"{CANARY}\"");
    let folder = configured(&text);
    assert_eq!(token(&resolved(folder.path(), Given::default(), &[]).unwrap()).0, CANARY);
    write(&folder, "config.toml", &text, 0o644);
    let told = refusal(&folder, Given::default(), &[]);
    assert!(told.contains("chmod 600") && !told.contains(CANARY), "{told}");
    write(&folder, "config.toml", PROFILES, 0o644);
    assert!(resolved(folder.path(), Given::default(), &[]).is_ok(), "nothing in it is secret");
}

#[test]
fn what_is_wrong_in_a_file_is_told_without_any_value() {
    for (text, words) in [
        (format!("[profile.default]\ntokn = \"{CANARY}\""), "unknown member tokn"),
        (format!("[profile.default]\ntoken = [\"{CANARY}\"]"), "token of profile.default is no text"),
        (format!("[profile.default]\ntoken = \"{CANARY}\"\ntoken-file = \"t\""), "one of token and token-file"),
        (format!("[profile.default]\ntoken = \"{CANARY}"), "line 2 is no TOML"),
        (format!("[profile.default]\ntoken = {CANARY}"), "line 2 is no TOML"),
        (format!("[profile.default]\noutput = \"{CANARY}\""), "table or json"),
        (format!("[profile.default]\npin = \"{CANARY}\""), "64 hex digits"),
        ("[profile.default]\nclient-key = \"k\"".to_owned(), "go together"),
        ("[profile.other]\nx = 1".to_owned(), "unknown member x of profile.other"),
        ("[profiles.default]".to_owned(), "unknown member profiles"),
        ("profile = 1".to_owned(), "no table"),
        ("[profile]\ndefault = 1".to_owned(), "no table"),
    ] {
        let told = refusal(&configured(&text), Given::default(), &[]);
        assert!(told.contains(words) && !told.contains(CANARY), "{text}: {told}");
    }
    let folder = configured(PROFILES);
    let told = refusal(&folder, Given { profile: Some("test".to_owned()), ..Given::default() }, &[]);
    assert!(told.contains("it has: default, prod"), "{told}");
    assert!(refusal(&folder, Given::default(), &[("HOLDFAST_OUTPUT", "yaml")]).contains("table or json"));
}

#[test]
fn without_a_file_there_is_no_profile_and_a_file_that_was_named_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().display().to_string();
    let variable = |name: &str| (name == "HOME").then(|| home.clone());
    assert!(Settings::resolve(Given::default(), &variable).unwrap().addr.is_none());
    assert!(refusal(&folder, Given::default(), &[]).contains("config.toml"));
    let named = Given { profile: Some("prod".to_owned()), ..Given::default() };
    assert!(Settings::resolve(named, &variable).is_err());
    fs::create_dir_all(folder.path().join(".config/holdfast")).unwrap();
    fs::write(folder.path().join(".config/holdfast/config.toml"), PROFILES).unwrap();
    let found = Settings::resolve(Given::default(), &variable).unwrap();
    assert_eq!(value(&found.addr).0, "https://default:1");
    let place = found.profile.as_ref().unwrap().value.token_place().unwrap();
    assert_eq!(place, folder.path().join(".config/holdfast/default.token"));
}

#[test]
fn a_dev_folder_is_all_there_is_but_for_a_token_that_was_given() {
    let folder = configured(PROFILES);
    let dev = serde_json::json!({"state": "ready", "pid": 1, "sites": [{"name": "udc1", "hosts": [
            {"name": "udc1-001", "api": "https://host:1", "ca_file": folder.path().join("api-ca.crt"), "data_dir": "d"}]}],
        "central": {"api": "https://dev:1", "quic": "q", "data_dir": "d", "ca_file": folder.path().join("ca.crt"),
            "admin_cert": "admin.crt", "admin_key": "admin.key", "root_token": "root"}});
    write(&folder, "dev.json", &dev.to_string(), 0o600);
    let at = |host: Option<&str>| Given {
        dir: Some(folder.path().to_owned()),
        at: host.map(str::to_owned),
        ..Given::default()
    };
    let environment = [("HOLDFAST_ADDR", "https://prod:1"), ("HOLDFAST_CA_FILE", "x"), ("HOLDFAST_TENANT", "acme")];
    assert!(refusal(&folder, at(None), &environment).contains("not initialised"));
    write(&folder, "ca.crt", "", 0o600);
    write(&folder, "api-ca.crt", "", 0o600);
    let central = resolved(folder.path(), at(None), &environment).unwrap();
    assert_eq!(value(&central.addr), ("https://dev:1".to_owned(), Origin::Dev));
    assert_eq!(token(&central), ("root".to_owned(), Origin::Dev));
    assert_eq!(value(&central.tenant).0, "acme");
    let host = resolved(folder.path(), at(Some("udc1-001")), &[("HOLDFAST_TOKEN", "mine")]).unwrap();
    assert_eq!((value(&host.addr).0, token(&host).0), ("https://host:1".to_owned(), "mine".to_owned()));
    assert!(refusal(&folder, at(Some("udc9-001")), &[]).contains("no host udc9-001"));
}

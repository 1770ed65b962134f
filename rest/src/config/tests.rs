//! Configuration files: every mistake is told at once.

use super::*;

#[derive(Debug, PartialEq)]
struct Example {
    listen: SocketAddr,
    age: Duration,
    body: u64,
    data: PathBuf,
    deployment: Option<String>,
    admins: Vec<String>,
}

fn read(text: &str) -> Result<Example, ConfigErrors> {
    let checker = Checker::parse(text)?;
    let example = Example {
        listen: checker.addr("rest.listen", "127.0.0.1:7373".parse().unwrap()),
        age: checker.duration("rest.connection_age_max", Duration::from_secs(3600)),
        body: checker.bytes("rest.body_max", 1 << 20),
        data: checker.required("data_dir", PathBuf::new()),
        deployment: checker.name("deployment"),
        admins: checker.or("operator.admin_identities", Vec::new()),
    };
    checker.check("rest.body_max", example.body > 0, "must not be 0");
    checker.finish(example)
}

fn mistakes(text: &str) -> Vec<String> {
    read(text).unwrap_err().to_string().lines().map(str::to_owned).collect()
}

#[test]
fn absent_keys_have_defaults_and_present_ones_are_read() {
    let example = read("data_dir = \"/d\"").unwrap();
    assert_eq!((example.listen.port(), example.age.as_secs(), example.body), (7373, 3600, 1 << 20));
    let text = "data_dir = \"/d\"\ndeployment = \"acme-1\"\n[rest]\nlisten = \"[::1]:0\"\nconnection_age_max = \"1h30m\"\n\
                body_max = \"64 KiB\"\n[operator]\nadmin_identities = [\"a\", \"b\"]";
    let example = read(text).unwrap();
    assert_eq!((example.age.as_secs(), example.body, example.admins.len()), (5400, 64 << 10, 2));
    assert_eq!(example.deployment.as_deref(), Some("acme-1"));
}

#[test]
fn all_mistakes_come_at_once_with_their_keys() {
    let text = "deployment = \"Acme\"\ncolour = 1\noperator = 5\n[rest]\nlisten = \"here\"\nconnection_age_max = 7\n\
                body_max = 0\nlissen = \"x\"\n[rests]\na = 1";
    let expected = [
        "colour: unknown key",
        "data_dir: is missing, expected a path",
        "deployment: expected a name of 1 to 63 letters a-z, digits and inner dashes",
        "operator: expected a table",
        "rest.body_max: must not be 0",
        "rest.connection_age_max: expected a duration like \"500ms\", \"2s\" or \"1h30m\"",
        "rest.lissen: unknown key",
        "rest.listen: expected an address with port like \"127.0.0.1:7373\"",
        "rests: unknown key",
    ];
    assert_eq!(mistakes(text), expected);
}

#[test]
fn broken_toml_and_bad_items_are_located() {
    assert!(mistakes("data_dir = ").iter().any(|line| line.contains("line 1")));
    let text = "data_dir = \"/d\"\n[operator]\nadmin_identities = [\"a\", 2]";
    assert_eq!(mistakes(text), ["operator.admin_identities: item 1: expected a text"]);
}

#[test]
fn a_part_and_named_tables_are_taken_by_their_owner() {
    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Policy {
        allow: Vec<String>,
    }
    let text = "[kes.policy.minio]\nallow = [\"/v1/key/create/*\"]\n[kes.policy.bad]\nalow = []\n";
    let checker = Checker::parse(text).unwrap();
    let names = checker.keys("kes.policy");
    assert_eq!(names, ["bad", "minio"]);
    let policies: Vec<Policy> = names.iter().filter_map(|name| checker.part(&format!("kes.policy.{name}"))).collect();
    assert_eq!(policies[0].allow, ["/v1/key/create/*"]);
    let errors = checker.finish(()).unwrap_err();
    assert_eq!(errors.0.len(), 1);
    assert_eq!(errors.0[0].key, "kes.policy.bad");
    assert!(errors.0[0].problem.contains("alow"), "{errors}");
}

#[test]
fn tables_of_a_list_are_read_by_their_numbers() {
    let of = |text: &str| {
        let checker = Checker::parse(text).unwrap();
        let read = |at: usize| checker.or(&format!("door.{at}.name"), String::new());
        let names: Vec<String> = (0..checker.tables("door")).map(read).collect();
        checker.finish(names).map_err(|errors| errors.to_string())
    };
    assert_eq!(of("[[door]]\nname = \"a\"\n[[door]]\nname = \"b\"\n").unwrap(), ["a", "b"]);
    assert_eq!((of("").unwrap(), of("door = []").unwrap()), (vec![], vec![]));
    assert_eq!(of("[[door]]\nname = \"a\"\n[[door]]\nnam = \"b\"\n").unwrap_err(), "door.1.nam: unknown key");
    assert_eq!(of("[[door]]\n[[door]]\nname = 5\n").unwrap_err(), "door.1.name: expected a text");
    assert_eq!(of("[door]\nname = \"a\"\n").unwrap_err(), "door: expected a list of tables");
    assert_eq!(of("door = [1]").unwrap_err(), "door: expected a list of tables");
}

#[test]
fn a_list_is_no_table() {
    assert_eq!(mistakes("data_dir = \"/d\"\nrest = [1]"), ["rest: expected a table"]);
    assert_eq!(mistakes("data_dir = \"/d\"\n[[rest]]\nlisten = \"a\""), ["rest.0.listen: unknown key"]);
}

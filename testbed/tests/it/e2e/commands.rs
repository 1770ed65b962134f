//! The operator's command line against a real deployment: each command once for people and once as JSON, each way to
//! fail once, and no secret where none belongs.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Mutex;

use serde_json::{Map, Value};
use tempfile::TempDir;

use super::World;

mod keys;
mod people;
mod seal;
mod sites;
mod vaults;

/// Somebody at a terminal, with a configuration of his own.
struct Shell {
    world: World,
    folder: TempDir,
    /// All that was printed by commands that hand out no secret, and all that was told on standard error.
    printed: Mutex<Vec<String>>,
    /// The commands that were run, by their first words.
    run: Mutex<BTreeSet<String>>,
}

/// What a command did.
#[derive(Debug)]
struct Done {
    code: i32,
    out: String,
    told: String,
}

impl Done {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Shell {
    async fn open(world: World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let doc = world.deployment.doc().unwrap();
        let host = &doc.sites[0].hosts[0];
        let profile = |name: &str, addr: &str, ca: &PathBuf| {
            format!("[profile.{name}]\naddr = {addr:?}\nca-file = {:?}\n", ca.display().to_string())
        };
        let central = profile("default", &doc.central.api, &doc.central.ca_file);
        let text = format!("{central}{}", profile("host", &host.api, &host.ca_file));
        fs::write(folder.path().join("config.toml"), text).unwrap();
        Self { world, folder, printed: Mutex::default(), run: Mutex::default() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.file(name)).unwrap().permissions().mode() & 0o777
    }

    /// Runs a line; what it prints may be a secret.
    async fn secret(&self, line: &str, input: &str) -> Done {
        let config = self.file("config.toml").display().to_string();
        let here = format!("{}/", self.folder.path().display());
        let dev = self.world.deployment.dir().display().to_string();
        let words: Vec<String> = line.split(' ').map(|word| word.replace("@/", &here).replace("@dev", &dev)).collect();
        let args: Vec<&str> = words.iter().map(String::as_str).collect();
        let environment = [("HOLDFAST_CONFIG", config.as_str())];
        let output = self.world.deployment.holdfast_told(&args, &environment, input.as_bytes()).await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let done = Done { code: output.status.code().unwrap(), out: text(output.stdout), told: text(output.stderr) };
        self.printed.lock().unwrap().push(done.told.clone());
        self.run.lock().unwrap().insert(line.to_owned());
        done
    }

    /// Runs a line; nothing that it prints is a secret.
    async fn run(&self, line: &str, input: &str) -> Done {
        let done = self.secret(line, input).await;
        self.printed.lock().unwrap().push(done.out.clone());
        done
    }

    /// Runs a line that is to do what it says.
    async fn does(&self, line: &str, input: &str) -> String {
        let done = self.run(line, input).await;
        assert_eq!((done.code, done.told.as_str()), (0, ""), "{line}: {done:?}");
        done.out
    }

    /// Runs a line that hands out a secret.
    async fn gives(&self, line: &str, input: &str) -> String {
        let done = self.secret(line, input).await;
        assert_eq!(done.code, 0, "{line}: {done:?}");
        done.out.trim_end().to_owned()
    }

    /// Runs a line that is to fail with this code and these words.
    async fn fails(&self, line: &str, input: &str, code: i32, words: &[&str]) -> String {
        let done = self.run(line, input).await;
        assert_eq!(done.code, code, "{line}: {done:?}");
        assert_eq!(done.out, "", "{line}");
        for word in words {
            assert!(done.told.contains(word), "{line} says {word}: {}", done.told);
        }
        done.told
    }

    /// Runs a line for people and as JSON: the one begins so, the other is what the API answers at `path`.
    async fn shows(&self, line: &str, begins: &str, path: &str) -> String {
        let text = self.does(line, "").await;
        assert!(text.starts_with(begins), "{line}: {text}");
        let api = async || self.world.operator.get(path).await.unwrap().good().unwrap();
        let before = api().await;
        let json = self.run(&format!("{line} --json"), "").await.json();
        let after = api().await;
        assert!(is_between(&json, &before, &after), "{line}: {json}, while the API tells {before} and {after}");
        text
    }

    /// A first row of names in capitals.
    async fn lists(&self, line: &str, head: &str, path: &str) -> String {
        let text = self.shows(line, "", path).await;
        let first: Vec<&str> = text.lines().next().unwrap_or_default().split_whitespace().collect();
        assert_eq!(first.join(" "), head, "{line}");
        text
    }
}

/// Whether it is what was told before and after, except where these differ: hosts come and go and are asked for quotes.
fn is_between(told: &Value, before: &Value, after: &Value) -> bool {
    match (told, before, after) {
        (Value::Object(told), Value::Object(before), Value::Object(after)) => {
            let names: BTreeSet<&String> = told.keys().chain(before.keys()).collect();
            let of = |members: &Map<String, Value>, name| members.get(name).cloned().unwrap_or_default();
            names.into_iter().all(|name| is_between(&of(told, name), &of(before, name), &of(after, name)))
        }
        (Value::Array(told), Value::Array(before), Value::Array(after))
            if before.len() == after.len() && told.len() == before.len() =>
        {
            told.iter().zip(before).zip(after).all(|((told, before), after)| is_between(told, before, after))
        }
        _ => before != after || told == before,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_does_what_it_says_prints_both_ways_and_tells_no_secret() {
    let mut world = World::behind_a_wan(&[1]).await;
    let password = world.deployment.doc().unwrap().central.password;
    for (name, text) in [
        ("value", vaults::VALUE),
        ("typed", vaults::TYPED),
        ("password of ann", people::PASSWORD),
        ("plaintext", keys::PLAINTEXT),
        ("key of a file", keys::KEY),
    ] {
        world.canaries.add(name, text.as_bytes());
    }
    let mut shell = Shell::open(world).await;

    people::nobody_yet(&shell).await;
    people::a_login(&mut shell, &password).await;
    people::users_and_tokens(&shell).await;
    people::tenants(&shell).await;
    vaults::secrets(&shell).await;
    vaults::programs(&mut shell).await;
    keys::keys(&shell).await;
    keys::moved(&shell).await;
    keys::clients(&mut shell).await;
    sites::a_site_of_paper(&shell).await;
    sites::a_real_site(&mut shell).await;
    seal::the_seal(&mut shell).await;
    people::logged_out(&shell).await;

    for text in shell.printed.lock().unwrap().iter() {
        assert_eq!(shell.world.canaries.find(text.as_bytes()), Vec::<&str>::new(), "{text}");
    }
    everything_was_run(&shell.run.lock().unwrap());
    shell.world.nothing_lies_about();
}

/// Each command of the page about them was run. `dev`, `audit`, `central` and `operator debug-open` have tests of their own, and a
/// central is initialised once.
fn everything_was_run(run: &BTreeSet<String>) {
    let page = fs::read_to_string(super::super::tidy::root().join("docs/cli.md")).unwrap();
    let titles =
        page.lines().filter_map(|line| line.strip_prefix("#### holdfast ").or(line.strip_prefix("### holdfast ")));
    let commands: BTreeSet<String> = titles
        .map(|title| {
            title.split(' ').take_while(|word| word.starts_with(char::is_lowercase)).collect::<Vec<_>>().join(" ")
        })
        .collect();
    let is_group = |name: &str| commands.iter().any(|other| other.starts_with(&format!("{name} ")));
    let elsewhere = ["dev", "audit", "central"];
    let missing: Vec<&String> = commands
        .iter()
        .filter(|name| {
            !is_group(name)
                && *name != "operator debug-open"
                && !elsewhere.contains(&name.split(' ').next().unwrap_or_default())
        })
        .filter(|name| !run.iter().any(|line| line == *name || line.starts_with(&format!("{name} "))))
        .collect();
    assert!(commands.len() > 50, "{}", commands.len());
    assert_eq!(missing, Vec::<&String>::new());
}

//! The node programs' configuration files, written anew at every start.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use toml::{Table, Value};

use super::plan::{HostPlan, Plan};
use crate::failure::Failure;
use crate::files::{private_folder, replace};

/// Central's settings that dev itself decides: a file that is added may not.
const OWN: [&[&str]; 3] = [&["data_dir"], &["listen", "rest"], &["listen", "quic"]];

/// What an added file means for dev itself.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Added {
    /// The tenants it names.
    pub(super) tenants: BTreeSet<String>,
    /// Where the agents dial, if not central's own address: there may be a proxy in between.
    pub(super) advertise: Option<String>,
    /// How all nodes write their logs.
    pub(super) log: Option<Value>,
}

/// Writes `DIR/central/central.toml`.
pub(super) fn write_central(dir: &Path, plan: &Plan, admin: &str, added: Option<&Path>) -> Result<Added, Failure> {
    let mut table = central(dir, plan, admin);
    let mut found = Added::default();
    if let Some(path) = added {
        let added = read(path)?;
        if let Some(own) = OWN.iter().find(|own| at(&added, own).is_some()) {
            let reason = "holdfast dev sets it by its own flags";
            return Err(Failure::unfit(format!("{}: {} can't be given here, {reason}", path.display(), own.join("."))));
        }
        collect_tenants(&added, &mut found.tenants);
        found.advertise = at(&added, &["names", "advertise"]).and_then(Value::as_str).map(str::to_owned);
        found.log = added.get("log").cloned();
        merge(&mut table, added);
    }
    let folder = dir.join("central");
    private_folder(&folder)?;
    replace(&folder.join("central.toml"), table.to_string().as_bytes(), 0o600)?;
    Ok(found)
}

/// Writes the `agent.toml` of one host into its folder. `central` is where it dials.
pub(super) fn write_agent(
    host_dir: &Path,
    central: &str,
    host: &HostPlan,
    tcti: &str,
    log: Option<&Value>,
) -> Result<(), Failure> {
    let mut table = Table::new();
    set(&mut table, &["data_dir"], text(host_dir.join("data").display()));
    set(&mut table, &["listen", "rest"], text(format_args!("127.0.0.1:{}", host.rest)));
    set(&mut table, &["central", "quic"], text(central));
    set(&mut table, &["tpm", "tcti"], text(tcti));
    set(&mut table, &["log", "format"], text("text"));
    if let Some(log) = log {
        merge(&mut table, Table::from_iter([("log".to_owned(), log.clone())]));
    }
    replace(&host_dir.join("agent.toml"), table.to_string().as_bytes(), 0o600)
}

fn central(dir: &Path, plan: &Plan, admin: &str) -> Table {
    let mut table = Table::new();
    set(&mut table, &["data_dir"], text(dir.join("central/data").display()));
    set(&mut table, &["listen", "rest"], text(format_args!("127.0.0.1:{}", plan.rest)));
    set(&mut table, &["listen", "quic"], text(format_args!("127.0.0.1:{}", plan.quic)));
    set(&mut table, &["operator", "admin_identities"], Value::Array(vec![text(admin)]));
    set(&mut table, &["attestation", "interval"], text("2s"));
    set(&mut table, &["log", "format"], text("text"));
    table
}

fn text(value: impl ToString) -> Value {
    Value::String(value.to_string())
}

fn set(table: &mut Table, path: &[&str], value: Value) {
    match path {
        [] => {}
        [last] => {
            table.insert((*last).to_owned(), value);
        }
        [first, rest @ ..] => {
            let below = table.entry(*first).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(below) = below {
                set(below, rest, value);
            }
        }
    }
}

fn at<'t>(table: &'t Table, path: &[&str]) -> Option<&'t Value> {
    let (first, rest) = path.split_first()?;
    let value = table.get(*first)?;
    if rest.is_empty() { Some(value) } else { at(value.as_table()?, rest) }
}

fn read(path: &Path) -> Result<Table, Failure> {
    let text = fs::read_to_string(path).map_err(Failure::file(path))?;
    text.parse().map_err(|error| Failure::unfit(format!("{}: {error}", path.display())))
}

/// Tables are merged, lists joined, single values replaced.
fn merge(into: &mut Table, added: Table) {
    for (key, value) in added {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(added)) => merge(below, added),
            (Some(Value::Array(list)), Value::Array(added)) => list.extend(added),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// Every `tenant = "x"` at any depth, and the names of the tables in `[tenants]` or the entries of `tenants = [..]`.
fn collect_tenants(table: &Table, into: &mut BTreeSet<String>) {
    for (key, value) in table {
        match (key.as_str(), value) {
            ("tenant", Value::String(name)) => {
                into.insert(name.clone());
            }
            ("tenants", Value::Table(tenants)) => into.extend(tenants.keys().cloned()),
            ("tenants", Value::Array(list)) => {
                into.extend(
                    list.iter()
                        .filter_map(|entry| entry.as_str().or_else(|| entry.get("name")?.as_str()))
                        .map(str::to_owned),
                );
            }
            _ => {}
        }
        for below in std::iter::once(value).chain(value.as_array().into_iter().flatten()) {
            if let Value::Table(below) = below {
                collect_tenants(below, into);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::Args;

    fn plan() -> Plan {
        let args = Args {
            dir: "d".into(),
            sites: Some(1),
            hosts: vec![],
            port_base: Some(20000),
            config: None,
            unseal: false,
        };
        Plan::new(&args, None).unwrap()
    }

    fn write(added: Option<&str>) -> Result<(Table, Added), Failure> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("added.toml");
        if let Some(added) = added {
            fs::write(&path, added).unwrap();
        }
        let found = write_central(folder.path(), &plan(), "ab", added.map(|_| path.as_path()))?;
        Ok((read(&folder.path().join("central/central.toml")).unwrap(), found))
    }

    #[test]
    fn centrals_file_has_its_addresses_and_the_administrator() {
        let (table, found) = write(None).unwrap();
        assert_eq!(found, Added::default());
        assert_eq!(at(&table, &["listen", "rest"]), Some(&text("127.0.0.1:20000")));
        assert_eq!(at(&table, &["listen", "quic"]), Some(&text("127.0.0.1:20001")));
        assert_eq!(at(&table, &["operator", "admin_identities"]), Some(&Value::Array(vec![text("ab")])));
        assert_eq!(at(&table, &["attestation", "interval"]), Some(&text("2s")));
    }

    #[test]
    fn an_added_file_is_merged_and_its_tenants_are_found() {
        let added = "[attestation]\ninterval = \"1s\"\n[operator]\nadmin_identities = [\"cd\"]\n[kes]\ntenant = \
                     \"acme\"\n[[kes.listener]]\ntenant = \"beta\"\n[tenants.gamma]\nx = 1\n[names]\nadvertise = \"c:1\"\n";
        let (table, found) = write(Some(added)).unwrap();
        assert_eq!(found.advertise.as_deref(), Some("c:1"));
        assert_eq!(found.tenants.into_iter().collect::<Vec<_>>(), ["acme", "beta", "gamma"]);
        assert_eq!(at(&table, &["attestation", "interval"]), Some(&text("1s")));
        assert_eq!(at(&table, &["operator", "admin_identities"]), Some(&Value::Array(vec![text("ab"), text("cd")])));
        assert_eq!(at(&table, &["listen", "rest"]), Some(&text("127.0.0.1:20000")));
    }

    #[test]
    fn what_dev_decides_can_not_be_added() {
        assert!(write(Some("data_dir = \"/x\"")).is_err());
        assert!(write(Some("[listen]\nrest = \"0.0.0.0:1\"")).is_err());
        assert!(write(Some("[listen]\nkeylime_verifier = \"127.0.0.1:1\"")).is_ok());
        assert!(write(Some("not toml")).is_err());
    }

    #[test]
    fn an_agents_file_names_its_tpm_and_central() {
        let folder = tempfile::tempdir().unwrap();
        let (plan, log) = (plan(), Value::Table(Table::from_iter([("level".to_owned(), text("debug"))])));
        write_agent(
            folder.path(),
            "127.0.0.1:20001",
            &plan.sites[0].hosts[0],
            "swtpm:host=127.0.0.1,port=9",
            Some(&log),
        )
        .unwrap();
        let table = read(&folder.path().join("agent.toml")).unwrap();
        assert_eq!(at(&table, &["listen", "rest"]), Some(&text("127.0.0.1:20010")));
        assert_eq!(at(&table, &["central", "quic"]), Some(&text("127.0.0.1:20001")));
        assert_eq!(at(&table, &["log", "level"]), Some(&text("debug")));
        assert_eq!(at(&table, &["log", "format"]), Some(&text("text")));
        assert_eq!(at(&table, &["tpm", "tcti"]), Some(&text("swtpm:host=127.0.0.1,port=9")));
    }
}

//! What the folder of a `holdfast dev` says: central, or one of its hosts.

use std::path::{Path, PathBuf};

use super::{Origin, Set, Settings, Token};
use crate::client::{Identity, Trust};
use crate::dev::file::{Central, DevFile, Doc};
use crate::failure::Failure;

/// Address, authority, certificate and root token out of `dev.json`.
pub(super) fn settings(dir: &Path, host: Option<&str>) -> Result<Settings, Failure> {
    let doc = DevFile::at(dir).existing()?;
    let (addr, ca_file) = match host {
        None => (doc.central.api.clone(), doc.central.ca_file.clone()),
        Some(name) => host_of(&doc, name)?,
    };
    if !ca_file.exists() {
        let (node, missing) = (host.unwrap_or("central"), ca_file.display());
        return Err(Failure::unfit(format!(
            "{node} in {} is not initialised yet: {missing} is missing",
            dir.display()
        )));
    }
    let Central { admin_cert: cert, admin_key: key, root_token, .. } = doc.central;
    let from = || Origin::Dev;
    Ok(Settings {
        addr: Some(Set { value: addr, from: from() }),
        trust: Some(Set { value: Trust::CaFile(ca_file), from: from() }),
        identity: Some(Set { value: Identity { cert, key }, from: from() }),
        token: root_token.map(|token| Set { value: Token::Text(token.into()), from: from() }),
        ..Settings::default()
    })
}

fn host_of(doc: &Doc, name: &str) -> Result<(String, PathBuf), Failure> {
    let mut hosts = doc.sites.iter().flat_map(|site| &site.hosts);
    let found = hosts.find(|host| host.name == name).map(|host| (host.api.clone(), host.ca_file.clone()));
    found.ok_or_else(|| Failure::usage(format!("dev.json knows no host {name}")))
}

//! What to try once a dev deployment is ready: commands to copy, without secrets on the screen.

use std::path::Path;

use super::file::{Doc, Site};

/// The closing text of a start.
pub(super) fn text(dir: &Path, doc: &Doc) -> String {
    let dir = dir.display();
    let api = &doc.central.api;
    let hosts: String = doc.sites.iter().flat_map(|site| &site.hosts).fold(String::new(), |text, host| {
        let read = format!("curl -sS -w '\\n' --cacert {} -H \"X-Cerberus-Token: $TOKEN\"", host.ca_file.display());
        format!("{text}  {read} {}/v1/secret/app/demo/db\n", host.api)
    });
    let at_hosts = if hosts.is_empty() { String::new() } else { format!("\nRead it at every host:\n{hosts}") };
    let holdfast = std::env::current_exe().map_or_else(|_| "holdfast".to_owned(), |path| path.display().to_string());
    let cut_off = |site: &Site| {
        ["quarantine", "unquarantine"]
            .map(|what| format!("  {holdfast} site {what} --dir {dir} {}\n", site.name))
            .concat()
    };
    let quarantine = doc.sites.first().map(cut_off).unwrap_or_default();
    format!(
        r#"
ready        all hosts are attested and in sync; try in another terminal:

  PASSWORD=$(sed -n 's/.*"password": "\([^"]*\)".*/\1/p' {dir}/dev.json)
  TOKEN=$(curl -sS --cacert {dir}/ca.crt -u "admin:$PASSWORD" {api}/v2/auth/user | grep -o '"client_token": *"[^"]*"' | cut -d'"' -f4)
  CATEGORY=$(curl -sS --cacert {dir}/ca.crt -H "X-Cerberus-Token: $TOKEN" {api}/v1/category | grep -o '"id": *"[^"]*"' | head -n 1 | cut -d'"' -f4)

Make a safe deposit box that goes to all sites, and put a secret into it at central (201 and 204 mean done):
  curl -sS -w '\n%{{http_code}}\n' --cacert {dir}/ca.crt -H "X-Cerberus-Token: $TOKEN" -H 'Content-Type: application/json' {api}/v2/safe-deposit-box -d '{{"name": "demo", "category_id": "'$CATEGORY'", "owner": "admins", "distribute": {{"to": "all"}}}}'
  curl -sS -w '%{{http_code}}\n' --cacert {dir}/ca.crt -H "X-Cerberus-Token: $TOKEN" -H 'Content-Type: application/json' {api}/v1/secret/app/demo/db -d '{{"password": "correct horse"}}'
{at_hosts}
Look around; cut a site off and take it back:
  {holdfast} status --dir {dir}
{quarantine}
Ctrl-C stops everything.
"#
    )
}

//! Sites: one that no host ever joins, and the real one.

use std::{fs, io};

use super::Shell;
use crate::e2e::{SOON, until};

const CONFIG: &str = "/v1/config/system/sites";
const STATE: &str = "/v1/state/system/sites";

pub(super) async fn a_site_of_paper(shell: &Shell) {
    let hash = "ab".repeat(32);
    let made = format!("site create lab --host lab-001={hash} --ek-trust pinned --quote-interval 30s --pcrs 0,4,7");
    assert!(shell.does(&made, "").await.contains("next: holdfast site bundle lab"));
    shell.fails(&made, "", 1, &["409", "site exists already"]).await;
    shell.fails("site create lab2 --host a=beef", "", 2, &["64 hex digits"]).await;
    let sites = shell.lists("site list", "SITE HOSTS", CONFIG).await;
    assert!(sites.contains("lab   lab-001"), "{sites}");
    shell.does(&format!("site add-hosts lab --host lab-002={hash}"), "").await;
    shell.does(&format!("site update lab --reference-value 4={hash} --accept-earlier-values false"), "").await;
    shell.fails("site update lab", "", 2, &["nothing to change"]).await;
    let shown = shell.shows("site show lab --config", "", &format!("{CONFIG}/lab")).await;
    assert!(shown.contains("quote-interval: 30s") && shown.contains(&hash), "{shown}");
    let shown = shell.shows("site show lab", "site            lab", &format!("{STATE}/lab")).await;
    assert!(shown.contains("lab-001") && shown.contains("ROTATION"), "{shown}");

    shell.does("site bundle lab --valid 1h --out @/bundle.json", "").await;
    assert_eq!(shell.mode("bundle.json"), 0o600);
    shell.fails("site bundle lab", "", 1, &["409", "that is holdfast site reallow"]).await;
    shell.does("site reallow lab --host lab-001", "").await;
    shell.gives("site bundle lab", "").await;

    let told = shell.does("site quarantine lab --dry-run", "").await;
    assert!(told.starts_with("nothing was done; what it would do:") && told.contains("lab-001"), "{told}");
    let quarantined = |site: String| site.contains("standing        quarantined");
    assert!(!quarantined(shell.does("site show lab", "").await));
    shell.does("site quarantine lab", "").await;
    assert!(quarantined(shell.does("site show lab", "").await));
    shell.does("site receipts lab --out @/receipts", "").await;
    shell.shows("site receipts lab", "site lab: seal epoch 2", &format!("{STATE}/lab/rotation-receipts")).await;
    let ca = shell.world.deployment.doc().unwrap().central.ca_file.display().to_string();
    shell.fails(&format!("site verify-receipt @/receipts --root {ca}"), "", 1, &["has no receipt"]).await;
    assert!(shell.does("site unquarantine lab --dry-run", "").await.starts_with("nothing was done; it would be"));
    shell.does("site unquarantine lab", "").await;
    assert!(!quarantined(shell.does("site show lab", "").await));
    shell.does("site quarantine-host lab lab-001 --wipe", "").await;
    shell.does("site unquarantine-host lab lab-001", "").await;

    shell.fails("site delete lab", "", 2, &["nothing was done", "site lab"]).await;
    assert_eq!(shell.does("site delete lab --yes", "").await, "deleted site lab\n");
    shell.fails("site show ../udc1", "", 1, &["404"]).await;
}

pub(super) async fn a_real_site(shell: &mut Shell) {
    let shown = shell.does("site show udc1", "").await;
    assert!(shown.contains("unsealed") && shown.contains("passed") && shown.contains("(in "), "{shown}");
    let status = shell.does("status", "").await;
    assert!(status.starts_with("central  https://") && status.contains("udc1-001"), "{status}");
    assert!(shell.run("status --json", "").await.json()["sites"].is_array());
    let rehearsed = shell.does("site rehearse udc1", "").await;
    assert!(rehearsed.starts_with("site udc1: ") && rehearsed.contains("REMOTE-SEALKEY"), "{rehearsed}");
    assert_eq!(shell.run("site rehearse udc1 --json", "").await.json()["site"], "udc1");

    let path = format!("{STATE}/udc1/blast-radius");
    let report = shell.shows("site blast-radius udc1", "site udc1: not quarantined", &path).await;
    assert!(report.contains("WHAT") && report.contains("deleted"), "{report}");
    let own = shell.does("site blast-radius udc1 --host udc1-001 --own --limit 1", "").await;
    assert!(["shop/db", "approle till", "key "].iter().any(|what| own.contains(what)), "{own}");
    assert!(own.contains("there is more: --from "), "{own}");
    shell.does("site blast-radius udc1 --open", "").await;
    let keys = async || {
        let keys = shell.secret("site remote-sealkey udc1 --json", "").await.json();
        Ok(keys["hosts"]["udc1-001"].is_string().then_some(()))
    };
    until("a remote seal key", SOON, keys).await.unwrap();
    carried(shell).await;

    assert!(shell.does("site rotate-ca api udc1 --dry-run", "").await.contains("nothing was done"));
    shell.does("site rotate-cert dist udc1", "").await;
    let rotated = async || {
        let site = shell.run("site show udc1 --json", "").await.json();
        match site["hosts"][0]["rotation"]["dist"] == "confirmed" {
            true => Ok(Some(())),
            false => Err(io::Error::other(site.to_string())),
        }
    };
    until("the new certificate in use", SOON, rotated).await.unwrap();
    let site = shell.run("site show udc1 --json", "").await.json();
    assert_eq!(site["authorities"]["dist"]["generation"], 2, "{site}");
}

/// The WAN is down, the host is sealed, and an operator carries what opens it.
async fn carried(shell: &Shell) {
    // Of a tenant that has nothing there a host knows no tokens.
    shell.does("vault create kept --to all", "").await;
    let token = shell.file("default.token").display().to_string();
    let there = format!("vault list --profile host --token-file {token}");
    let arrived = async || Ok((shell.run(&there, "").await.out.contains("kept")).then_some(()));
    until("the vault at the host", SOON, arrived).await.unwrap();

    shell.fails("operator challenge --profile host", "", 1, &["409", "this host is unsealed"]).await;
    shell.world.deployment.wan().cut();
    shell.world.deployment.cut_power("udc1-001").unwrap();
    let challenged = async || {
        let done = shell.run("operator challenge --profile host", "").await;
        fs::write(shell.file("challenge"), &done.out)?;
        if done.code == 0 { Ok(Some(())) } else { Err(io::Error::other(done.told)) }
    };
    until("a challenge", SOON, challenged).await.unwrap();
    shell.does("site remote-sealkey udc1 --challenge-file @/challenge --host udc1-001 --out @/remote", "").await;
    assert_eq!(shell.mode("remote"), 0o600);
    let opened = shell.does("operator unseal --profile host --remote-sealkey-file @/remote", "").await;
    assert_eq!(opened, "unsealed\n");

    shell.does(&format!("operator seal --profile host --token-file {token}"), "").await;
    let status = shell.does("operator status --profile host", "").await;
    assert!(status.starts_with("sealed: ") && status.contains("TRIED"), "{status}");
    shell.fails(&there, "", 3, &["503", "remote-sealkey"]).await;
    shell.world.deployment.wan().mend();
    let opened = async || {
        let status = shell.run("operator status --profile host", "").await;
        if status.out.starts_with("unsealed") { Ok(Some(())) } else { Err(io::Error::other(status.out)) }
    };
    until("central opens the host", SOON, opened).await.unwrap();
    shell.does("vault delete kept --yes", "").await;
}

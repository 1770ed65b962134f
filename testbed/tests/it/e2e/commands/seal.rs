//! The seal of central, and that of a host.

use std::fs;

use serde_json::Value;

use super::Shell;

const STATUS: &str = "/v1/state/strongbox/system/seal-status";

pub(super) async fn the_seal(shell: &mut Shell) {
    shell.shows("operator status", "unsealed\n", STATUS).await;
    let host = shell.does("operator status --profile host", "").await;
    assert!(host.starts_with("unsealed\n") && host.contains("TRIED"), "{host}");
    assert_eq!(shell.does("operator status --dir @dev --at udc1-001", "").await, host);
    shell.fails("operator status --dir @dev --at udc9-001", "", 2, &["no host udc9-001"]).await;
    shell.fails("operator unseal --dir @dev --at udc1-001", "", 2, &["--remote-sealkey-file"]).await;
    let pem = shell.does("operator ca", "").await;
    assert_eq!(pem, fs::read_to_string(shell.world.deployment.doc().unwrap().central.ca_file).unwrap());
    shell.fails("operator init", "", 1, &["403", "already revealed"]).await;

    // The way back in, by the seal key alone.
    let sealkey = shell.world.deployment.doc().unwrap().central.sealkey;
    fs::write(shell.file("sealkey"), &sealkey).unwrap();
    shell.does("operator create-root-token --sealkey-file @/sealkey --out @/root", "").await;
    let root = told(shell, "root");
    shell.world.canaries.add("a root token", root["token"].as_str().unwrap().as_bytes());
    fs::write(shell.file("root.token"), root["token"].as_str().unwrap()).unwrap();
    let own = shell.does("operator token show --token-file @/root.token", "").await;
    assert!(own.contains("kind       root") && own.contains("expires    -"), "{own}");

    shell.does("operator rotate-seal --out @/new-seal", "").await;
    let seal = told(shell, "new-seal");
    shell.world.canaries.add("a new seal key", seal["sealkey"].as_str().unwrap().as_bytes());
    assert_eq!((shell.mode("root"), shell.mode("new-seal")), (0o600, 0o600));
    assert_eq!(shell.does("operator seal", "").await, "sealed\n");
    shell.fails("tenant list", "", 3, &["503", "holdfast operator unseal"]).await;
    let wrong = shell.fails("operator unseal --sealkey-file -", &sealkey, 1, &["403", "wrong seal key"]).await;
    assert!(!wrong.contains(&sealkey));
    shell.fails("operator unseal", "", 2, &["--sealkey-file or --shares-file"]).await;
    let shares: Vec<&str> = seal["shares"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let first = shell.does("operator unseal --shares-file -", shares[0]).await;
    assert!(first.starts_with("sealed (1 of "), "{first}");
    let opened = shell.run("operator unseal --shares-file - --json", &shares[1..].join("\n")).await.json();
    assert_eq!(opened["sealed"], false, "{opened}");
}

fn told(shell: &Shell, file: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(shell.file(file)).unwrap()).unwrap()
}

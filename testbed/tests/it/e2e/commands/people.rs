//! Logins, users, tokens, tenants; and what a command says that can't do its work.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::Shell;

pub(super) const PASSWORD: &str = "a canary of ann that sings";

/// Each class of failure has its code, and says what to do.
pub(super) async fn nobody_yet(shell: &Shell) {
    shell.fails("tenant list", "", 1, &["401", "holdfast operator login"]).await;
    shell.fails("tenant list --profile nobody", "", 2, &["no profile nobody", "default, host"]).await;
    shell.fails("tenant list --json -o table", "", 2, &["cannot be used with"]).await;
    shell.fails("status --addr http://central", "", 2, &["https://host:port"]).await;
    shell
        .fails("status --addr https://127.0.0.1:9", "", 3, &["can't reach https://127.0.0.1:9", "is it running?"])
        .await;
    let pinned = format!("status --pin {}", "00".repeat(32));
    shell.fails(&pinned, "", 3, &["no secure connection"]).await;
    shell.fails("tenant list --profile host", "", 1, &["404", "this node does not offer that"]).await;
    shell.fails("status --ca-file @/missing.crt", "", 2, &["missing.crt"]).await;
    shell.fails("operator login ann --password-file @/missing", "", 1, &["missing"]).await;
}

pub(super) async fn a_login(shell: &mut Shell, password: &str) {
    shell.fails("operator login admin --password-file -", "wrong", 1, &["401"]).await;
    let told = shell.does("operator login admin --password-file -", password).await;
    assert!(told.contains("default.token; it ends 2") && told.contains("(in "), "{told}");
    assert_eq!(shell.mode("default.token"), 0o600);
    let token = fs::read_to_string(shell.file("default.token")).unwrap();
    shell.world.canaries.add("token of a login", token.trim().as_bytes());

    // What others may read is no token any more.
    fs::set_permissions(shell.file("default.token"), fs::Permissions::from_mode(0o644)).unwrap();
    shell.fails("tenant list", "", 2, &["chmod 600"]).await;
    fs::set_permissions(shell.file("default.token"), fs::Permissions::from_mode(0o600)).unwrap();

    let shown = shell.does("config show", "").await;
    assert!(shown.contains("(hidden) in ") && shown.contains("default.token"), "{shown}");
    let shown = shell.run("config show --json", "").await.json();
    assert_eq!((&shown["addr"]["from"], &shown["profile"]["value"]), (&"profile".into(), &"default".into()));
    shell.does("config show --dir @dev --at udc1-001", "").await;
    // A profile's token goes to its own address only.
    let line = format!("tenant list --addr {}", shell.world.deployment.host("udc1-001").unwrap().api);
    let ca = shell.world.deployment.host("udc1-001").unwrap().ca_file.display().to_string();
    shell.fails(&format!("{line} --ca-file {ca}"), "", 1, &["the profile's token is not sent"]).await;
    let warned = shell.run(&format!("tenant list --token {}", "x".repeat(20)), "").await;
    assert!(warned.code == 1 && warned.told.contains("others on this machine see arguments"), "{warned:?}");

    let printed = shell.gives("tenant login --dir @dev", "").await;
    let again = shell.secret("tenant login --dir @dev --json", "").await.json();
    assert_eq!(printed.len(), again["token"].as_str().unwrap().len());
    shell.world.canaries.add("printed token", printed.as_bytes());
}

const USERS: &str = "/v1/config/strongbox/authentication/userpass";

pub(super) async fn users_and_tokens(shell: &Shell) {
    let made = "operator user create ann --password-file - --fullname Ann --group readers";
    assert_eq!(shell.does(made, PASSWORD).await, "created user ann\n");
    shell.fails(made, PASSWORD, 1, &["409", "user exists already"]).await;
    shell.lists("operator user list", "USERNAME FULL-NAME GROUPS DISABLED", USERS).await;
    shell.shows("operator user show ann", "username   ann\nfull name  Ann", &format!("{USERS}/ann")).await;
    shell.does("operator user update ann --add-group writers --remove-group readers --fullname Anna", "").await;
    shell.does("operator user update ann --password-file -", &format!("{PASSWORD} anew")).await;
    let ann = shell.run("operator user show ann --json", "").await.json();
    assert_eq!(ann["groups"].as_array().unwrap(), &["writers"], "{ann}");
    assert_eq!(ann["fullname"], "Anna");

    shell.does("operator login ann --password-file - --out @/ann.token", &format!("{PASSWORD} anew")).await;
    let own = shell.does("operator token show --token-file @/ann.token", "").await;
    assert!(own.contains("principal  ann") && own.contains("tenant     system"), "{own}");
    shell.fails("operator user list --token-file @/ann.token", "", 1, &["403", "operator token show"]).await;
    let about = shell.run("operator token show --token-file @/ann.token --json", "").await.json();
    let accessor = about["accessor"].as_str().unwrap();
    let tokens = shell.lists("operator token list", "ACCESSOR PRINCIPAL KIND CREATED EXPIRES", TOKENS).await;
    assert!(tokens.contains(accessor), "{tokens}");
    shell.shows(&format!("operator token show {accessor}"), "accessor ", &format!("{TOKENS}/{accessor}")).await;
    shell.does(&format!("operator token revoke {accessor}"), "").await;
    shell.fails("operator token show --token-file @/ann.token", "", 1, &["401"]).await;

    // The token that the profile keeps is replaced by the next one.
    let before = fs::read(shell.file("default.token")).unwrap();
    shell.does("operator token refresh", "").await;
    assert_ne!(fs::read(shell.file("default.token")).unwrap(), before);
    assert_eq!(shell.does("operator user delete ann", "").await, "deleted user ann\n");
    assert_eq!(shell.run("operator user show ann --json", "").await.code, 1);
}

const TOKENS: &str = "/v1/state/strongbox/token/accessors";

pub(super) async fn tenants(shell: &Shell) {
    let path = "/v1/config/tenants";
    assert!(shell.does("tenant create acme", "").await.contains("next: holdfast tenant setup acme"));
    shell.gives("tenant setup acme --admin-password-file - --admin-fullname Ann", PASSWORD).await;
    shell.lists("tenant list", "TENANT KIND BLOCKED", path).await;
    shell.does("tenant block acme", "").await;
    let shown = shell.shows("tenant show acme", "name     acme", &format!("{path}/acme")).await;
    assert!(shown.contains("blocked  yes"), "{shown}");
    let blocked = shell.run("tenant unblock acme --json", "").await.json();
    assert_eq!(blocked["blocked"], false);

    shell.fails("tenant delete acme", "", 2, &["nothing was done", "tenant acme", "say --yes"]).await;
    shell.shows("tenant show acme", "name     acme", &format!("{path}/acme")).await;
    shell.fails("tenant delete nobody", "", 1, &["404"]).await;
    assert_eq!(shell.does("tenant delete acme --force --yes", "").await, "deleted tenant acme\n");
    shell.fails("tenant show acme", "", 1, &["tenant not found"]).await;
}

pub(super) async fn logged_out(shell: &Shell) {
    assert_eq!(shell.does("operator logout", "").await, "logged out\n");
    assert!(!shell.file("default.token").exists());
    shell.fails("tenant list", "", 1, &["401"]).await;
}

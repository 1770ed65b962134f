//! Vaults, secrets, and the approles of programs.

use std::fs;

use super::Shell;
use crate::e2e::{SOON, until};

pub(super) const VALUE: &str = "a value that is a canary";
pub(super) const TYPED: &str = "a-canary-that-was-typed";

const STATE: &str = "/v1/state/strongbox/vaults";

pub(super) async fn secrets(shell: &Shell) {
    let made = "vault create shop --access readers=read --max-versions 3 --to all";
    assert_eq!(shell.does(made, "").await, "created vault shop\n");
    shell.lists("vault list", "VAULT OWNER ACCESS VERSIONS CAS DISTRIBUTED", STATE).await;
    shell.does("vault update shop --access writers=write --offline 12h --description things", "").await;
    let shown = shell.shows("vault show shop", "name          shop", &format!("{STATE}/shop")).await;
    assert!(shown.contains("readers=read, writers=write") && shown.contains("all; offline 12h"), "{shown}");

    assert_eq!(
        shell.does("vault secret put shop db --value-from - --cas 0", VALUE).await,
        "wrote shop/db, version 1\n"
    );
    shell.fails("vault secret put shop db --value-from - --cas 7", VALUE, 1, &["412", "--cas"]).await;
    // What was typed as an argument is refused, and repeated nowhere.
    let typed = format!("vault secret put shop db password={TYPED}");
    shell.fails(&typed, "", 2, &["an argument too many"]).await;
    shell.fails(&format!("vault secret put shop db --value={TYPED}"), "", 2, &["--value"]).await;
    shell.fails("vault secret put shop db", "", 2, &["nothing to write"]).await;

    fs::write(shell.file("user.txt"), "ann\n").unwrap();
    fs::write(shell.file("keytab"), [0, 159, 146, 150, 10]).unwrap();
    let merged = "vault secret put shop db --text-from user=@/user.txt --binary-from keytab=@/keytab --merge --cas 1";
    assert_eq!(shell.does(merged, "").await, "wrote shop/db, version 2\n");
    let all = shell.gives("vault secret get shop db", "").await;
    assert_eq!(all, format!("keytab (base64): AJ+Slgo=\nuser: ann\nvalue: {VALUE}"));
    assert_eq!(shell.gives("vault secret get shop db --field value", "").await, VALUE);
    shell.does("vault secret get shop db --field keytab --out @/keytab.out", "").await;
    assert_eq!(fs::read(shell.file("keytab.out")).unwrap(), [0, 159, 146, 150, 10]);
    assert_eq!(shell.mode("keytab.out"), 0o600);
    shell.fails("vault secret get shop db --field nothing", "", 1, &["no member nothing"]).await;
    let path = format!("{STATE}/shop/secrets/db");
    let json = shell.secret("vault secret get shop db --json", "").await.json();
    assert_eq!(json, shell.world.operator.get(&path).await.unwrap().good().unwrap());

    let versions = shell.does("vault secret versions shop db", "").await;
    let rows: Vec<Vec<&str>> = versions.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((rows[0][0], rows[1][0], rows[2][0]), ("VERSION", "2", "1"), "{versions}");
    shell.lists("vault secret list shop", "SECRET", &format!("{STATE}/shop/secrets")).await;

    // At a site host, too, with a token that is good there.
    let there = format!("vault secret get shop db --field user --profile host --token-file {}", own_token(shell));
    let arrived = async || Ok((shell.secret(&there, "").await.out == "ann\n").then_some(()));
    until("the secret at the host", SOON, arrived).await.unwrap();

    shell.fails("vault secret delete shop db --cas 1", "", 1, &["412"]).await;
    assert_eq!(shell.does("vault secret delete shop db --cas 2", "").await, "deleted shop/db\n");
    shell.fails("vault secret get shop db", "", 1, &["404"]).await;
    shell.fails("vault delete shop", "", 2, &["nothing was done", "vault shop"]).await;
}

fn own_token(shell: &Shell) -> String {
    shell.file("default.token").display().to_string()
}

/// Somebody starts a program, which reads what it may.
pub(super) async fn programs(shell: &mut Shell) {
    let path = "/v1/config/strongbox/authentication/approles";
    shell.does("tenant approle create till --token-policy readers --token-ttl 30m --to-site udc1", "").await;
    shell.lists("tenant approle list", "APPROLE TOKEN-TTL POLICIES MINTERS DISTRIBUTED", path).await;
    shell.does("tenant approle update till --secret-id-num-uses 9 --secret-id-minter readers", "").await;
    let shown = shell.shows("tenant approle show till", "name            till", &format!("{path}/till")).await;
    assert!(shown.contains("secret-id uses  9") && shown.contains("token ttl       30m"), "{shown}");

    let role_id = shell.gives("tenant approle role-id till", "").await;
    shell.does("tenant approle secret-id till --ttl 1h --num-uses 2 --out @/secret-id", "").await;
    let shown = shell.gives("tenant approle secret-id till", "").await;
    assert!(shown.starts_with("secret-id  ") && shown.contains("accessor   "), "{shown}");
    let secret_id = fs::read_to_string(shell.file("secret-id")).unwrap();
    shell.world.canaries.add("role-id", role_id.as_bytes());
    shell.world.canaries.add("secret-id", secret_id.trim().as_bytes());
    fs::write(shell.file("role-id"), role_id).unwrap();
    let login = "tenant approle login --role-id-file @/role-id --secret-id-file @/secret-id";
    let token = shell.gives(login, "").await;
    shell.world.canaries.add("token of a program", token.as_bytes());
    shell.does(&format!("{login} --out @/program.token"), "").await;
    assert_eq!((shell.mode("program.token"), shell.mode("secret-id")), (0o600, 0o600));
    shell.does("vault show shop --token-file @/program.token", "").await;
    shell.fails(login, "", 1, &["401"]).await;

    shell.does("tenant approle revoke till", "").await;
    shell.fails("vault show shop --token-file @/program.token", "", 1, &["401"]).await;
    shell.does("tenant approle delete till", "").await;
    assert_eq!(shell.does("vault delete shop --yes", "").await, "deleted vault shop\n");
}

//! Nothing that somebody must not read is in the data folder.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::world::{SEAL, World};

fn all_bytes(folder: &Path, into: &mut Vec<u8>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all_bytes(&path, into) } else { into.extend(fs::read(&path).unwrap()) }
    }
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_folder_holds_no_secret_and_no_name() {
    let mut world = World::start().await;
    let first = world.initialise().await;
    assert_eq!(world.create_tenant(&first.token, "verdigris-tenant").await.status, 201);
    let setup = json!({
        "name": "verdigris-tenant", "admin-username": "ottoline", "admin-password": "correct horse battery",
    });
    let token = world.post_as(&first.token, &format!("{SEAL}/setup-tenant"), Some(setup)).await;
    assert_eq!(token.status, 200, "{}", token.text);
    let refused = world.create_tenant("hft_cattywampus", "x").await;
    assert_eq!(refused.status, 401);
    world.start_again().await;
    assert_eq!(world.unseal(json!({ "sealkey": STANDARD.encode([7; 32]) })).await.status, 403);
    assert_eq!(world.unseal(json!({ "shares": first.shares[..3] })).await.status, 204);
    world.stop().await;

    let mut bytes = Vec::new();
    all_bytes(&world.data(), &mut bytes);
    assert!(holds(&bytes, b"CERTIFICATE"), "the search finds what is there");
    let mut secrets =
        vec![first.sealkey.clone().into_bytes(), first.token.into_bytes(), token.of("token").into_bytes()];
    secrets.push(STANDARD.decode(&first.sealkey).unwrap());
    for share in &first.shares {
        let (_, text) = share.split_once(':').unwrap();
        secrets.extend([text.as_bytes().to_vec(), STANDARD.decode(text).unwrap()]);
    }
    for word in ["verdigris", "ottoline", "correct horse", "cattywampus", "argon2", "tenant.create"] {
        secrets.push(word.as_bytes().to_vec());
    }
    for secret in secrets {
        assert!(!holds(&bytes, &secret), "{:?}", String::from_utf8_lossy(&secret));
    }
}

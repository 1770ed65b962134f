//! The repository's rules: who may use whom, what stays out of which program, and what every file looks like.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Which of our crates each of them may use. The three that may use all are for development only.
const ARROWS: [(&str, &[&str]); 9] = [
    ("holdfast-protocol", &[]),
    ("holdfast-actors", &["holdfast-protocol"]),
    ("holdfast-rest", &["holdfast-actors", "holdfast-protocol"]),
    ("holdfast-central", &["holdfast-rest", "holdfast-actors", "holdfast-protocol"]),
    ("holdfast-site-agent", &["holdfast-rest", "holdfast-actors", "holdfast-protocol"]),
    ("holdfast-cli", &["holdfast-protocol"]),
    ("holdfast-benches", ALL),
    ("holdfast-fuzz", ALL),
    ("holdfast-testbed", ALL),
];

const ALL: &[&str] = &[
    "holdfast-protocol",
    "holdfast-actors",
    "holdfast-rest",
    "holdfast-central",
    "holdfast-site-agent",
    "holdfast-cli",
];

/// Folders whose sources end up in a program that is shipped.
pub(crate) const PRODUCT: [&str; 6] = ["protocol", "actors", "rest", "central", "site-agent", "cli"];

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace is above this crate")
}

fn cargo(arguments: &[&str]) -> String {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program).args(arguments).current_dir(root()).output().expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

/// Names of the packages that are built into what `arguments` select.
fn tree(arguments: &[&str]) -> BTreeSet<String> {
    let common = ["tree", "--locked", "--prefix", "none", "--format", "{p}"];
    let lines = cargo(&[&common, arguments].concat());
    let names: BTreeSet<String> = lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert!(names.len() > 3, "an empty tree proves nothing: {arguments:?}");
    names
}

/// Every file of the repository that git would keep.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository is readable") {
            let path = entry.expect("an entry is readable").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match path.is_dir() {
                true if matches!(name, "target" | ".git" | "dev") && folder == root() => {}
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    found
}

pub(crate) fn sources() -> Vec<(PathBuf, String)> {
    let rust = files().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    rust.map(|path| (path.clone(), fs::read_to_string(&path).expect("a source is UTF-8"))).collect()
}

/// The sources that contain any of `forbidden`; this file, which must name them, apart.
fn containing(forbidden: &[&str], of: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources() {
        if path.ends_with(file!()) || path.ends_with("it/tidy.rs") || !of(&path) {
            continue;
        }
        let hits = forbidden.iter().filter(|word| text.contains(*word));
        found.extend(hits.map(|word| format!("{}: {word}", path.display())));
    }
    found
}

#[test]
fn crates_use_only_who_they_may() {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--no-deps", "--format-version", "1", "--locked"]))
        .expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("a workspace has packages");
    assert_eq!(packages.len(), ARROWS.len(), "a new crate needs its arrows here");
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let allowed = ARROWS.iter().find(|(of, _)| *of == name).map(|(_, allowed)| *allowed);
        let allowed = allowed.unwrap_or_else(|| panic!("{name} has no arrows"));
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            // Tests may use the testbed, whoever they test.
            if dependency["kind"] == "dev" && dependency["name"] == "holdfast-testbed" {
                continue;
            }
            let used = dependency["name"].as_str().unwrap_or_default();
            assert!(!used.starts_with("holdfast-") || allowed.contains(&used), "{name} may not use {used}");
        }
    }
}

#[test]
fn only_the_agent_reaches_a_tpm_library() {
    for package in ["holdfast-central", "holdfast-cli", "holdfast-rest", "holdfast-actors", "holdfast-protocol"] {
        let names = tree(&["--package", package, "--edges", "normal,build"]);
        assert!(!names.iter().any(|name| name.starts_with("tss-esapi")), "{package} reaches tss-esapi");
    }
    assert!(tree(&["--package", "holdfast-site-agent", "--edges", "normal"]).contains("tss-esapi"));
}

#[test]
fn nobody_reaches_a_second_cryptographic_library() {
    let names = tree(&["--workspace", "--edges", "normal,build,dev"]);
    for banned in ["ring", "rsa", "openssl", "openssl-sys", "native-tls"] {
        assert!(!names.contains(banned), "{banned} is in the tree");
    }
    assert!(names.contains("aws-lc-rs"));
}

#[test]
fn the_cores_need_no_runtime_and_no_database() {
    for package in ["holdfast-actors", "holdfast-protocol"] {
        let names = tree(&["--package", package, "--no-default-features", "--edges", "normal"]);
        for banned in ["tokio", "ractor", "heed", "quinn", "hyper", "axum"] {
            assert!(!names.contains(banned), "{package} without its shell reaches {banned}");
        }
    }
}

#[test]
fn only_the_crypto_module_names_cryptographic_crates() {
    let names = ["aes_gcm::", "p256::", "x25519_dalek::", "hpke::", "chacha20::"];
    assert_eq!(containing(&names, |path| !path.starts_with(root().join("protocol/src/crypto"))), Vec::<String>::new());
}

#[test]
fn every_source_says_what_it_is_for() {
    let silent: Vec<_> =
        sources().into_iter().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path).collect();
    assert_eq!(silent, Vec::<PathBuf>::new());
}

#[test]
fn no_test_is_switched_off_or_expects_a_panic() {
    assert_eq!(containing(&["#[ignore", "should_panic"], |_| true), Vec::<String>::new());
}

#[test]
fn no_product_thread_sleeps() {
    // The TPM's own thread waits out a busy chip: nothing tells when one is free.
    let chip = root().join("site-agent/src/tpm/chip.rs");
    let product =
        |path: &Path| path != chip && PRODUCT.iter().any(|folder| path.starts_with(root().join(folder).join("src")));
    assert_eq!(containing(&["thread::sleep"], product), Vec::<String>::new());
}

#[test]
fn no_unsafe_code_but_where_the_database_is_opened() {
    let unsafe_code = sources().into_iter().filter(|(path, text)| {
        !path.ends_with("it/tidy.rs")
            && text.contains("unsafe {")
            && !text.contains("#[expect(\n    unsafe_code")
            && !text.contains("#[expect(unsafe_code")
    });
    assert_eq!(unsafe_code.map(|(path, _)| path).collect::<Vec<_>>(), Vec::<PathBuf>::new());
}

#[test]
fn no_line_ends_in_a_blank() {
    // Inputs of the fuzz targets are bytes, also where they happen to be text.
    let corpora = root().join("fuzz/corpus");
    let texts = files().into_iter().filter(|path| !path.starts_with(&corpora));
    let texts = texts.filter_map(|path| Some((path.clone(), fs::read_to_string(&path).ok()?)));
    let untidy = texts.flat_map(|(path, text)| {
        let ends = text.lines().enumerate().filter(|(_, line)| line.ends_with([' ', '\t']));
        ends.map(|(at, _)| format!("{}:{}", path.display(), at + 1)).collect::<Vec<_>>()
    });
    assert_eq!(untidy.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let page = fs::read_to_string(root().join("docs/threat-model.md")).expect("the page is text");
    // Whatever is written like a sentence in code is the name of a test.
    let named = page.split('`').skip(1).step_by(2).filter(|code| {
        code.matches('_').count() > 1 && code.bytes().all(|b| b == b'_' || b.is_ascii_lowercase() || b.is_ascii_digit())
    });
    let named: BTreeSet<&str> = named.collect();
    assert!(named.len() > 40, "{}", named.len());
    let sources = sources();
    let is_test = |name: &&str| {
        let head = format!("fn {name}(");
        // The attribute stands above, perhaps with others between.
        let marked = |above: &str| above.lines().rev().take(4).any(|line| line.contains("#[") && line.contains("test"));
        sources.iter().any(|(_, text)| text.match_indices(&head).any(|(at, _)| marked(&text[..at])))
    };
    let missing: Vec<&str> = named.into_iter().filter(|name| !is_test(name)).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn the_repository_has_its_documents() {
    for name in ["LICENSE", "README.md", "SECURITY.md", "CHANGELOG.md"] {
        assert!(fs::metadata(root().join(name)).is_ok_and(|data| data.len() > 100), "{name}");
    }
    let license = fs::read_to_string(root().join("LICENSE")).expect("the licence is text");
    assert!(license.contains("Apache License"));
}

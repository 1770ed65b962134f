//! Where inputs come from: the golden files, and the corpora in the repository.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Target;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The golden files of the wire, name and bytes, in the order of their names.
pub fn golden() -> Vec<(String, Vec<u8>)> {
    let folder = here().join("../protocol/tests/golden/v1");
    entries(&folder).into_iter().map(|(name, bytes)| (name.clone(), unfolded(&name, bytes))).collect()
}

/// Hexadecimal lines back to bytes; JSON as it is.
fn unfolded(name: &str, bytes: Vec<u8>) -> Vec<u8> {
    if !name.ends_with(".hex") {
        return bytes.trim_ascii_end().to_vec();
    }
    let digits: Vec<u8> = bytes.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
    hex::decode(digits).expect("golden files are hexadecimal")
}

/// What the repository holds for a target: inputs that once found something, and such as reach far. Name and bytes.
pub fn kept(target: &Target) -> Vec<(String, Vec<u8>)> {
    entries(&here().join("corpus").join(target.name))
}

/// The folder of the corpora.
pub fn folder() -> PathBuf {
    here().join("corpus")
}

/// All files of a folder, of which there must be some: an empty corpus would be borne by anything.
fn entries(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
    let mut paths: Vec<PathBuf> = files.filter_map(|file| file.ok().map(|file| file.path())).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), fs::read(path).expect("an entry of a corpus is readable"))).collect()
}

//! The node programs, found beside this one.

use std::path::PathBuf;

use crate::failure::Failure;

/// Central's program.
pub(crate) const CENTRAL: &str = "holdfast-central";
/// The site agent's program.
pub(crate) const SITE_AGENT: &str = "holdfast-site-agent";

/// The path of `name` in the folder of this executable. The search path is not asked: the programs of one build
/// belong together.
pub(crate) fn beside(name: &str) -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().map_err(Failure::io("finding this program's own path"))?;
    let path = own.with_file_name(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(Failure::unfit(format!("{} is missing; it is built by `cargo build --workspace`", path.display())))
    }
}

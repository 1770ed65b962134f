//! What the long suites did, in figures: `make test` prints them when it is done, since cargo hides what a test that
//! passes prints.

use std::fmt::{Display, Write as _};
use std::fs;
use std::io;
use std::path::PathBuf;

/// The figures of one suite, in the order they were added.
#[derive(Debug)]
pub struct Figures {
    suite: &'static str,
    text: String,
}

impl Figures {
    /// Of `suite`, without any yet. Its name is the name of a file too: letters and dashes.
    pub fn of(suite: &'static str) -> Self {
        Self { suite, text: String::new() }
    }

    /// Adds a line: what was counted, and how much of it.
    #[must_use]
    pub fn add(mut self, what: &str, value: impl Display) -> Self {
        writeln!(self.text, "  {what:<58} {value}").expect("writing to a string");
        self
    }

    /// Leaves them for the end of the run, instead of those of an earlier run.
    ///
    /// # Errors
    /// They can't be written.
    pub fn publish(self) -> io::Result<()> {
        let folder = folder()?;
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("{}.txt", self.suite)), format!("{}\n{}", self.suite, self.text))
    }
}

/// `figures` beside the programs: the test that runs stands in `deps` there.
fn folder() -> io::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let programs = exe.parent().and_then(|deps| deps.parent());
    programs.map(|programs| programs.join("figures")).ok_or_else(|| io::Error::other("a test outside of any folder"))
}

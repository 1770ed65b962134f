//! Small disks: folders of a deployment that are file systems of their own, in memory, to be filled up.
//!
//! They are mounted in a name space that only the deployment's processes have. That takes root, or a system where users
//! may make name spaces of their own.

use std::fs::{self, File};
use std::io::{self, Error};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// A folder that is to be a disk of its own.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Within the deployment's folder.
    pub folder: &'static str,
    /// Its size.
    pub bytes: u64,
}

/// Mounts its own arguments up to `--`, pairs of a folder and a size, and becomes the program after it.
const MOUNT: &str = r#"
while [ "$1" != -- ]; do
    mount -t tmpfs -o "mode=0700,size=$2" holdfast-test "$1" || exit 1
    shift 2
done
shift
exec "$@"
"#;

/// The beginning of a command whose further arguments are the program that sees `disks` mounted below `dir`.
///
/// # Errors
/// Nothing can be mounted here.
pub(super) fn with_disks(dir: &Path, disks: &[Disk]) -> io::Result<Command> {
    if disks.is_empty() {
        return Ok(Command::new("env"));
    }
    let mut command = Command::new("unshare");
    command.args([how()?, "sh", "-c", MOUNT, "sh"]);
    for disk in disks {
        let folder = dir.join(disk.folder);
        fs::create_dir_all(&folder)?;
        command.arg(folder).arg(disk.bytes.to_string());
    }
    command.arg("--");
    Ok(command)
}

/// As root a name space of mounts is enough; others need one of users too.
fn how() -> io::Result<&'static str> {
    let may = |flags: &str| {
        let mut command = Command::new("unshare");
        command.args([flags, "mount", "-t", "tmpfs", "holdfast-test", "/tmp"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    ["-m", "-rm"].into_iter().find(|flags| may(flags)).ok_or_else(|| {
        Error::other(
            "a disk that fills up needs a small file system of its own, and nothing can be mounted here: run this test \
             as root, or allow users name spaces of their own (sysctl kernel.unprivileged_userns_clone=1 or \
             kernel.apparmor_restrict_unprivileged_userns=0; in a container: --cap-add SYS_ADMIN)",
        )
    })
}

/// The name spaces that the processes have of their own, as `nsenter` names them.
pub(super) fn spaces() -> io::Result<&'static [&'static str]> {
    Ok(if how()? == "-m" { &["--mount"] } else { &["--user", "--preserve-credentials", "--mount"] })
}

/// Takes up room on a disk, and gives it back.
#[derive(Debug)]
pub struct Ballast {
    folder: PathBuf,
    files: u32,
}

impl Ballast {
    /// None yet, on the disk that holds `folder`.
    pub fn on(folder: PathBuf) -> Self {
        Self { folder, files: 0 }
    }

    /// Bytes that are free.
    ///
    /// # Errors
    /// The operating system's.
    pub fn free(&self) -> io::Result<u64> {
        let disk = statvfs(&self.folder)?;
        Ok(disk.f_bavail * disk.f_frsize)
    }

    /// Takes all but `leave` bytes.
    ///
    /// # Errors
    /// There are not so many.
    pub fn take_all_but(&mut self, leave: u64) -> io::Result<()> {
        // Somebody else takes some at the same time.
        while let Some(more) = self.free()?.checked_sub(leave).filter(|more| *more > 0) {
            let file = File::create(self.file(self.files))?;
            self.files += 1;
            match fallocate(&file, FallocateFlags::empty(), 0, more) {
                Ok(()) | Err(rustix::io::Errno::NOSPC) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Gives all of it back.
    ///
    /// # Errors
    /// The operating system's.
    pub fn drop_all(&mut self) -> io::Result<()> {
        while let Some(last) = self.files.checked_sub(1) {
            fs::remove_file(self.file(last))?;
            self.files = last;
        }
        Ok(())
    }

    fn file(&self, number: u32) -> PathBuf {
        self.folder.join(format!("ballast-{number}"))
    }
}

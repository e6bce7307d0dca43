//! File systems that tests mount. Only root can.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::output;

/// A mounted file system.
#[derive(Debug)]
pub struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    /// Mounts it. None if this process may not.
    pub fn new(kind: &str, options: &str, at: &'a Path) -> Option<Self> {
        let mounted = output(Command::new("mount").args(["-t", kind, "-o", options, "none"]).arg(at));
        mounted.status.success().then_some(Self(at))
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        output(Command::new("umount").arg("--lazy").arg(self.0));
    }
}

/// An ext4 file system in a file. While it is frozen, a process that writes to it cannot be killed.
#[derive(Debug)]
pub struct FreezableDisk(TempDir);

impl FreezableDisk {
    /// Mounts it. None if this process may not.
    pub fn mount() -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        let script = "truncate -s 20M image && mkfs.ext4 -q image && mkdir disk && mount -o loop image disk";
        let mounted =
            output(Command::new("sh").args(["-c", script]).current_dir(disk.0.path())).status.success();
        if !mounted {
            eprintln!("skipped: no file system can be mounted here (this takes root and a loop device)");
        }
        mounted.then_some(disk)
    }

    /// The folder where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.0.path().join("disk")
    }

    /// Makes all writes to it wait.
    pub fn freeze(&self) {
        assert!(output(Command::new("fsfreeze").arg("--freeze").arg(self.path())).status.success());
    }

    /// Lets the writes go on.
    pub fn thaw(&self) {
        output(Command::new("fsfreeze").arg("--unfreeze").arg(self.path()));
    }
}

impl Drop for FreezableDisk {
    fn drop(&mut self) {
        self.thaw();
        output(Command::new("umount").arg("--lazy").arg(self.path()));
    }
}

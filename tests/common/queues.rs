//! Names of POSIX message queues, where one may look.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit};

use super::program::output;
use super::until;

/// Whether a user may have as many bytes in queues as the kernel lets everybody have.
pub fn limit_is_the_usual_one() -> bool {
    let (soft, _) = getrlimit(Resource::RLIMIT_MSGQUEUE).unwrap();
    if soft != 819_200 {
        eprintln!("skipped: RLIMIT_MSGQUEUE is {soft} here");
    }
    soft == 819_200
}

/// A file system that a test has mounted.
#[derive(Debug)]
pub struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    /// Mounts it, if one is allowed to.
    pub fn new(kind: &str, options: &str, at: &'a Path) -> Option<Self> {
        let mounted = output(Command::new("mount").args(["-t", kind, "-o", options, "none"]).arg(at));
        mounted.status.success().then_some(Self(at))
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0).status().ok();
    }
}

/// Panics if a queue keeps a name. Only an administrator can look; returns whether it was possible.
pub fn assert_no_names() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::new("mqueue", "rw", folder.path()) else { return false };
    // A server that starts beside this one has a name for a moment: only one that stays is ours.
    let mut staying = names(folder.path());
    until("no queue keeps its name", || {
        staying = &staying & &names(folder.path());
        staying.is_empty()
    });
    true
}

fn names(folder: &Path) -> BTreeSet<OsString> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

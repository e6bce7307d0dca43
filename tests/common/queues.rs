//! POSIX message queues: the user's limit, and the names that exist.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};

use super::disks::Mount;
use super::until;

/// Whether `RLIMIT_MSGQUEUE` has the kernel's default.
pub fn limit_is_the_default() -> bool {
    let (soft, _) = getrlimit(Resource::RLIMIT_MSGQUEUE).unwrap();
    if soft != 819_200 {
        eprintln!("skipped: RLIMIT_MSGQUEUE is {soft} here");
    }
    soft == 819_200
}

/// Panics if a queue keeps its name. Only root can see the names, so for others this does nothing.
pub fn assert_no_names() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::new("mqueue", "rw", folder.path()) else {
        return eprintln!("skipped: only root can see the names of the queues");
    };
    // The queue of a server that another test starts has a name for a moment. Only a name that stays is wrong.
    let mut staying = names(folder.path());
    until("no queue has a name", || {
        staying = &staying & &names(folder.path());
        staying.is_empty()
    });
}

fn names(folder: &Path) -> BTreeSet<OsString> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

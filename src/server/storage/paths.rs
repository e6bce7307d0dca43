//! Where the files of a contest are. The state file is beside the real bets file, whatever links lead to it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;

use crate::system::read_whole;

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// Follows the links from a path to the file itself, which need not exist.
pub(crate) fn resolve(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Ok(target) = path.read_link() else { break };
        path = folder_of(&path).join(target);
    }
    path
}

/// Returns the path of the state file of a bets file, whose links have been resolved.
pub(crate) fn state_path(bets: &Path) -> PathBuf {
    beside(bets, ".state")
}

/// Returns the path that the next state file has until it replaces the present one.
pub(super) fn next_state_path(bets: &Path) -> PathBuf {
    beside(bets, ".state.next")
}

pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Opens a file for reading. Does not block if a FIFO is in its place.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Reads a state file, if it exists.
pub(crate) fn read_state_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match open_to_read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("the state file must be a regular file"));
    }
    read_whole(file).map(Some)
}

//! The real files: opened, locked, and checked to stay what they are.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use thiserror::Error;

use super::disk::{Disk, FileChanged};
use super::paths::{folder_of, next_state_path, read_state_file, resolve, state_path};
use super::row_reader::RESTORE;
use crate::failpoint::{error_point, kill_point};
use crate::ipc::control::FileIdentity;

/// Real files.
#[derive(Debug)]
pub(super) struct FileDisk {
    /// As it was given. It must always lead to the open file.
    path: PathBuf,
    bets: File,
    pub(super) identity: FileIdentity,
    /// How many names the bets file has.
    pub(super) links: u64,
    /// Whether there was a state file when the bets file was opened.
    pub(super) has_state: bool,
    folder: File,
    state_path: PathBuf,
    next_state_path: PathBuf,
}

/// Why the files can't be opened.
#[derive(Debug, Error)]
pub(super) enum OpenError {
    #[error("{}: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "it is not there, but its state file is; put it back, or {RESTORE}; for a new contest move the state file away too"
    )]
    BetsMissing,
    #[error(
        "it was moved, removed or replaced while the server ran; put it back, and start the server again"
    )]
    Moved,
    #[error("its state file was removed while the server ran; put it back, and start the server again")]
    StateMissing,
    #[error("STORAGE_FILEPATH must be a regular file")]
    NotAFile,
    #[error(
        "in use by {}, a server's storage service; stop that server (its parent), or give this one another STORAGE_FILEPATH",
        process(*holder)
    )]
    Locked { holder: i32 },
    #[error(
        "{} reads it and holds a lock (fcntl) that keeps the server from writing; end that process",
        process(*holder)
    )]
    ReadLocked { holder: i32 },
}

/// Names the holder of a lock, for people. The kernel says 0 for a process that this one can't see.
fn process(holder: i32) -> String {
    if holder > 0 {
        format!("process {holder}")
    } else {
        "a process of another container, or of the host".to_owned()
    }
}

/// How long to wait for the lock. The storage service of a server that was just killed may still have it.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

impl FileDisk {
    /// Opens the bets file and locks it against other servers for as long as this process lives. `known` is the file that
    /// this server had open before. A missing file is created if it has no state file.
    pub(super) fn open(path: &Path, known: Option<FileIdentity>) -> Result<Self, OpenError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| OpenError::Io { path, error }
        };
        let resolved = resolve(path);
        let folder_path = folder_of(&resolved);
        let folder = File::open(folder_path).map_err(failed(folder_path))?;
        let (state_path, next_state_path) = (state_path(&resolved), next_state_path(&resolved));
        let has_state = state_path.exists();
        if known.is_some() && !has_state {
            return Err(OpenError::StateMissing);
        }
        // Every start creates the bets file before the state file. If only the state file is there, the bets were lost.
        let bets = open_bets(&resolved, !has_state).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if known.is_some() => OpenError::Moved,
            io::ErrorKind::NotFound if has_state => OpenError::BetsMissing,
            _ => failed(path)(error),
        })?;
        let metadata = bets.metadata().map_err(failed(path))?;
        let (identity, links) = (identity(&metadata), metadata.nlink());
        if known.is_some_and(|known| known != identity) {
            return Err(OpenError::Moved);
        }
        if !metadata.is_file() {
            return Err(OpenError::NotAFile);
        }
        lock(&bets, path)?;
        // A server that was killed may have left this file. The END in it was not acknowledged.
        remove_if_exists(&next_state_path).map_err(failed(&next_state_path))?;
        folder.sync_all().map_err(failed(folder_path))?;
        let path = path.to_owned();
        Ok(Self { path, bets, identity, links, has_state, folder, state_path, next_state_path })
    }
}

fn open_bets(path: &Path, may_create: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(may_create)
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
        .open(path)
}

fn identity(file: &Metadata) -> FileIdentity {
    FileIdentity { device: file.dev(), inode: file.ino() }
}

/// Removes a file that a failed write has left. A link is removed, but not the file that it points to.
fn remove_if_exists(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Takes a record lock of `fcntl(2)`. A child does not inherit it, and it ends with the process.
fn lock(file: &File, path: &Path) -> Result<(), OpenError> {
    #[expect(clippy::cast_possible_truncation, reason = "the constants are small")]
    let wanted = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let failed = |error: Errno| OpenError::Io { path: path.to_owned(), error: error.into() };
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match fcntl(file, FcntlArg::F_SETLK(&wanted)) {
            Ok(_) => return Ok(()),
            Err(Errno::EAGAIN | Errno::EACCES) if Instant::now() < until => sleep(LOCK_PAUSE),
            Err(Errno::EAGAIN | Errno::EACCES) => {
                let mut holder = wanted;
                fcntl(file, FcntlArg::F_GETLK(&mut holder)).map_err(failed)?;
                let (kind, holder) = (i32::from(holder.l_type), holder.l_pid);
                match kind {
                    libc::F_UNLCK => {} // It was unlocked between the two calls.
                    libc::F_RDLCK => return Err(OpenError::ReadLocked { holder }),
                    _ => return Err(OpenError::Locked { holder }),
                }
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

impl Disk for FileDisk {
    fn check(&self, length: u64) -> Result<(), FileChanged> {
        let named = match std::fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            named => Some(named?).filter(|named| identity(named) == self.identity),
        };
        let found = match &named {
            Some(named) => named.len(),
            None => self.bets.metadata()?.len(),
        };
        if found != length {
            return Err(FileChanged::Length { found, expected: length });
        }
        named.map(drop).ok_or(FileChanged::Moved)
    }

    fn append(&mut self, rows: &[u8]) -> io::Result<()> {
        error_point("disk_append")?;
        self.bets.write_all(rows)?;
        kill_point("bets_written");
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        error_point("disk_sync")?;
        self.bets.sync_data()?;
        kill_point("bets_synced");
        Ok(())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        error_point("disk_cut")?;
        if self.bets.metadata()?.len() < length {
            return Err(io::Error::other("another program has cut the file"));
        }
        self.bets.set_len(length)
    }

    fn bets(&self) -> io::Result<impl Read> {
        (&self.bets).rewind()?;
        Ok(&self.bets)
    }

    fn read_state(&self) -> io::Result<Option<Vec<u8>>> {
        read_state_file(&self.state_path)
    }

    fn replace_state(&mut self, bytes: &[u8]) -> io::Result<()> {
        error_point("disk_write_state")?;
        remove_if_exists(&self.next_state_path)?;
        // A new file: if somebody puts a link there at this moment, this is an error and the link is not followed.
        let mut file = File::create_new(&self.next_state_path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        kill_point("state_written");
        error_point("disk_rename_state")?;
        #[expect(clippy::disallowed_methods, reason = "this is the place that syncs the folder")]
        std::fs::rename(&self.next_state_path, &self.state_path)?;
        kill_point("state_renamed");
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        error_point("disk_sync_folder")?;
        nix::unistd::fsync(self.folder.as_fd())?;
        Ok(())
    }
}

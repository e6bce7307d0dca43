//! The disk: everything that the storage service does to its files. It is a trait, so that tests can use a simulated
//! disk, which fails or stops at any call.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use thiserror::Error;

use crate::failpoint::{error_point, kill_point};

/// The bets file and the state file beside it. "Durable" means: it survives a loss of power.
#[expect(clippy::missing_errors_doc, reason = "an error is what the system says")]
pub trait Disk {
    /// Writes at the end of the bets file. After an error, any first part may have been written.
    fn append(&mut self, rows: &[u8]) -> io::Result<()>;

    /// Makes what was appended durable: `fdatasync(2)`. After an error, it is not known what is durable.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the bets file to a length in bytes; [`Self::sync`] makes that durable.
    fn cut(&mut self, length: u64) -> io::Result<()>;

    /// The bets file, to be read from its beginning.
    fn bets(&self) -> io::Result<impl Read>;

    /// The content of the state file, if there is one.
    fn read_state(&self) -> io::Result<Option<Vec<u8>>>;

    /// Writes the next state file beside the present one, and makes it durable. After an error, the present one is
    /// as before.
    fn write_next_state(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Replaces the state file by the next one: `rename(2)`. After an error, the present one is as before.
    fn rename_next_state(&mut self) -> io::Result<()>;

    /// Makes renames durable: `fsync(2)` of the folder. After an error, it is not known whether they are.
    fn sync_folder(&mut self) -> io::Result<()>;

    /// Replaces the state file.
    fn store_state(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.write_next_state(bytes).map_err(StoreError::NotStored)?;
        self.rename_next_state().map_err(StoreError::NotStored)?;
        self.sync_folder().or_else(|_| self.sync_folder()).map_err(StoreError::Unknown)
    }
}

/// Why a state was not stored.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The files are as before.
    #[error("{0}")]
    NotStored(io::Error),
    /// It is not known what is on disk: the process must end, and the next one recover.
    #[error("{0}")]
    Unknown(io::Error),
}

/// Real files.
#[derive(Debug)]
pub(super) struct FileDisk {
    bets: File,
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
        "it is not there, but its state file is; restore it, or move the state file away too for a new contest"
    )]
    BetsMissing,
    #[error("STORAGE_FILEPATH must be a regular file")]
    NotAFile,
    #[error(
        "in use by process {holder}, a server's storage service; stop that server, its parent, or give this one another STORAGE_FILEPATH"
    )]
    Locked {
        /// 0 if the process is in another container.
        holder: i32,
    },
}

/// How long to wait for the lock: the storage service of a server that was just killed may still be ending.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

impl FileDisk {
    /// Opens the bets file, creates it if it is missing, and locks it against other servers for as long as this
    /// process lives.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| OpenError::Io { path, error }
        };
        let folder_path = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let folder = File::open(folder_path).map_err(failed(folder_path))?;
        // Every start creates the bets file before the state file, so the bets were lost.
        if !path.exists() && state_path(path).exists() {
            return Err(OpenError::BetsMissing);
        }
        let bets = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o644)
            .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
            .open(path)
            .map_err(failed(path))?;
        if !bets.metadata().map_err(failed(path))?.is_file() {
            return Err(OpenError::NotAFile);
        }
        lock(&bets, path)?;
        let (state_path, next_state_path) = (state_path(path), beside(path, ".state.next"));
        // A server that was killed may have left it; its END was not acknowledged.
        remove_if_exists(&next_state_path).map_err(failed(&next_state_path))?;
        folder.sync_all().map_err(failed(folder_path))?;
        Ok(Self { bets, folder, state_path, next_state_path })
    }
}

/// Reads a state file, if it exists.
pub(crate) fn read_state_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // Opening a FIFO would block otherwise.
    let mut file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("the state file must be a regular file"));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// The path of a bets file's state file.
pub(crate) fn state_path(bets: &Path) -> PathBuf {
    beside(bets, ".state")
}

/// Removes what a failed write has left, or what somebody has put there: a link, but not what it points to.
fn remove_if_exists(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Takes a record lock of `fcntl(2)`: a child does not inherit it, and it ends with the process.
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
                return Err(OpenError::Locked { holder: holder.l_pid });
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

impl Disk for FileDisk {
    fn append(&mut self, rows: &[u8]) -> io::Result<()> {
        error_point!("disk_append");
        self.bets.write_all(rows)?;
        kill_point!("bets_written");
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        error_point!("disk_sync");
        self.bets.sync_data()?;
        kill_point!("bets_synced");
        Ok(())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        error_point!("disk_cut");
        self.bets.set_len(length)
    }

    fn bets(&self) -> io::Result<impl Read> {
        (&self.bets).rewind()?;
        Ok(&self.bets)
    }

    fn read_state(&self) -> io::Result<Option<Vec<u8>>> {
        read_state_file(&self.state_path)
    }

    fn write_next_state(&mut self, bytes: &[u8]) -> io::Result<()> {
        error_point!("disk_write_state");
        remove_if_exists(&self.next_state_path)?;
        // Made anew: a link that somebody puts there at this moment is not followed, but an error.
        let mut file = File::create_new(&self.next_state_path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        kill_point!("state_written");
        Ok(())
    }

    fn rename_next_state(&mut self) -> io::Result<()> {
        error_point!("disk_rename_state");
        #[expect(clippy::disallowed_methods, reason = "this is the place that syncs the folder")]
        std::fs::rename(&self.next_state_path, &self.state_path)?;
        kill_point!("state_renamed");
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        error_point!("disk_sync_folder");
        nix::unistd::fsync(self.folder.as_fd())?;
        Ok(())
    }
}

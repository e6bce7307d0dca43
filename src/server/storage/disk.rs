//! The disk: the few things that the storage service does to its files, as a trait, so that a test can take the disk's
//! place and stop at any of them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use thiserror::Error;

use crate::failpoint::{error_point, kill_point};

/// The bets file and the state file beside it.
pub trait Disk {
    /// Writes at the end of the bets file. After an error, any part of it may have been written.
    ///
    /// # Errors
    /// What the system says.
    fn append(&mut self, rows: &[u8]) -> io::Result<()>;

    /// Makes what was appended last through a loss of power: `fdatasync(2)`.
    ///
    /// # Errors
    /// What the system says. Whether anything was made to last is then not known.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the bets file to a length in bytes, and makes that last.
    ///
    /// # Errors
    /// What the system says.
    fn cut(&mut self, length: u64) -> io::Result<()>;

    /// Reads the bets file from that byte on; returns how many bytes were read, 0 at its end.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// The state file as it is; none if there is none.
    ///
    /// # Errors
    /// What the system says.
    fn read_state(&self) -> io::Result<Option<Vec<u8>>>;

    /// Writes the successor of the state file beside it, and makes it last.
    ///
    /// # Errors
    /// What the system says; the state file is as before.
    fn write_next_state(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Puts the successor in the state file's place: `rename(2)`.
    ///
    /// # Errors
    /// What the system says; the state file is as before.
    fn rename_next_state(&mut self) -> io::Result<()>;

    /// Makes the folder's entries last: `fsync(2)`.
    ///
    /// # Errors
    /// What the system says. Whether a rename will last is then not known.
    fn sync_folder(&mut self) -> io::Result<()>;
}

/// Real files.
#[derive(Debug)]
pub struct FileDisk {
    bets: File,
    folder: File,
    state_path: PathBuf,
    next_state_path: PathBuf,
}

/// Why the files can't be had.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The system says no.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it says.
        error: io::Error,
    },
    /// There is a state file, but no bets.
    #[error(
        "it is not there, but its state file is; restore it, or move the state file away too for a new contest"
    )]
    BetsMissing,
    /// It is something else than a file.
    #[error("STORAGE_FILEPATH must be a regular file")]
    NotAFile,
    /// Another server has it.
    #[error(
        "in use by process {holder}, a server's storage service; stop that server, its parent, or give this one another STORAGE_FILEPATH"
    )]
    Locked {
        /// The process that has it, as seen from here; 0 if it is in another container.
        holder: i32,
    },
}

/// How long a lock is waited for: the storage of a server that was just killed may still be going.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

impl FileDisk {
    /// Opens the bets file, makes it if it is not there, and locks it against other servers for as long as this
    /// process lives.
    ///
    /// # Errors
    /// It can't be had.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| OpenError::Io { path, error }
        };
        let folder_path = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let folder = File::open(folder_path).map_err(failed(folder_path))?;
        // Each start makes the bets file before anything can end, so it was lost.
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
        // A kill may have left it; its END was not acknowledged.
        match std::fs::remove_file(&next_state_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&next_state_path)(error));
            }
            _ => {}
        }
        folder.sync_all().map_err(failed(folder_path))?;
        Ok(Self { bets, folder, state_path, next_state_path })
    }
}

/// Reads a file from an offset on; returns how many bytes were read, 0 at its end.
///
/// # Errors
/// What the system says, but not that a signal came.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// What stands in that state file; none if there is none.
///
/// # Errors
/// What the system says, or it is something else than a file.
pub fn read_state_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // Of a pipe that nobody writes to, the opening would not end.
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

/// Where the state file of that bets file stands.
#[must_use]
pub fn state_path(bets: &Path) -> PathBuf {
    beside(bets, ".state")
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Takes the lock, a record lock of `fcntl(2)`: it is this process's alone, and goes when the process does.
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
        self.bets.set_len(length)?;
        self.bets.sync_all()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        read_at(&self.bets, buffer, offset)
    }

    fn read_state(&self) -> io::Result<Option<Vec<u8>>> {
        read_state_file(&self.state_path)
    }

    fn write_next_state(&mut self, bytes: &[u8]) -> io::Result<()> {
        error_point!("disk_write_state");
        let mut file = File::create(&self.next_state_path)?;
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

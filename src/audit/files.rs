//! The files of a contest, opened for reading.

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::logging::one_line;
use crate::lottery::seal::{Hasher, HashingReader};
use crate::lottery::{AgencyId, Draw};
use crate::server::storage::paths::{folder_of, open_to_read, read_state_file, resolve, state_path};
use crate::server::storage::row_reader::RowReader;
use crate::server::storage::state_file::{State, StateError};

#[derive(Debug, Error)]
pub(crate) enum AuditError {
    #[error("{}: {error}", .path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{}: not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// `of` says where the number of agencies comes from.
    #[error("there is no agency {agency}: the agencies are 1 to {agencies}, says {of}")]
    NoAgency { agency: AgencyId, agencies: u16, of: String },
    #[error("{}: {error}", .path.display())]
    Output { path: PathBuf, error: io::Error },
    /// Nobody reads the output any more, or the disk is full.
    #[error("can't write: {0}")]
    Write(#[from] io::Error),
}

/// The bets file, open, and what the state file said just before.
#[derive(Debug)]
pub(crate) struct Files {
    pub(super) path: PathBuf,
    state_path: PathBuf,
    bets: File,
    /// `Ok(None)` if there is no state file.
    pub(super) state: Result<Option<State>, StateError>,
}

impl Files {
    /// Opens the bets file, and reads the state file beside it if there is one. The state comes first: bets are only
    /// appended, so the bets are at least as new as the state.
    pub(crate) fn open(path: &Path) -> Result<Self, AuditError> {
        let state_path = state_path(&resolve(path));
        let state = read_state_file(&state_path)
            .map_err(|error| AuditError::Read { path: state_path.clone(), error })?
            .map(|bytes| State::decode(&bytes))
            .transpose();
        let path = path.to_owned();
        let opened = open_to_read(&path).and_then(|bets| Ok((bets.metadata()?.is_file(), bets)));
        match opened {
            Ok((true, bets)) => Ok(Self { path, state_path, bets, state }),
            Ok((false, _)) => Err(AuditError::NotAFile(path)),
            Err(error) => Err(AuditError::Read { path, error }),
        }
    }

    /// Whether a path leads to one of the files. There may be no state file yet.
    pub(super) fn has(&self, path: &Path) -> io::Result<bool> {
        let identity = |data: Metadata| (data.dev(), data.ino());
        let bets = identity(self.bets.metadata()?);
        let is_bets = fs::metadata(path).is_ok_and(|data| identity(data) == bets);
        // Many paths lead to one folder: over `..`, links and mounts.
        let place =
            |file: &Path| Some((identity(fs::metadata(folder_of(file)).ok()?), file.file_name()?.to_owned()));
        Ok(is_bets || place(&resolve(path)) == place(&self.state_path))
    }

    /// The path of the bets file, for people.
    pub(super) fn name(&self) -> String {
        one_line(&self.path.display())
    }

    pub(super) fn state_name(&self) -> String {
        one_line(&self.state_path.display())
    }

    pub(super) fn draw(&self) -> Option<&Draw> {
        self.state.as_ref().ok()?.as_ref()?.draw.as_ref()
    }

    /// Can be called once: the file is read through to its end.
    pub(super) fn rows(&self) -> RowReader<HashingReader<&File>> {
        RowReader::new(HashingReader { inner: &self.bets, hasher: Hasher::default() })
    }

    /// The length of the bets file, in bytes.
    pub(super) fn length(&self) -> Result<u64, AuditError> {
        Ok(self.bets.metadata().map_err(|error| self.unreadable(error))?.len())
    }

    pub(super) fn unreadable(&self, error: io::Error) -> AuditError {
        AuditError::Read { path: self.path.clone(), error }
    }
}

/// A file that takes the place of the one before when it is complete. A pipe or a device is written to directly.
pub(super) struct NewFile {
    pub(super) out: BufWriter<File>,
    /// The path to write to until then, and the path for good.
    paths: Option<(PathBuf, PathBuf)>,
}

impl NewFile {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        if fs::metadata(path).is_ok_and(|data| !data.is_file()) {
            let out = BufWriter::new(File::options().write(true).open(path)?);
            return Ok(Self { out, paths: None });
        }
        let path = resolve(path);
        let mut part = path.clone().into_os_string();
        part.push(format!(".{}.part", std::process::id()));
        let part = PathBuf::from(part);
        let file = Self { out: BufWriter::new(File::create_new(&part)?), paths: Some((part, path.clone())) };
        // It stays as private as the one before.
        if let Ok(before) = fs::metadata(&path) {
            file.out.get_ref().set_permissions(before.permissions())?;
        }
        Ok(file)
    }

    #[expect(clippy::disallowed_methods, reason = "after a loss of power the list can be made again")]
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.out.flush()?;
        if let Some((part, path)) = &self.paths {
            fs::rename(part, path)?;
            self.paths = None;
        }
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some((part, _)) = &self.paths {
            fs::remove_file(part).unwrap_or_default();
        }
    }
}

//! The files of a contest, opened for reading.

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressBarIter, ProgressStyle};
use thiserror::Error;

use crate::logging::one_line;
use crate::lottery::seal::{Hasher, HashingReader};
use crate::lottery::{AgencyId, Draw};
use crate::server::storage::paths::{beside, folder_of, open_to_read, read_state_file, resolve, state_path};
use crate::server::storage::row_reader::RowReader;
use crate::server::storage::state_file::{State, StateError};

#[derive(Debug, Error)]
pub(crate) enum AuditError {
    #[error("{}: {error}", .path.display())]
    File { path: PathBuf, error: io::Error },
    /// `of` says where the number of agencies comes from.
    #[error("there is no agency {agency}: the agencies are 1 to {agencies}, says {of}")]
    NoAgency { agency: AgencyId, agencies: u16, of: String },
    /// Nobody reads the output any more, or the disk is full.
    #[error("can't write: {0}")]
    Write(#[from] io::Error),
}

impl AuditError {
    /// Makes an error of this file from an error without a path.
    pub(super) fn of(path: &Path) -> impl Fn(io::Error) -> Self {
        move |error| Self::File { path: path.to_owned(), error }
    }
}

/// The bets file, open, and what the state file said just before.
#[derive(Debug)]
pub(crate) struct Files {
    pub(super) path: PathBuf,
    state_path: PathBuf,
    /// The paths for people.
    pub(super) name: String,
    pub(super) state_name: String,
    bets: File,
    /// What was known of `bets` when it was opened.
    metadata: Metadata,
    /// `Ok(None)` if there is no state file.
    pub(super) state: Result<Option<State>, StateError>,
}

impl Files {
    /// Opens the bets file, and reads the state file beside it if there is one. The state comes first: bets are only
    /// appended, so the bets are at least as new as the state.
    pub(crate) fn open(path: &Path) -> Result<Self, AuditError> {
        let state_path = state_path(&resolve(path));
        let state = read_state_file(&state_path).map_err(AuditError::of(&state_path))?;
        let state = state.map(|bytes| State::decode(&bytes)).transpose();
        let bets = open_to_read(path).map_err(AuditError::of(path))?;
        let metadata = bets.metadata().map_err(AuditError::of(path))?;
        if !metadata.is_file() {
            return Err(AuditError::of(path)(io::Error::other("not a regular file")));
        }
        let (name, state_name) = (one_line(&path.display()), one_line(&state_path.display()));
        Ok(Self { path: path.to_owned(), state_path, name, state_name, bets, metadata, state })
    }

    /// Returns whether a path leads to one of the files. There may be no state file yet.
    pub(super) fn has(&self, path: &Path) -> bool {
        let identity = |data: &Metadata| (data.dev(), data.ino());
        let is_bets = fs::metadata(path).is_ok_and(|data| identity(&data) == identity(&self.metadata));
        // Many paths lead to one folder: over `..`, links and mounts.
        let place = |file: &Path| {
            Some((identity(&fs::metadata(folder_of(file)).ok()?), file.file_name()?.to_owned()))
        };
        is_bets || place(&resolve(path)) == place(&self.state_path)
    }

    pub(super) fn draw(&self) -> Option<&Draw> {
        self.state.as_ref().ok()?.as_ref()?.draw.as_ref()
    }

    /// Reads the rows, and moves the bar. This works once: then the file is at its end.
    pub(super) fn rows(&self, bar: &ProgressBar) -> RowReader<HashingReader<ProgressBarIter<&File>>> {
        RowReader::new(HashingReader { inner: bar.wrap_read(&self.bets), hasher: Hasher::default() })
    }

    /// Makes a bar that shows on a terminal how much has been read.
    pub(super) fn bar(&self) -> ProgressBar {
        let style = ProgressStyle::with_template("{wide_bar} {bytes} of {total_bytes}, {elapsed}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(self.metadata.len()).with_style(style)
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
        let before = fs::metadata(path).ok();
        if before.as_ref().is_some_and(|before| !before.is_file()) {
            let out = BufWriter::new(File::options().write(true).open(path)?);
            return Ok(Self { out, paths: None });
        }
        let path = resolve(path);
        let part = beside(&path, &format!(".{}.part", std::process::id()));
        let file = Self { out: BufWriter::new(File::create_new(&part)?), paths: Some((part, path)) };
        // It stays as private as the one before.
        if let Some(before) = before {
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

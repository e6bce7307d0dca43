//! The files of a contest, opened for reading.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::AuditError;
use crate::lottery::Draw;
use crate::server::storage::disk::{read_state_file, state_path};
use crate::server::storage::row_reader::RowReader;
use crate::server::storage::state_file::{State, StateError};

/// The bets file, open, and what the state file said just before.
#[derive(Debug)]
pub(crate) struct Files {
    pub(super) path: PathBuf,
    pub(super) state_path: PathBuf,
    bets: File,
    /// `Ok(None)` if there is no state file.
    pub(super) state: Result<Option<State>, StateError>,
}

impl Files {
    /// Opens the bets file, and reads the state file beside it if there is one.
    pub(crate) fn open(path: &Path) -> Result<Self, AuditError> {
        let state_path = state_path(path);
        let state = read_state_file(&state_path)
            .map_err(|error| AuditError::Read { path: state_path.clone(), error })?
            .map(|bytes| State::decode(&bytes))
            .transpose();
        let unreadable = |error| AuditError::Read { path: path.to_owned(), error };
        let bets = File::open(path).map_err(unreadable)?;
        if !bets.metadata().map_err(unreadable)?.is_file() {
            return Err(AuditError::NotAFile(path.to_owned()));
        }
        Ok(Self { path: path.to_owned(), state_path, bets, state })
    }

    pub(super) fn draw(&self) -> Option<&Draw> {
        self.state.as_ref().ok()?.as_ref()?.draw.as_ref()
    }

    /// Can be called once: the file is read through to its end.
    pub(super) fn rows(&self) -> RowReader<&File> {
        RowReader::new(&self.bets)
    }

    /// The length of the bets file, in bytes.
    pub(super) fn length(&self) -> Result<u64, AuditError> {
        Ok(self.bets.metadata().map_err(|error| self.unreadable(error))?.len())
    }

    pub(super) fn unreadable(&self, error: io::Error) -> AuditError {
        AuditError::Read { path: self.path.clone(), error }
    }
}

//! The files of a contest, opened to be read.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::AuditError;
use crate::lottery::Draw;
use crate::server::storage::disk::{read_at, read_state_file, state_path};
use crate::server::storage::row_reader::RowReader;
use crate::server::storage::state_file::{State, StateError};

/// The bets file, open, and what the state file said just before.
#[derive(Debug)]
pub struct Files {
    /// Where the bets are.
    pub path: PathBuf,
    /// Where the state is.
    pub state_path: PathBuf,
    /// The bets.
    pub bets: File,
    /// The state; none if there is no such file.
    pub state: Result<Option<State>, StateError>,
}

impl Files {
    /// Opens them.
    ///
    /// # Errors
    /// One of them can't be read. There need not be a state file.
    pub fn open(path: &Path) -> Result<Self, AuditError> {
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

    /// The state, if there is one that can be used.
    #[must_use]
    pub fn good_state(&self) -> Option<&State> {
        self.state.as_ref().ok().and_then(Option::as_ref)
    }

    /// The draw that the state file tells of.
    #[must_use]
    pub fn draw(&self) -> Option<&Draw> {
        self.good_state().and_then(|state| state.draw.as_ref())
    }

    /// The rows of the bets file.
    #[must_use]
    pub fn rows(&self) -> RowReader<impl Fn(&mut [u8], u64) -> io::Result<usize>> {
        RowReader::new(|buffer, offset| read_at(&self.bets, buffer, offset))
    }

    /// How long the bets file is, in bytes.
    ///
    /// # Errors
    /// The system does not say.
    pub fn length(&self) -> Result<u64, AuditError> {
        Ok(self.bets.metadata().map_err(|error| self.unreadable(error))?.len())
    }

    /// An error of reading the bets.
    #[must_use]
    pub fn unreadable(&self, error: io::Error) -> AuditError {
        AuditError::Read { path: self.path.clone(), error }
    }
}

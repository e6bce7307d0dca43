//! The disk: everything that the storage service does to its files. It is a trait, so that tests can use a simulated
//! disk, which fails or stops at any call.

use std::io::{self, Read};

use thiserror::Error;

/// The bets file and the state file beside it. "Durable" means: it survives a loss of power.
#[expect(clippy::missing_errors_doc, reason = "an error is what the system says")]
pub trait Disk {
    /// Checks that the path of the bets file still names the file that is open, and that it has this length in bytes.
    fn check(&self, length: u64) -> Result<(), FileChanged>;

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

/// The bets file is not as storage left it.
#[derive(Debug, Error)]
pub enum FileChanged {
    /// It is whole, but elsewhere.
    #[error("it was moved, removed or replaced")]
    Moved,
    /// In bytes.
    #[error("it has {found} bytes instead of {expected}, so another program has cut it or written to it")]
    Length {
        /// The length that it has.
        found: u64,
        /// The length that storage gave it.
        expected: u64,
    },
    /// It can't be looked at.
    #[error("{0}")]
    Io(#[from] io::Error),
}

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

    /// Returns the bets file, to be read from its beginning.
    fn bets(&self) -> io::Result<impl Read>;

    /// Reads the state file, if there is one.
    fn read_state(&self) -> io::Result<Option<Vec<u8>>>;

    /// Replaces the state file by one that is durable itself; [`Self::sync_folder`] makes the replacement durable. After an
    /// error, the state file is as before.
    fn replace_state(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes replacements durable: `fsync(2)` of the folder. After an error, it is not known whether they are.
    fn sync_folder(&mut self) -> io::Result<()>;
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

//! Why a demo fails.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::audit::{AuditError, Count};
use crate::lottery::AgencyId;
use crate::sample::SampleError;

#[derive(Debug, Error)]
pub(crate) enum DemoError {
    #[error("{} holds a bets.csv already: give another --dir", .0.display())]
    FolderInUse(PathBuf),
    #[error("{}: {error}", .path.display())]
    File { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Sample(#[from] SampleError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("interrupted")]
    Interrupted,
    /// A process failed. The last line of its log is in the text.
    #[error("{0}")]
    Process(String),
    #[error(
        "agency {agency} has a file of {bets} bets; bets.csv has {counted}; the agency reports {reported}"
    )]
    Disagreement { agency: AgencyId, bets: u64, counted: Count, reported: Count },
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("{} has errors; `loteria check --file FILE` lists them", .0.display())]
    BadFile(PathBuf),
}

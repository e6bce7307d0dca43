//! Why a demo fails.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use thiserror::Error;

use crate::audit::{AuditError, Count};
use crate::lottery::AgencyId;
use crate::sample::SampleError;
use crate::status::StatusError;

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
    #[error("the server ended ({status}): {last_line}")]
    ServerEnded { status: ExitStatus, last_line: String },
    #[error("the server does not listen: {last_line}")]
    NotListening { last_line: String },
    #[error("the server does not end: {last_line}")]
    NotEnding { last_line: String },
    #[error("the server gave no status: {0}")]
    Status(#[from] StatusError),
    #[error("agency {agency} ended ({status}): {last_line}")]
    AgencyEnded { agency: AgencyId, status: ExitStatus, last_line: String },
    #[error("the log of agency {0} does not say which bets are stored, or how many won")]
    NoResult(AgencyId),
    #[error(
        "agency {agency} has a file of {bets} bets; bets.csv has {counted}; the agency reports {reported}"
    )]
    Disagreement { agency: AgencyId, bets: u64, counted: Count, reported: Count },
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("{} has errors; `loteria check --file FILE` lists them", .0.display())]
    BadFile(PathBuf),
}

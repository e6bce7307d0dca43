//! The rows of the table, in groups that share their rounds.

mod await_result;
mod classic;
mod growth;
mod memory;
mod postgres;
mod sessions;
mod start;
mod thousand;
mod tls;

use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use tempfile::TempDir;

use crate::load::stream::write_file;
use crate::progress::Progress;
use crate::report::Row;

/// The number of agencies, unless a row says otherwise.
const AGENCIES: u16 = 5;

/// Rows that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// Bets over sessions, from the load generator and from agencies
    Sessions,
    /// Bets over a connection for each batch
    Classic,
    /// Time from the last END to the results
    Await,
    /// Start on existing bets
    Start,
    /// Memory of the processes
    Memory,
    /// A thousand sessions at once
    Thousand,
    /// Growth of the time of a bet with bets and sessions
    Growth,
    /// TLS against plain connections
    Tls,
    /// PostgreSQL, if it is installed, against sessions
    Postgres,
}

impl Group {
    /// In the order of the table.
    pub const ALL: [Self; 9] = [
        Self::Sessions,
        Self::Classic,
        Self::Await,
        Self::Start,
        Self::Memory,
        Self::Thousand,
        Self::Growth,
        Self::Tls,
        Self::Postgres,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Classic => "classic",
            Self::Await => "await",
            Self::Start => "start",
            Self::Memory => "memory",
            Self::Thousand => "thousand",
            Self::Growth => "growth",
            Self::Tls => "tls",
            Self::Postgres => "postgres",
        }
    }

    /// Measures it.
    pub fn run(self, bench: &Bench) -> io::Result<Vec<Row>> {
        match self {
            Self::Sessions => sessions::run(bench),
            Self::Classic => classic::run(bench),
            Self::Await => await_result::run(bench),
            Self::Start => start::run(bench),
            Self::Memory => memory::run(bench),
            Self::Thousand => thousand::run(bench),
            Self::Growth => growth::run(bench),
            Self::Tls => tls::run(bench),
            Self::Postgres => postgres::run(bench),
        }
    }
}

/// The size of the measurement.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    is_quick: bool,
    rounds: usize,
    /// Rounds of rows that are short and vary much.
    short_rounds: usize,
    /// Bets of each agency.
    session_bets: u64,
    classic_bets: u64,
    /// Existing bets, for rows that compare few with many.
    bets_before: [u64; 2],
}

impl Size {
    /// The size for which the targets hold.
    pub const FULL: Self = Self {
        is_quick: false,
        rounds: 7,
        short_rounds: 15,
        session_bets: 200_000,
        classic_bets: 40_000,
        bets_before: [1_000_000, 10_000_000],
    };
    /// A quick overview.
    pub const QUICK: Self = Self {
        is_quick: true,
        rounds: 3,
        short_rounds: 5,
        session_bets: 50_000,
        classic_bets: 10_000,
        bets_before: [100_000, 1_000_000],
    };

    /// One line that describes the size.
    pub fn describe(self) -> String {
        let Self { rounds, session_bets, classic_bets, .. } = self;
        let note = if self.is_quick { "; quick, so nothing at 10,000,000 bets" } else { "" };
        format!("rounds: {rounds}, sessions: 5 x {session_bets} bets, classic: 5 x {classic_bets} bets{note}")
    }
}

/// What every group needs.
#[derive(Debug)]
pub struct Bench {
    folder: PathBuf,
    size: Size,
    /// The display of the progress.
    pub progress: Progress,
}

impl Bench {
    /// Keeps all files in `folder`.
    pub fn new(folder: &Path, size: Size) -> Self {
        Self { folder: folder.to_owned(), size, progress: Progress::new() }
    }

    /// An empty folder for one run.
    fn empty_folder(&self) -> io::Result<TempDir> {
        tempfile::tempdir_in(&self.folder)
    }

    /// A folder with existing bets, so many of each agency; created at the first call.
    fn folder_with(&self, agencies: u16, bets_each: u64) -> io::Result<Prepared> {
        let folder = self.folder.join(format!("{agencies}-x-{bets_each}"));
        let bets = folder.join("bets.csv");
        if !folder.exists() {
            self.progress.run(&format!("writing {} bets", u64::from(agencies) * bets_each));
            fs::create_dir(&folder)?;
            write_file(&bets, agencies, bets_each)?;
        }
        Ok(Prepared { bytes: fs::metadata(bets)?.len(), folder })
    }

    /// Runs one contestant and shows it in the progress.
    fn turn<T>(&self, what: &str, run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.progress.run(what);
        let result = run();
        self.progress.done();
        result
    }
}

/// A folder with bets for one run. Dropping it removes what the run added.
#[derive(Debug)]
struct Prepared {
    folder: PathBuf,
    bytes: u64,
}

impl Deref for Prepared {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        let bets = File::options().write(true).open(self.folder.join("bets.csv"));
        let cut = bets.and_then(|bets| bets.set_len(self.bytes).and_then(|()| bets.sync_all()));
        // If this fails, the next run reports the unexpected bets.
        cut.ok();
        fs::remove_file(self.folder.join("bets.csv.state")).ok();
    }
}

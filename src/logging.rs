//! The log: one line per event, on standard error.
//!
//! ```text
//! YYYY-MM-DD HH:MM:SS LEVEL    action: NAME | result: success|fail|in_progress | key: value | ...
//! ```
//!
//! The tools that read it take each line apart at every `|` and each field at its first `:`. So whatever is in a
//! value, a line stays one line and a field one field: `|`, control characters and line separators are escaped.
//!
//! Or one JSON object per event, with the same keys and `time` and `level` before them: see [`Format`].

mod line;

use std::fmt::{self, Display};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};

use chrono::{FixedOffset, Local, Utc};
use nix::poll::{PollFd, PollFlags, poll};

use line::line;
pub use line::{Format, one_line};

/// How much an event matters. The names are those of Python's `logging`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// For whoever looks for a fault: a line per batch.
    Debug,
    /// The story of the contest.
    Info,
    /// Something to look at; the server goes on as it should.
    Warning,
    /// Something went wrong, and somebody was refused for it.
    Error,
    /// The process ends for it.
    Critical,
}

/// All levels, from the most talkative on.
pub const LEVELS: [Level; 5] = [Level::Debug, Level::Info, Level::Warning, Level::Error, Level::Critical];

impl Level {
    /// The level's name in the log and in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        }
    }

    /// The level of that name, in any case. `WARN` (Python) and `NOTICE` (Go) mean WARNING: no line has a level between INFO
    /// and WARNING.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match &*name.to_ascii_uppercase() {
            "WARN" | "NOTICE" => Some(Self::Warning),
            name => LEVELS.into_iter().find(|level| level.name() == name),
        }
    }
}

/// How an action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Success,
    /// It was not done.
    Fail,
    /// It is not done yet.
    InProgress,
}

impl Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "success",
            Self::Fail => "fail",
            Self::InProgress => "in_progress",
        })
    }
}

/// One field of an event: its key and its value. A key is a word, and none of `time`, `level`, `action`, `result` and
/// `source`.
pub type Field<'a> = (&'a str, &'a dyn Display);

/// The environment variable that tells the form of the lines, for all processes of this program alike.
pub const LOG_FORMAT: &str = "LOG_FORMAT";

static THRESHOLD: AtomicU8 = AtomicU8::new(Level::Info as u8);
/// The offset of local time that this process stays at, in seconds.
static OFFSET: AtomicI32 = AtomicI32::new(UNKNOWN);
const UNKNOWN: i32 = i32::MIN;
static IS_JSON: AtomicBool = AtomicBool::new(false);
static BETWEEN: OnceLock<Box<Between>> = OnceLock::new();

/// Starts the log of this process, at level INFO, and makes a panic one line of it. To be called once, before the
/// first event; children that are forked go on with it. Its form is the environment's, as nothing else is known yet.
pub fn start() {
    if let Some(format) = std::env::var(LOG_FORMAT).ok().and_then(|name| Format::from_name(&name)) {
        set_format(format);
    }
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Off)
        .filter_module(module_path!(), log::LevelFilter::Debug)
        .write_style(env_logger::WriteStyle::Never)
        .format(|out, record| {
            let now = FixedOffset::east_opt(OFFSET.load(Ordering::Relaxed))
                .map_or_else(|| Local::now().fixed_offset(), |offset| Utc::now().with_timezone(&offset));
            match format() {
                Format::Text => writeln!(out, "{} {}", now.format("%Y-%m-%d %H:%M:%S"), record.args()),
                Format::Json => {
                    writeln!(out, "{{\"time\":\"{}\",{}", now.format("%Y-%m-%dT%H:%M:%S%:z"), record.args())
                }
            }
        })
        .init();
    log::set_max_level(log::LevelFilter::Debug);
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        let text = panic.payload_as_str().unwrap_or("a panic without a text");
        event(Level::Critical, "panic", Outcome::Fail, &[("place", &place), ("error", &text)]);
    }));
}

/// Lets only events of that level and above through, from now on.
pub fn set_level(level: Level) {
    THRESHOLD.store(level as u8, Ordering::Relaxed);
}

/// Writes lines of that form, from now on.
pub fn set_format(format: Format) {
    IS_JSON.store(format == Format::Json, Ordering::Relaxed);
}

fn format() -> Format {
    if IS_JSON.load(Ordering::Relaxed) { Format::Json } else { Format::Text }
}

/// The present offset of local time.
#[must_use]
pub fn local_offset() -> FixedOffset {
    *Local::now().offset()
}

/// Keeps this process at an offset of local time. For a process that is about to lose the right to open files, the one
/// with the time zone included.
pub fn freeze_offset(offset: FixedOffset) {
    OFFSET.store(offset.local_minus_utc(), Ordering::Relaxed);
}

/// Writes one event.
pub fn event(level: Level, action: &str, outcome: Outcome, fields: &[Field<'_>]) {
    if (level as u8) < THRESHOLD.load(Ordering::Relaxed) {
        return;
    }
    let severity = match level {
        Level::Debug => log::Level::Debug,
        Level::Info => log::Level::Info,
        Level::Warning => log::Level::Warn,
        Level::Error | Level::Critical => log::Level::Error,
    };
    let mut write = || {
        if reader_takes_lines() {
            log::log!(severity, "{}", line(format(), level, action, outcome, fields));
        }
    };
    match BETWEEN.get() {
        Some(between) => between(&mut write),
        None => write(),
    }
}

/// Something that has to stop for a moment so that a line can be written: it calls what it is given once.
pub type Between = dyn Fn(&mut dyn FnMut()) + Send + Sync;

/// Has every line written from within `between`: what else is drawn on the same terminal steps aside for it. Only the
/// first call counts.
pub fn write_between(between: Box<Between>) {
    BETWEEN.get_or_init(|| between);
}

/// How long a line waits for a log that is not read, before it is left out.
const READER_PATIENCE: u8 = 100;

/// Whether a line can be written without waiting for ever: who reads a pipe may have stopped, and the server has to go on,
/// and to end when it is told to.
fn reader_takes_lines() -> bool {
    let error = std::io::stderr();
    let mut output = [PollFd::new(error.as_fd(), PollFlags::POLLOUT)];
    // A confined handler can't poll, and simply writes; it is killed if it does not end.
    poll(&mut output, READER_PATIENCE) != Ok(0)
}

/// An event of level INFO.
pub fn info(action: &str, outcome: Outcome, fields: &[Field<'_>]) {
    event(Level::Info, action, outcome, fields);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_the_names_of_python() {
        assert_eq!(Level::from_name("warning"), Some(Level::Warning));
        assert_eq!(Level::from_name("Notice"), Some(Level::Warning));
        assert_eq!(Level::from_name("LOUD"), None);
        assert!(Level::Critical > Level::Error);
    }
}

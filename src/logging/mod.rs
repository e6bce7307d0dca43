//! The log: one line per event, on standard error.
//!
//! ```text
//! YYYY-MM-DD HH:MM:SS LEVEL    action: NAME | result: success|fail|in_progress | key: value | ...
//! ```
//!
//! Its readers split a line at every `|` and a field at its first `:`. So in a value `|`, control characters and line
//! separators are escaped. With [`Format::Json`] a line is a JSON object with the same keys, behind `time` and `level`.

mod line;

use std::fmt::{self, Display};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};

use chrono::{FixedOffset, Local, Utc};
use nix::poll::{PollFd, PollFlags, poll};

use line::line;
pub(crate) use line::{Format, one_line};

/// The severity of an event. The names are those of Python's `logging`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Details, such as a line per batch.
    Debug,
    /// The story of the contest.
    Info,
    /// An operator should look at it; the server goes on.
    Warning,
    /// Something failed, and a client was refused because of it.
    Error,
    /// The process ends because of it.
    Critical,
}

/// All levels, least severe first.
pub(crate) const LEVELS: [Level; 5] =
    [Level::Debug, Level::Info, Level::Warning, Level::Error, Level::Critical];

impl Level {
    pub(crate) fn name(self) -> &'static str {
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
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match &*name.to_ascii_uppercase() {
            "WARN" | "NOTICE" => Some(Self::Warning),
            name => LEVELS.into_iter().find(|level| level.name() == name),
        }
    }
}

/// The `result` of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Fail,
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

/// A field of an event: key and value. A key is one word, but not `time`, `level`, `action`, `result` or `source`.
pub(crate) type Field<'a> = (&'a str, &'a dyn Display);

/// The environment variable that selects the format, for all commands.
pub(crate) const LOG_FORMAT: &str = "LOG_FORMAT";

static THRESHOLD: AtomicU8 = AtomicU8::new(Level::Info as u8);
/// The frozen offset of local time in seconds. No real offset is `NOT_FROZEN`.
static OFFSET: AtomicI32 = AtomicI32::new(NOT_FROZEN);
const NOT_FROZEN: i32 = i32::MIN;
static IS_JSON: AtomicBool = AtomicBool::new(false);
static WRAPPER: OnceLock<Box<Wrapper>> = OnceLock::new();

/// Start the log at level INFO, and log panics. Call this once, before the first event. Forked children inherit it. The
/// format comes from the environment until the configuration has been read.
pub(crate) fn start() {
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

pub(crate) fn set_level(level: Level) {
    THRESHOLD.store(level as u8, Ordering::Relaxed);
}

pub(crate) fn set_format(format: Format) {
    IS_JSON.store(format == Format::Json, Ordering::Relaxed);
}

fn format() -> Format {
    if IS_JSON.load(Ordering::Relaxed) { Format::Json } else { Format::Text }
}
pub(crate) fn local_offset() -> FixedOffset {
    *Local::now().offset()
}

/// Use this offset of local time from now on. For a process that is about to lose access to the time zone's file.
pub(crate) fn freeze_offset(offset: FixedOffset) {
    OFFSET.store(offset.local_minus_utc(), Ordering::Relaxed);
}

/// Write one event.
pub(crate) fn event(level: Level, action: &str, outcome: Outcome, fields: &[Field<'_>]) {
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
    match WRAPPER.get() {
        Some(wrapper) => wrapper(&mut write),
        None => write(),
    }
}

/// Calls its argument once, which writes a line.
pub(crate) type Wrapper = dyn Fn(&mut dyn FnMut()) + Send + Sync;

/// Write every line from within `wrapper`, which can hide a progress bar meanwhile. Only the first call has an effect.
pub(crate) fn write_through(wrapper: Box<Wrapper>) {
    WRAPPER.get_or_init(|| wrapper);
}

/// How long to wait for the reader of a full pipe before a line is dropped, in milliseconds.
const READER_PATIENCE: u8 = 100;

/// Whether standard error takes a line in time. The reader of a pipe may have stopped, and must not stop the server.
fn reader_takes_lines() -> bool {
    let error = std::io::stderr();
    let mut output = [PollFd::new(error.as_fd(), PollFlags::POLLOUT)];
    // A confined handler may not poll, and simply writes. If it blocks, the acceptor kills it at the end.
    poll(&mut output, READER_PATIENCE) != Ok(0)
}

/// Write an event of level INFO.
pub(crate) fn info(action: &str, outcome: Outcome, fields: &[Field<'_>]) {
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

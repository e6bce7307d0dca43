//! The log: one line per event, on standard error.
//!
//! ```text
//! YYYY-MM-DD HH:MM:SS LEVEL    action: NAME | result: success|fail|in_progress | key: value | ...
//! ```
//!
//! The tools that read it take each line apart at every `|` and each field at its first `:`. So whatever is in a
//! value, a line stays one line and a field one field: `|`, control characters and line separators are escaped.

use std::fmt::{self, Display, Write as _};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use chrono::{FixedOffset, Local, Utc};
use nix::poll::{PollFd, PollFlags, poll};

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

    /// The level of that name, whatever its case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        LEVELS.into_iter().find(|level| level.name().eq_ignore_ascii_case(name))
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

/// One field of an event: its key and its value. A key is a word, and none of `action`, `result` and `source`.
pub type Field<'a> = (&'a str, &'a dyn Display);

/// The longest value in bytes, escapes included. Four of them leave a line below 4,096 bytes, up to which one write
/// to a pipe is never torn by another process's.
const MAX_VALUE: usize = 900;
/// The longest line in bytes.
const MAX_LINE: usize = 4000;

static THRESHOLD: AtomicU8 = AtomicU8::new(Level::Info as u8);
static OFFSET: OnceLock<FixedOffset> = OnceLock::new();

/// Starts the log of this process, at level INFO, and makes a panic one line of it. To be called once, before the
/// first event; children that are forked go on with it.
pub fn start() {
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Off)
        .filter_module(module_path!(), log::LevelFilter::Debug)
        .write_style(env_logger::WriteStyle::Never)
        .format(|out, record| {
            let now = OFFSET
                .get()
                .map_or_else(|| Local::now().fixed_offset(), |offset| Utc::now().with_timezone(offset));
            writeln!(out, "{} {}", now.format("%Y-%m-%d %H:%M:%S"), record.args())
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

/// Whether an event of that level would be written: for callers that have to work for its values.
#[must_use]
pub fn enabled(level: Level) -> bool {
    level as u8 >= THRESHOLD.load(Ordering::Relaxed)
}

/// The present offset of local time.
#[must_use]
pub fn local_offset() -> FixedOffset {
    *Local::now().offset()
}

/// Keeps this process at an offset of local time. For a process that is about to lose the right to open files, the one
/// with the time zone included.
pub fn freeze_offset(offset: FixedOffset) {
    OFFSET.get_or_init(|| offset);
}

/// Writes one event.
pub fn event(level: Level, action: &str, outcome: Outcome, fields: &[Field<'_>]) {
    if !enabled(level) {
        return;
    }
    let severity = match level {
        Level::Debug => log::Level::Debug,
        Level::Info => log::Level::Info,
        Level::Warning => log::Level::Warn,
        Level::Error | Level::Critical => log::Level::Error,
    };
    if reader_takes_lines() {
        log::log!(severity, "{}", line(level, action, outcome, fields));
    }
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

fn line(level: Level, action: &str, outcome: Outcome, fields: &[Field<'_>]) -> String {
    let mut line = String::with_capacity(200);
    // Writing to a String cannot fail; a value whose own Display fails is cut there.
    write!(line, "{:<8} action: {action} | result: {outcome}", level.name()).unwrap_or_default();
    for (key, value) in fields {
        debug_assert!(
            !matches!(*key, "action" | "result" | "source"),
            "the log's readers keep {key} for themselves"
        );
        if line.len() + key.len() + MAX_VALUE + 10 > MAX_LINE {
            break;
        }
        write!(line, " | {key}: ").unwrap_or_default();
        let end = line.len() + MAX_VALUE;
        write!(Escaped { out: &mut line, end }, "{value}").unwrap_or_default();
    }
    line
}

/// A value as a line of the log has it: escaped, so that it can't break the line, and cut if it is long. For what others
/// show of it.
#[must_use]
pub fn one_line(value: &dyn Display) -> String {
    let mut text = String::new();
    // A value whose own Display fails is cut there.
    write!(Escaped { out: &mut text, end: MAX_VALUE }, "{value}").unwrap_or_default();
    text
}

/// Writes what cannot break a line or a field, up to a length.
struct Escaped<'a> {
    out: &'a mut String,
    end: usize,
}

/// The most bytes that one escaped character takes.
const LONGEST_ESCAPE: usize = 10;

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.out.len() + LONGEST_ESCAPE > self.end {
                self.out.push('…');
                return Err(fmt::Error);
            }
            match character {
                '|' => self.out.push_str("\\x7c"),
                '\u{2028}' | '\u{2029}' => write!(self.out, "\\u{{{:x}}}", u32::from(character))?,
                _ if character.is_control() => write!(self.out, "\\x{:02x}", u32::from(character))?,
                _ => self.out.push(character),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_level_action_result_and_fields() {
        let text =
            line(Level::Info, "apuesta_almacenada", Outcome::Success, &[("dni", &"1"), ("numero", &7)]);
        assert_eq!(text, "INFO     action: apuesta_almacenada | result: success | dni: 1 | numero: 7");
        assert!(
            line(Level::Critical, "x", Outcome::Fail, &[]).starts_with("CRITICAL action: x | result: fail")
        );
    }

    #[test]
    fn no_value_breaks_a_line_or_a_field() {
        let nasty = "a | action: b\n\r\u{1b}[31m\0\u{85}\u{2028}\u{7f}ñ";
        let text = line(Level::Info, "x", Outcome::InProgress, &[("k", &nasty)]);
        assert_eq!(
            text,
            "INFO     action: x | result: in_progress | k: a \\x7c action: b\\x0a\\x0d\\x1b[31m\\x00\\x85\\u{2028}\\x7fñ"
        );
    }

    #[test]
    fn a_line_stays_below_the_length_that_a_pipe_keeps_whole() {
        let long = "ñ|".repeat(100_000);
        let field: Field<'_> = ("a", &long);
        let text = line(Level::Info, "x", Outcome::Fail, &[field; 20]);
        assert!(text.len() < 4050, "{}", text.len());
    }

    #[test]
    fn levels_have_the_names_of_python() {
        assert_eq!(Level::from_name("warning"), Some(Level::Warning));
        assert_eq!(Level::from_name("WARN"), None);
        assert!(Level::Critical > Level::Error);
    }
}

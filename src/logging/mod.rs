//! The log: one line per event, on standard error.
//!
//! ```text
//! YYYY-MM-DD HH:MM:SS LEVEL    action: NAME | result: success|fail|in_progress | key: value | ...
//! ```
//!
//! Its readers split a line at every `|` and a field at its first `:`. So in a value `|`, control characters and line
//! separators are escaped. With [`Format::Json`] a line is a JSON object with the same keys, behind `time` and `level`.

mod line;
pub(crate) mod time_zone;

use std::cell::Cell;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;

use chrono::{DateTime, FixedOffset, Local, Utc};
use nix::poll::{PollFd, PollFlags, poll};

use line::line;
pub(crate) use line::{Field, Format, Level, Outcome, one_line};

/// The environment variable that selects the format, for all commands.
pub(crate) const LOG_FORMAT: &str = "LOG_FORMAT";

static THRESHOLD: AtomicU8 = AtomicU8::new(Level::Info as u8);
static IS_JSON: AtomicBool = AtomicBool::new(false);
static WRAPPER: OnceLock<Box<Wrapper>> = OnceLock::new();
// What a process sets after the fork. It is thread-local, because each process writes to that page anyway. `spawn` starts all
// other threads that log.
thread_local! {
    /// The offset of local time, once it is frozen.
    static OFFSET: Cell<Option<FixedOffset>> = const { Cell::new(None) };
    /// The field that ends every line.
    static TAG: Cell<Option<(&'static str, u32)>> = const { Cell::new(None) };
}

/// Starts the log at level INFO, and logs panics. Call this once, before the first event. Forked children inherit it. The
/// format comes from the environment until the configuration has been read.
pub(crate) fn start() {
    if let Some(format) = std::env::var(LOG_FORMAT).ok().and_then(|name| Format::from_name(&name)) {
        set_format(format);
    }
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Off)
        .filter_module(module_path!(), log::LevelFilter::Info)
        .write_style(env_logger::WriteStyle::Never)
        .format(|out, record| write!(out, "{}", record.args()))
        .init();
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

fn now() -> DateTime<FixedOffset> {
    OFFSET.get().map_or_else(|| Local::now().fixed_offset(), |offset| Utc::now().with_timezone(&offset))
}

/// Uses this offset of local time from now on. A process does this before it loses access to the time zone's file.
pub(crate) fn freeze_offset(offset: FixedOffset) {
    OFFSET.set(Some(offset));
}

/// Ends every line of this process with this field, so that the lines that belong together can be found. Only the first
/// call has an effect.
pub(crate) fn tag_lines(key: &'static str, value: u32) {
    TAG.set(TAG.get().or(Some((key, value))));
}

/// Starts a thread whose lines end as those of this one.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let tag = TAG.get();
    let body = move || {
        TAG.set(tag);
        body();
    };
    thread::Builder::new().name(name.to_owned()).spawn(body)?;
    Ok(())
}

/// Writes one event.
pub(crate) fn event(level: Level, action: &str, outcome: Outcome, fields: &[Field<'_>]) {
    if (level as u8) < THRESHOLD.load(Ordering::Relaxed) {
        return;
    }
    let tag = TAG.get().filter(|(tag, _)| fields.iter().all(|(key, _)| key != tag));
    let tag = tag.as_ref().map(|(key, value)| -> Field<'_> { (key, value) });
    let fields = &[fields, tag.as_slice()].concat();
    let mut write = || {
        if reader_takes_lines() {
            // The line holds its level; the level of env_logger's record is not used.
            log::info!("{}", line(format(), now(), level, action, outcome, fields));
        }
    };
    match WRAPPER.get() {
        Some(wrapper) => wrapper(&mut write),
        None => write(),
    }
}

/// Calls its argument once, which writes a line.
pub(crate) type Wrapper = dyn Fn(&mut dyn FnMut()) + Send + Sync;

/// Writes every line from within `wrapper`, which can hide a progress bar meanwhile. Only the first call has an effect.
pub(crate) fn write_through(wrapper: Box<Wrapper>) {
    WRAPPER.get_or_init(|| wrapper);
}

/// How long to wait for the reader of a full pipe before a line is dropped, in milliseconds.
const READER_PATIENCE: u8 = 100;

/// Whether standard error takes a line in time. The reader of a pipe may have stopped, and must not stop the server.
fn reader_takes_lines() -> bool {
    // If the poll fails, the line is written at once.
    poll(&mut [PollFd::new(io::stderr().as_fd(), PollFlags::POLLOUT)], READER_PATIENCE) != Ok(0)
}

/// Writes an event of level INFO.
pub(crate) fn info(action: &str, outcome: Outcome, fields: &[Field<'_>]) {
    event(Level::Info, action, outcome, fields);
}

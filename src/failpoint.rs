//! Failpoints: places at which a test kills or delays a process, or makes a system call fail. A release has none.
//!
//! `FAILPOINTS=bets_written=10*off->1*return;disk_sync=1*return(28)` kills the process that passes `bets_written` for the
//! eleventh time, and makes the first sync fail with error 28. A failpoint has steps, which follow each other: each
//! applies as often as it says, or for ever. After the last step nothing happens. A forked process goes on from its
//! parent's counts.

use std::io;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::libc::EIO;
use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;

static FAILPOINTS: LazyLock<Vec<(String, Vec<Step>)>> = LazyLock::new(|| {
    let text = std::env::var("FAILPOINTS").unwrap_or_default();
    let points = text.split(';').filter_map(|point| point.split_once('='));
    points.map(|(name, steps)| (name.to_owned(), steps.split("->").map(Step::parse).collect())).collect()
});

/// `COUNT*ACTION(ARGUMENT)`; count and argument may be missing.
struct Step {
    left: AtomicU64,
    action: String,
    argument: String,
}

impl Step {
    fn parse(step: &str) -> Self {
        let (count, action) = step.split_once('*').unwrap_or(("", step));
        let left = count.parse().unwrap_or(u64::MAX).into();
        let call = action.strip_suffix(')').and_then(|call| call.split_once('('));
        let (action, argument) = call.unwrap_or((action, ""));
        Self { left, action: action.to_owned(), argument: argument.to_owned() }
    }

    /// Whether it still applies; if so, counts that.
    fn applies(&self) -> bool {
        let count = |left: u64| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count).is_ok()
    }
}

/// Passes a failpoint. Returns the argument of `return`, which is empty if none was given.
#[expect(clippy::panic, reason = "a test asks for it, or has a mistake")]
fn pass(name: &str) -> Option<&'static str> {
    if !cfg!(debug_assertions) {
        return None;
    }
    let (_, steps) = FAILPOINTS.iter().find(|(point, _)| point == name)?;
    let Step { action, argument, .. } = steps.iter().find(|step| step.applies())?;
    match (&**action, argument.parse()) {
        ("off", _) => None,
        ("return", _) => Some(argument),
        ("sleep", Ok(millis)) => {
            std::thread::sleep(Duration::from_millis(millis));
            None
        }
        _ => panic!("{action}: {argument}"),
    }
}

/// Kills the process, as `kill -9` does, if the failpoint returns.
pub(crate) fn kill_point(name: &str) {
    if pass(name).is_some() {
        kill(getpid(), Signal::SIGKILL).unwrap_or_default();
    }
}

/// Fails if the failpoint returns: with the argument as number of `errno(3)`, or with EIO.
pub(crate) fn error_point(name: &str) -> io::Result<()> {
    let Some(errno) = pass(name) else { return Ok(()) };
    Err(io::Error::from_raw_os_error(errno.parse().unwrap_or(EIO)))
}

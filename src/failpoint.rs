//! Failpoints: places at which a test kills or delays a process, or makes a system call fail. A release has none.
//!
//! `FAILPOINTS=bets_written=10*off->1*return;disk_sync=1*return(28)` kills the process that passes `bets_written` for the
//! eleventh time, and makes the first sync fail with error 28. A failpoint has steps, which follow each other: each
//! applies as often as it says, or for ever. After the last step nothing happens. A forked process goes on from its
//! parent's counts.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
pub(crate) fn pass(name: &str) -> Option<&'static str> {
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

/// A place at which the process is killed, as by `kill -9`, if the failpoint returns.
macro_rules! kill_point {
    ($name:literal) => {
        if crate::failpoint::pass($name).is_some() {
            crate::system::process::kill_self();
        }
    };
}

/// A place at which a function fails, if the failpoint returns: with the argument as number of `errno(3)`, or with EIO.
macro_rules! error_point {
    ($name:literal) => {
        if let Some(errno) = crate::failpoint::pass($name) {
            let errno = errno.parse().unwrap_or(nix::libc::EIO);
            return Err(std::io::Error::from_raw_os_error(errno));
        }
    };
}

pub(crate) use {error_point, kill_point};

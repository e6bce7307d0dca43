//! Failpoints: named places in which a test has a process killed, or a call of the system fail.
//!
//! They are compiled in under `cfg(debug_assertions)` alone, and do nothing unless the environment variable
//! `FAILPOINTS` names them, as the `fail` crate reads it: `bets_written=10*off->1*return;disk_sync=1*return` kills the
//! process that passes `bets_written` for the eleventh time, and has the first sync fail. Each process counts for
//! itself, from what its parent had counted when it forked.

/// Reads `FAILPOINTS`. To be called once, before the first fork.
#[cfg(debug_assertions)]
pub fn start() {
    // It clears the failpoints when it is dropped, and they are to last as long as the process.
    std::mem::forget(fail::FailScenario::setup());
}

/// In a release there are none.
#[cfg(not(debug_assertions))]
pub fn start() {}

/// A place at which the process may be killed, as by `kill -9`, or held up for some time (`sleep(50)`, in milliseconds).
macro_rules! kill_point {
    ($name:literal) => {
        #[cfg(debug_assertions)]
        {
            fail::fail_point!($name, |_| crate::system::process::kill_self());
        }
    };
}

/// A place at which a function that returns an `io::Result` may fail: with that number of `errno(3)`, or EIO.
macro_rules! error_point {
    ($name:literal) => {
        #[cfg(debug_assertions)]
        {
            fail::fail_point!($name, |errno: Option<String>| {
                let errno = errno.and_then(|text| text.parse().ok()).unwrap_or(nix::libc::EIO);
                Err(std::io::Error::from_raw_os_error(errno))
            });
        }
    };
}

pub(crate) use {error_point, kill_point};

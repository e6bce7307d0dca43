//! Safe wrappers of what the operating system offers. All `unsafe` code is here.
#![allow(unsafe_code)]
#![allow(clippy::missing_errors_doc, reason = "the pages of the manual that are named list the errors")]

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

pub(crate) mod confinement;
pub(crate) mod fd_passing;
pub(crate) mod memory;
pub(crate) mod mqueue;
pub mod process;
pub(crate) mod random;
mod seccomp;
pub(crate) mod shared_mutex;
pub mod signal;

/// The timeout of a `poll(2)` that begins `now`, rounded up to whole milliseconds, so that the wait does not end too early.
pub(crate) fn poll_timeout(until: Option<Instant>, now: Instant) -> PollTimeout {
    let Some(until) = until else { return PollTimeout::NONE };
    let wait = until.saturating_duration_since(now).saturating_add(Duration::from_micros(999));
    PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
}

/// The longest file that is read whole, in bytes.
const MAX_FILE: u64 = 8 << 20;

/// Reads a file to its end. A file that is too long is an error: a device in its place might never end.
pub(crate) fn read_whole(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if length as u64 > MAX_FILE { Err(ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// Repeats a system call for as long as a signal interrupts it.
pub(crate) fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(nix::errno::Errno::EINTR) => {}
            outcome => return outcome,
        }
    }
}

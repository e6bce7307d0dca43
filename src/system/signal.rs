//! Signals that arrive as a descriptor: see `signalfd(2)`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that this program handles: to end it, and that a child ended.
const HANDLED: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD];

fn handled() -> SigSet {
    HANDLED.into_iter().collect()
}

/// Blocks the handled signals, in this thread and all that it makes, processes included: from now on they wait for a
/// [`Signals`], [`wait_for_termination`] or [`unblock`]. The first act of `main`, so that none is ever missed.
///
/// SIGXFSZ is blocked with them, for good: a file that may not grow is then an error of the write, as a full disk is.
/// SIGCHLD gets its default action: a parent may have passed it on as ignored, and children could then not be waited for.
///
/// # Errors
/// None that a correct kernel gives.
pub fn block() -> io::Result<()> {
    // SAFETY: no signal handler is installed or replaced: the action was to ignore the signal or the default.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    let mut blocked = handled();
    blocked.add(Signal::SIGXFSZ);
    Ok(blocked.thread_block()?)
}

/// Gives the signals their default effect back: one that has come meanwhile ends the process here.
///
/// # Errors
/// None that a correct kernel gives.
pub fn unblock() -> io::Result<()> {
    Ok(handled().thread_unblock()?)
}

/// Waits in this thread until SIGTERM or SIGINT comes, and takes it. The signals must be blocked in all threads.
///
/// # Errors
/// None that a correct kernel gives.
pub fn wait_for_termination() -> io::Result<Signal> {
    let termination: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    Ok(termination.wait()?)
}

/// The blocked signals of the process that reads, as a descriptor that is readable while one waits. A child that
/// inherits it gets its own signals from it, provided that it adds it to an epoll instance of its own.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// A new descriptor, non-blocking and closed on exec.
    ///
    /// # Errors
    /// No descriptor is to be had.
    pub fn open() -> io::Result<Self> {
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self(SignalFd::with_flags(&handled(), flags)?))
    }

    /// Takes one waiting signal; none if none waits.
    ///
    /// # Errors
    /// None that a correct kernel gives.
    pub fn take(&self) -> io::Result<Option<Signal>> {
        let Some(info) = self.0.read_signal()? else { return Ok(None) };
        Ok(i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether the signal asks the process to end.
#[must_use]
pub fn is_termination(signal: Signal) -> bool {
    matches!(signal, Signal::SIGTERM | Signal::SIGINT)
}

//! Signals: blocked by the whole program, and read from a descriptor (`signalfd(2)`) or waited for.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::retry;

/// The signals that end this program. SIGHUP is one of them, unless it was ignored at the start, as under `nohup`.
fn termination() -> SigSet {
    let mut signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT].into_iter().collect();
    if !is_ignored(Signal::SIGHUP) {
        signals.add(Signal::SIGHUP);
    }
    signals
}

fn is_ignored(signal: Signal) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call changes nothing but `action`, which has the right size.
    let done = unsafe { libc::sigaction(signal as libc::c_int, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all zeros are a valid value, and the call has replaced them by another one.
    done == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// The signals that this program handles: those that end it, and SIGCHLD.
fn handled() -> SigSet {
    let mut signals = termination();
    signals.add(Signal::SIGCHLD);
    signals
}

/// Blocks the handled signals in this thread, and in the threads and processes that it makes. They stay pending until
/// [`Signals`], [`wait_for_termination`], [`exit_on_termination`] or [`unblock`] takes them. `main` calls this first, so
/// that none is missed.
///
/// SIGXFSZ is blocked for good: a write beyond the limit of a file's size then fails, as on a full disk. SIGCHLD gets its
/// default action: where it is ignored, `wait(2)` fails.
pub fn block() -> io::Result<()> {
    // SAFETY: no signal handler is installed or replaced: the action was to ignore the signal or the default.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    let mut blocked = handled();
    blocked.add(Signal::SIGXFSZ);
    Ok(blocked.thread_block()?)
}

/// Handles SIGHUP too, even if it was ignored at the start.
pub fn handle_hangups() -> io::Result<()> {
    // SAFETY: no signal handler is installed or replaced: the action was to ignore the signal or the default.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigDfl) }?;
    block()
}

/// Gives the signals their default effect back: a pending one ends the process here.
pub fn unblock() -> io::Result<()> {
    Ok(handled().thread_unblock()?)
}

/// Waits for a signal that ends the program, and takes it. The signals must be blocked in all threads.
pub fn wait_for_termination() -> io::Result<Signal> {
    Ok(termination().wait()?)
}

/// Runs `body`, which may wait for ever: a signal that ends the program then ends it at once, with exit status 0. The
/// signals are blocked again afterwards. Their default action would not do: process 1 of a container has none.
pub fn exit_on_termination<T>(body: impl FnOnce() -> T) -> io::Result<T> {
    let signals = termination();
    let action = SigAction::new(SigHandler::Handler(exit), SaFlags::empty(), SigSet::empty());
    for signal in &signals {
        // SAFETY: the handler makes one system call, which a handler may make wherever it interrupts the program.
        unsafe { sigaction(signal, &action) }?;
    }
    signals.thread_unblock()?;
    let result = body();
    signals.thread_block()?;
    Ok(result)
}

extern "C" fn exit(_signal: libc::c_int) {
    // SAFETY: ends the process at once, and runs none of its code.
    unsafe { libc::_exit(0) }
}

/// A descriptor that is readable while a handled signal is pending for the process that reads. Each process makes its own,
/// because a process that shares a descriptor can make it block.
#[derive(Debug)]
pub struct Signals {
    descriptor: SignalFd,
    handled: SigSet,
}

impl Signals {
    /// Makes the descriptor, non-blocking and closed on exec.
    pub fn open() -> io::Result<Self> {
        Self::of(handled())
    }

    /// Makes another descriptor for the same signals.
    pub fn open_another(&self) -> io::Result<Self> {
        Self::of(self.handled)
    }

    fn of(handled: SigSet) -> io::Result<Self> {
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self { descriptor: SignalFd::with_flags(&handled, flags)?, handled })
    }

    /// Takes a pending signal, if there is one.
    pub fn take(&self) -> io::Result<Option<Signal>> {
        let Some(info) = self.descriptor.read_signal()? else { return Ok(None) };
        Ok(i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()))
    }

    /// Waits for a signal for at most this time, and takes it.
    pub fn wait(&self, time: Duration) -> io::Result<Option<Signal>> {
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        retry(|| poll(&mut [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)], timeout))?;
        self.take()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Whether the signal, one of those handled, asks the process to end.
#[must_use]
pub fn is_termination(signal: Signal) -> bool {
    signal != Signal::SIGCHLD
}

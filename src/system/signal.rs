//! Signals that arrive as a descriptor: see `signalfd(2)`.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that end this program, except for a SIGHUP that was ignored when it started, as `nohup` has it.
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

/// The signals that this program handles: those that end it, and the one that tells of the end of a child.
fn handled() -> SigSet {
    let mut signals = termination();
    signals.add(Signal::SIGCHLD);
    signals
}

/// Blocks the handled signals, in this thread and all that it makes, processes included: from now on they wait for a
/// [`Signals`], [`wait_for_termination`], [`exit_on_termination`] or [`unblock`]. The first act of `main`, so that none
/// is ever missed.
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

/// Waits in this thread until a signal comes that ends the program, and takes it. The signals must be blocked in all
/// threads.
///
/// # Errors
/// None that a correct kernel gives.
pub fn wait_for_termination() -> io::Result<Signal> {
    Ok(termination().wait()?)
}

/// Runs `body`, which may wait for ever. A signal that ends the program then ends it at once, with exit status 0. The
/// signals must be blocked, and are blocked again afterwards.
///
/// The default action of the signals would not do: process 1 of a container has none.
///
/// # Errors
/// None that a correct kernel gives.
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

    /// Takes one signal, and waits for it for that time.
    ///
    /// # Errors
    /// None that a correct kernel gives.
    pub fn wait(&self, time: Duration) -> io::Result<Option<Signal>> {
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(Errno::EINTR) => self.take(),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether the signal, one of those handled, asks the process to end.
#[must_use]
pub fn is_termination(signal: Signal) -> bool {
    signal != Signal::SIGCHLD
}

//! Processes: `fork(2)`, `wait(2)`, and children that end with their parent (`PR_SET_PDEATHSIG(2const)`).

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid, getpid, getppid};

/// The exit status of a child whose code panicked.
pub const PANICKED: i32 = 101;
/// The exit status of a child that did not run its code: its parent was dead already, or it could not be set up.
const NOT_BEGUN: i32 = 102;

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Status(i32),
    /// By the signal of this number, which may be a real-time signal.
    Killed(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Killed(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "killed by {signal}"),
                Err(_) => write!(f, "killed by signal {number}"),
            },
        }
    }
}

/// Forks a child that runs `body` and ends with the status that it returns: never does the child come back into the
/// caller's code, not even by a panic, and it is killed when its parent dies. Of the parent's descriptors it has
/// standard error and those in `keep`; `body` must use no other.
///
/// # Errors
/// The kernel refuses (limits), or the process has more than one thread: a lock that another thread holds would stay
/// locked in the child for ever.
pub fn fork_child(keep: &[BorrowedFd<'_>], body: impl FnOnce() -> i32) -> io::Result<Pid> {
    if thread_count()? != 1 {
        return Err(io::Error::other("a process with several threads can't fork safely"));
    }
    let parent = getpid();
    // SAFETY: the process has one thread, so no lock is held by a thread that the child has not, and the child may
    // run any code.
    #[expect(clippy::disallowed_methods, reason = "this is the function that the others shall use")]
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let status = match begin_child(parent, keep) {
                Ok(()) => catch_unwind(AssertUnwindSafe(body)).unwrap_or(PANICKED),
                Err(_) => NOT_BEGUN,
            };
            // SAFETY: ends the process at once; nothing of the parent's (buffers, destructors) runs in the child.
            unsafe { libc::_exit(status) }
        }
    }
}

fn begin_child(parent: Pid, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    die_with(parent)?;
    close_all_but(keep)
}

/// Has this process, a child of `parent`, killed when that one dies. To be said again after a change of user.
///
/// # Errors
/// The parent is dead already.
pub fn die_with(parent: Pid) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have died before that. Its number is compared with the one from before the fork, as in a
    // container the parent may be process 1.
    if getppid() == parent { Ok(()) } else { Err(io::Error::from(io::ErrorKind::BrokenPipe)) }
}

/// Has this process interrupt no other when it wakes up: see `SCHED_BATCH` in `sched(7)`. Where hundreds of them take turns,
/// each then does more in its turn. It is as good without.
pub fn schedule_as_batch() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters live through the call, and it changes nothing but when this process runs.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
    debug_assert_eq!(done, 0);
}

/// Forks a child as [`fork_child`] does, and waits until it has ended.
///
/// # Errors
/// As [`fork_child`].
pub fn run_in_child(keep: &[BorrowedFd<'_>], body: impl FnOnce() -> i32) -> io::Result<Exit> {
    let child = fork_child(keep, body)?;
    let ended = wait(child.as_raw(), 0)?;
    ended.map(|(_, exit)| exit).ok_or_else(|| io::Error::from(Errno::ECHILD))
}

/// Closes every descriptor but standard error and those in `keep`.
fn close_all_but(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let kept = keep.iter().map(AsRawFd::as_raw_fd).chain([libc::STDERR_FILENO]);
    let mut kept: Vec<u32> = kept.filter_map(|fd| u32::try_from(fd).ok()).collect();
    kept.sort_unstable();
    let mut from = 0;
    for fd in kept.into_iter().chain([u32::MAX]) {
        if fd > from {
            let last = if fd == u32::MAX { u32::MAX } else { fd - 1 };
            close_range(from, last)?;
        }
        from = from.max(fd.saturating_add(1));
    }
    Ok(())
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: only in a new child, whose code uses no descriptor but those kept: the owners of the closed ones are the
    // parent's values, whose code and destructors never run here.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How many threads this process has: the link count of `/proc/self/task` is 2 more.
fn thread_count() -> io::Result<u64> {
    Ok(std::fs::metadata("/proc/self/task")?.nlink().saturating_sub(2))
}

/// Takes one child that has ended, if there is one. SIGCHLD coalesces, so call until there is none.
///
/// # Errors
/// None that a correct kernel gives.
pub fn reap() -> io::Result<Option<(Pid, Exit)>> {
    match wait(-1, libc::WNOHANG) {
        Err(Errno::ECHILD) => Ok(None),
        ended => Ok(ended?),
    }
}

/// `waitpid(2)` itself: that of `nix` has no value for a real-time signal, and fails.
fn wait(child: libc::pid_t, options: libc::c_int) -> nix::Result<Option<(Pid, Exit)>> {
    let mut status = 0;
    loop {
        // SAFETY: the call writes nothing but `status`, which lives through it.
        let waited = Errno::result(unsafe { libc::waitpid(child, &raw mut status, options) });
        let exit = if libc::WIFEXITED(status) {
            Exit::Status(libc::WEXITSTATUS(status))
        } else {
            Exit::Killed(libc::WTERMSIG(status))
        };
        match waited {
            Ok(0) => return Ok(None),
            Ok(pid) => return Ok(Some((Pid::from_raw(pid), exit))),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends a signal to a child that has not been reaped. One that has ended already is left alone.
pub fn signal_child(child: Pid, signal: Signal) {
    // The only error possible for an own child is that it has ended: its number is not reused until it is reaped.
    kill(child, signal).unwrap_or_default();
}

/// Ends this process as `kill -9` does: for tests of what then holds.
#[cfg(debug_assertions)]
pub fn kill_self() -> ! {
    kill(getpid(), Signal::SIGKILL).unwrap_or_default();
    // SAFETY: ends the process at once. Not reached: the signal is delivered before the call above returns.
    unsafe { libc::_exit(PANICKED) }
}

/// Makes the program that `command` starts end when this process does, however that ends.
pub fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    // SAFETY: between fork and exec the closure makes two system calls, and neither allocates nor locks.
    unsafe { command.pre_exec(move || die_with(parent)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_several_threads_does_not_fork() {
        // The test harness runs tests in threads of their own, so this process has at least two.
        assert!(thread_count().unwrap() > 1);
        assert!(fork_child(&[], || 0).is_err());
    }
}

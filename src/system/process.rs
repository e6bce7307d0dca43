//! Processes: `fork(2)`, `wait(2)`, and children that end with their parent (`PR_SET_PDEATHSIG(2const)`).

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, getpid, getppid};

use super::retry;
use crate::logging::{Level, Outcome, event};

/// The exit status of storage or the keeper if it ends by itself and has logged why. To start it again would not help.
pub(crate) const GAVE_UP: i32 = 3;
/// The exit status of a child whose code panicked.
const PANICKED: i32 = 101;
/// The exit status of a child that could not run its code.
const NOT_PREPARED: i32 = 102;

/// How a child ended.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself.
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

/// Forks a child that runs `body` and exits with the status that it returns. The child never returns into the caller's
/// code, not even by a panic, and the kernel kills it when its parent dies. It inherits standard error and the
/// descriptors in `keep`; `body` must use no others.
///
/// A process with several threads is refused: a lock that another thread holds would stay locked in the child for ever.
pub(crate) fn fork_child(keep: &[BorrowedFd<'_>], body: impl FnOnce() -> i32) -> io::Result<Pid> {
    if !has_one_thread() {
        return Err(io::Error::other("a process with several threads can't fork safely"));
    }
    let parent = getpid();
    // SAFETY: the process has one thread, so no other thread holds a lock that would stay locked in the child. The child
    // may therefore run any code.
    let child = Errno::result(unsafe { _Fork() })?;
    if child == 0 {
        let status = run_child(parent, keep, body);
        // SAFETY: ends the process at once; nothing of the parent's (buffers, destructors) runs in the child.
        unsafe { libc::_exit(status) }
    }
    Ok(Pid::from_raw(child))
}

unsafe extern "C" {
    /// `fork(3)` without what it does about locks of other threads and `pthread_atfork(3)`, for which both processes would
    /// write to more pages.
    fn _Fork() -> libc::pid_t;
}

fn run_child(parent: Pid, keep: &[BorrowedFd<'_>], body: impl FnOnce() -> i32) -> i32 {
    if let Err(error) = die_with(parent) {
        // Of a parent that has died, its own end tells.
        if error.kind() != io::ErrorKind::BrokenPipe {
            let error = format!("the child can't be tied to its parent: prctl(PR_SET_PDEATHSIG): {error}");
            event(Level::Error, "fork", Outcome::Fail, &[("error", &error)]);
        }
        return NOT_PREPARED;
    }
    close_all_but(keep);
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(PANICKED)
}

/// Makes the kernel kill this process, a child of `parent`, when its parent dies. A change of user undoes this. The error is
/// `BrokenPipe` if the parent is dead already.
pub(crate) fn die_with(parent: Pid) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have died before that. Its pid is compared with the one from before the fork: in a container the
    // parent may be process 1.
    if getppid() == parent { Ok(()) } else { Err(io::Error::from(io::ErrorKind::BrokenPipe)) }
}

/// Stops this process from preempting others when it wakes up (`SCHED_BATCH` in `sched(7)`). With hundreds of processes, each
/// then does more before the next one runs.
pub(crate) fn schedule_as_batch() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters live through the call, and it changes nothing but when this process runs.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
    debug_assert_eq!(done, 0);
}

/// Whatever the umask was, lets the user of this process read and write the files that it creates from now on, and lets nobody
/// else write to them.
pub(crate) fn protect_new_files() {
    let given = umask(Mode::S_IRWXU);
    umask((given - Mode::S_IRWXU) | Mode::S_IWGRP | Mode::S_IWOTH);
}

/// Forks a child as [`fork_child`] does, and waits for its end.
pub(crate) fn run_in_child(keep: &[BorrowedFd<'_>], body: impl FnOnce()) -> io::Result<()> {
    let child = fork_child(keep, || {
        body();
        0
    })?;
    Ok(wait(child.as_raw(), 0).map(drop)?)
}

/// Closes every descriptor except standard error and those in `keep`. Call this only in a new child that uses no others.
fn close_all_but(keep: &[BorrowedFd<'_>]) {
    let mut kept: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).chain([libc::STDERR_FILENO]).collect();
    kept.sort_unstable();
    // Linux before 5.9 and old seccomp profiles lack close_range(2).
    if close_ranges_between(&kept).is_ok() {
        return;
    }
    let close = |fd| {
        if !kept.contains(&fd) {
            // SAFETY: as for `close_range`. The kernel refuses a number that is not open.
            unsafe { libc::close(fd) };
        }
    };
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        // Without a `/proc`, each number that a descriptor may have.
        return (0..RawFd::try_from(descriptor_limit()).unwrap_or(RawFd::MAX)).for_each(close);
    };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // All are read before the first is closed: the folder has a descriptor too.
    numbers.collect::<Vec<RawFd>>().into_iter().for_each(close);
}

/// Closes the descriptors below, between and above those in `kept`, which are sorted.
fn close_ranges_between(kept: &[RawFd]) -> io::Result<()> {
    let mut first = 0;
    for &fd in kept {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, RawFd::MAX)
}

fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    // SAFETY: in a new child that uses only the descriptors it keeps. The owners of the closed ones are values of the
    // parent, whose code and destructors never run here.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How many descriptors this process may have: `RLIMIT_NOFILE`, which shells show as `ulimit -n`.
pub(crate) fn descriptor_limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
}

fn has_one_thread() -> bool {
    unsafe extern "C" {
        /// glibc clears it before it starts a second thread.
        static __libc_single_threaded: libc::c_char;
    }
    // SAFETY: glibc defines this variable with this type, and only the thread that starts a second one clears it.
    unsafe { __libc_single_threaded != 0 }
}

/// Takes one child that has ended, if there is one. SIGCHLD coalesces, so call until there is none.
pub fn reap() -> io::Result<Option<(Pid, Exit)>> {
    match wait(-1, libc::WNOHANG) {
        Err(Errno::ECHILD) => Ok(None),
        ended => Ok(ended?),
    }
}

/// Calls `waitpid(2)` itself: that of `nix` has no value for a real-time signal, and fails.
fn wait(child: libc::pid_t, options: libc::c_int) -> nix::Result<Option<(Pid, Exit)>> {
    let mut status = 0;
    // SAFETY: the call writes nothing but `status`, which lives through it.
    let pid = retry(|| Errno::result(unsafe { libc::waitpid(child, &raw mut status, options) }))?;
    let exit = if libc::WIFEXITED(status) {
        Exit::Status(libc::WEXITSTATUS(status))
    } else {
        Exit::Killed(libc::WTERMSIG(status))
    };
    Ok((pid != 0).then_some((Pid::from_raw(pid), exit)))
}

/// Sends a signal to a child that has not been reaped yet.
pub fn signal_child(child: Pid, signal: Signal) {
    // The only possible error is that the child has ended. Its pid is not reused before it is reaped.
    kill(child, signal).unwrap_or_default();
}

/// Makes the kernel kill the program that `command` starts when this process ends.
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
        assert!(fork_child(&[], || 0).is_err());
    }
}

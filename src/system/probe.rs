//! Tries everything that a confined handler must not be able to do, for the test of the confinement.
//!
//! Each attempt is logged as one event of the action `probe`: `success` if it was possible.

use std::ffi::CStr;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::process::{Command, Stdio};

use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::ptrace;
use nix::sys::signal::kill;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::Mode;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Uid, dup, execv, fork, geteuid, getppid, pipe, setuid};

use super::mqueue;
use crate::logging::{Level, Outcome, event};

const PROGRAM: &CStr = c"/bin/true";

/// Tries everything. `stage` says how far this handler is confined.
pub fn try_everything(stage: &str) {
    report(stage, "open_file", File::open("/etc/passwd"));
    report(stage, "read_bets", File::open("bets.csv"));
    report(stage, "create_file", File::create("probe.tmp"));
    report(stage, "open_folder", open("/", OFlag::O_PATH, Mode::empty()));
    for (attempt, family) in [("tcp_socket", AddressFamily::Inet), ("unix_socket", AddressFamily::Unix)] {
        report(stage, attempt, socket(family, SockType::Stream, SockFlag::empty(), None));
    }
    report(stage, "pipe", pipe());
    report(stage, "duplicate", dup(io::stderr()));
    report(stage, "memory_file", memfd_create(c"probe", MFdFlags::empty()));
    report(stage, "epoll", Epoll::new(EpollCreateFlags::empty()));
    report(stage, "queue", mqueue::create("probe"));
    report(stage, "fork", try_fork());
    report(stage, "signal", kill(getppid(), None));
    report(stage, "trace", ptrace::seize(getppid(), ptrace::Options::empty()));
    report(stage, "read_memory", read_parents_memory());
    report(stage, "root", become_root());
    report(stage, "execute", try_execute(stage));
}

fn report<T>(stage: &str, attempt: &str, outcome: Result<T, impl Display>) {
    let (result, error) = match outcome {
        Ok(_) => (Outcome::Success, "none".to_owned()),
        Err(error) => (Outcome::Fail, error.to_string()),
    };
    event(Level::Info, "probe", result, &[("stage", &stage), ("attempt", &attempt), ("error", &error)]);
}

fn try_fork() -> io::Result<()> {
    // SAFETY: the child ends at once.
    #[expect(clippy::disallowed_methods, reason = "whether it is possible is the question")]
    match unsafe { fork() }? {
        // SAFETY: as above.
        ForkResult::Child => unsafe { libc::_exit(0) },
        ForkResult::Parent { child } => Ok(waitpid(child, None).map(drop)?),
    }
}

/// The parent is a fork of the same program, so its memory has the same layout.
fn read_parents_memory() -> nix::Result<usize> {
    let mut here = [0; 8];
    let there = RemoteIoVec { base: PROGRAM.as_ptr() as usize, len: here.len() };
    process_vm_readv(getppid(), &mut [IoSliceMut::new(&mut here)], &[there])
}

fn become_root() -> io::Result<()> {
    setuid(Uid::from_raw(0))?;
    if geteuid().is_root() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::PermissionDenied)) }
}

/// A confined process tries it on itself: if it succeeds, nothing more is reported.
fn try_execute(stage: &str) -> io::Result<()> {
    if stage != "before" {
        return match execv(PROGRAM, &[PROGRAM]) {
            Ok(never) => match never {},
            Err(error) => Err(error.into()),
        };
    }
    let mut command = Command::new("/bin/true");
    let status = command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) }
}

//! Tries everything that a confined handler must not be able to do, for the test of the confinement.
//!
//! Each attempt is logged as one event of the action `probe`: `success` if it was possible.

use std::ffi::CStr;
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
    let report = |attempt: &str, outcome: io::Result<()>| {
        let (result, error) = match outcome {
            Ok(()) => (Outcome::Success, "none".to_owned()),
            Err(error) => (Outcome::Fail, error.to_string()),
        };
        event(Level::Info, "probe", result, &[("stage", &stage), ("attempt", &attempt), ("error", &error)]);
    };
    report("open_file", File::open("/etc/passwd").map(drop));
    report("read_bets", File::open("bets.csv").map(drop));
    report("create_file", File::create("probe.tmp").map(drop));
    let path_only = open("/", OFlag::O_PATH, Mode::empty());
    report("open_folder", path_only.map(drop).map_err(io::Error::from));
    for (attempt, family) in [("tcp_socket", AddressFamily::Inet), ("unix_socket", AddressFamily::Unix)] {
        report(
            attempt,
            socket(family, SockType::Stream, SockFlag::empty(), None).map(drop).map_err(io::Error::from),
        );
    }
    report("pipe", pipe().map(drop).map_err(io::Error::from));
    report("duplicate", dup(io::stderr()).map(drop).map_err(io::Error::from));
    report("memory_file", memfd_create(c"probe", MFdFlags::empty()).map(drop).map_err(io::Error::from));
    report("epoll", Epoll::new(EpollCreateFlags::empty()).map(drop).map_err(io::Error::from));
    report("queue", mqueue::create("probe").map(drop).map_err(io::Error::other));
    report("fork", try_fork());
    report("signal", kill(getppid(), None).map_err(io::Error::from));
    report("trace", ptrace::seize(getppid(), ptrace::Options::empty()).map_err(io::Error::from));
    report("read_memory", read_parents_memory());
    report("root", become_root());
    report("execute", try_execute(stage));
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
fn read_parents_memory() -> io::Result<()> {
    let mut here = [0; 8];
    let there = RemoteIoVec { base: PROGRAM.as_ptr() as usize, len: here.len() };
    process_vm_readv(getppid(), &mut [IoSliceMut::new(&mut here)], &[there])?;
    Ok(())
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

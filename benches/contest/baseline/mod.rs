//! Minimal servers to compare with. They speak enough of the protocol to get the same load. They share no code with the
//! program except wrappers of wait and signals, so that they do not change with it.

mod bare;
mod fork;
mod threads;
mod wire;

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use loteria::system::signal;
use nix::libc;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, fork};

/// The argument that makes this program a baseline. A baseline is a process of its own, because only a process with one
/// thread can fork safely.
pub const COMMAND: &str = "baseline";

/// A server to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// The shape of the real server and nothing else.
    Bare,
    /// What one would write without that shape: one process, a thread for each session, group commit.
    Threads,
    /// A process for each connection that acknowledges one frame, without a disk.
    Fork,
}

impl Baseline {
    const ALL: [Self; 3] = [Self::Bare, Self::Threads, Self::Fork];

    /// The name on the command line and in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare shape",
            Self::Threads => "thread server",
            Self::Fork => "fork alone",
        }
    }
}

/// Forks a child that runs `body`, ends with its status, and is killed when its parent dies.
#[expect(unsafe_code, reason = "not the program's way to fork: a baseline must not change with it")]
#[expect(clippy::disallowed_methods, reason = "as above")]
fn fork_child(body: impl FnOnce() -> i32) -> io::Result<()> {
    // SAFETY: a baseline has one thread, so no other thread holds a lock that would stay locked in the child.
    if let ForkResult::Child = unsafe { fork() }? {
        let status = set_pdeathsig(Signal::SIGKILL).map_or(1, |()| body());
        // SAFETY: ends the process at once; nothing of the parent's (buffers, destructors) runs in the child.
        unsafe { libc::_exit(status) }
    }
    Ok(())
}

/// Runs a baseline until it is killed. It stores in the current folder. The arguments after [`COMMAND`] are its name, its
/// port and the number of agencies.
///
/// # Errors
/// If the arguments are wrong or a system call fails.
pub fn run(arguments: &[OsString]) -> io::Result<()> {
    signal::unblock()?;
    let [name, port, agencies] = arguments else { return Err(io::Error::other("NAME PORT AGENCIES")) };
    let text = |argument: &OsString| argument.to_string_lossy().into_owned();
    let number = |argument: &OsString| text(argument).parse::<u16>().map_err(io::Error::other);
    let named = Baseline::ALL.into_iter().find(|baseline| baseline.name() == text(name));
    let listener = || TcpListener::bind((Ipv4Addr::LOCALHOST, number(port)?));
    let bets = Path::new("bets.csv");
    match named.ok_or_else(|| io::Error::other("no such baseline"))? {
        // It forks storage before it listens, so that storage does not inherit the listener.
        Baseline::Bare => bare::run(listener, bets),
        Baseline::Threads => threads::run(&listener()?, bets, usize::from(number(agencies)?)),
        Baseline::Fork => fork::run(&listener()?),
    }
}

//! What the server is compared with: servers that speak enough of the protocol to be given the same load, each the
//! least that its shape can be. They share no code with the program, so that they stay as they are when it changes,
//! except what forks.

mod bare;
mod fork;
mod threads;
mod wire;

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use loteria::system::signal;

/// The argument that makes this program one of them. Each is a process of its own, as none but a program with one
/// thread can fork safely.
pub const COMMAND: &str = "baseline";

/// One of the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// The shape of the real server and nothing else: a process for each connection, a POSIX queue, one storage
    /// process that syncs in groups, a pipe for each reply.
    Bare,
    /// What an engineer free of that shape would write: one process, a thread for each session, group commit.
    Threads,
    /// A process for each connection that reads one frame and acknowledges it, without any disk.
    Fork,
}

impl Baseline {
    const ALL: [Self; 3] = [Self::Bare, Self::Threads, Self::Fork];

    /// Its name on the command line and in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare shape",
            Self::Threads => "thread server",
            Self::Fork => "fork alone",
        }
    }
}

/// Runs the baseline that the arguments name, after [`COMMAND`]: its name, its port, how many agencies take part. It
/// stores in the current folder, and ends only when it is killed.
///
/// # Errors
/// The arguments make no sense, or the kernel refuses.
pub fn run(arguments: &[OsString]) -> io::Result<()> {
    signal::unblock()?;
    let [name, port, agencies] = arguments else { return Err(io::Error::other("NAME PORT AGENCIES")) };
    let text = |argument: &OsString| argument.to_string_lossy().into_owned();
    let number = |argument: &OsString| text(argument).parse::<u16>().map_err(io::Error::other);
    let named = Baseline::ALL.into_iter().find(|baseline| baseline.name() == text(name));
    let listener = || TcpListener::bind((Ipv4Addr::LOCALHOST, number(port)?));
    let bets = Path::new("bets.csv");
    match named.ok_or_else(|| io::Error::other("no such baseline"))? {
        // It forks storage before it listens, so that storage does not have the listener.
        Baseline::Bare => bare::run(listener, bets),
        Baseline::Threads => threads::run(&listener()?, bets, usize::from(number(agencies)?)),
        Baseline::Fork => fork::run(&listener()?),
    }
}

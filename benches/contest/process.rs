//! The processes that are measured: the server or a baseline, and the agencies. Each logs to a file in its folder. The
//! kernel kills them when this process ends.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use loteria::lottery::AgencyId;
use loteria::protocol::frame::{HEADER_LEN, header, kind};
use loteria::protocol::status::Status;
use loteria::system::process::{die_with_parent, signal_child};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::baseline::{self, Baseline};
use crate::load::socket::Target;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_loteria");
/// A server must answer, and end, within this time.
const PATIENCE: Duration = Duration::from_mins(1);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(1);
/// The number of lines of a log that an error shows.
const SHOWN_LINES: usize = 20;

/// A server under load.
#[derive(Debug, Clone, Copy)]
pub enum Contestant {
    /// The real server, with additional settings.
    Server(&'static [Setting]),
    /// A server to compare it with.
    Baseline(Baseline),
}

/// An environment variable and its value.
type Setting = (&'static str, &'static str);

/// The real server with its log at WARNING.
pub const SERVER: Contestant = Contestant::Server(&[("LOGGING_LEVEL", "WARNING")]);
/// The real server with its log at INFO.
pub const LOGGING_SERVER: Contestant = Contestant::Server(&[("LOGGING_LEVEL", "INFO")]);

/// The real server with certificates. Agencies may come without one too. The folder is beside that of the run.
pub const TLS_SERVER: Contestant = Contestant::Server(&[
    ("LOGGING_LEVEL", "WARNING"),
    ("TLS_DIR", "../certs/server"),
    ("PLAIN_AGENCIES", "all"),
]);

impl Contestant {
    /// Its name in the progress.
    pub fn name(self) -> String {
        match self {
            Self::Server(settings) => {
                let settings = settings.iter().map(|(key, value)| format!("{key} {value}"));
                format!("server, {}", settings.collect::<Vec<_>>().join(", "))
            }
            Self::Baseline(baseline) => baseline.name().to_owned(),
        }
    }

    fn command(self, port: u16, agencies: u16) -> Command {
        match self {
            Self::Server(settings) => {
                let mut command = Command::new(PROGRAM);
                command.arg("server").env_clear();
                command.env("SERVER_IP", "127.0.0.1").env("SERVER_PORT", port.to_string());
                command.env("CLIENTS_AMOUNT", agencies.to_string()).envs(settings.iter().copied());
                command
            }
            Self::Baseline(baseline) => {
                let mut command = Command::new("/proc/self/exe");
                command.args([baseline::COMMAND, baseline.name(), &port.to_string(), &agencies.to_string()]);
                command
            }
        }
    }
}

/// A process with its log. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it in a folder, which gets its log.
    pub fn start(mut command: Command, folder: &Path, name: &str) -> io::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        die_with_parent(&mut command);
        Ok(Self { child: command.spawn()?, log })
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Waits until it ends, and calls `meanwhile` with its pid again and again.
    pub fn wait(&mut self, mut meanwhile: impl FnMut(i32)) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            meanwhile(self.pid());
            match self.child.try_wait()? {
                Some(status) => return Ok(status),
                None if Instant::now() > deadline => return Err(io::Error::other("it does not end")),
                None => std::thread::sleep(PAUSE),
            }
        }
    }

    /// The error with the end of the log.
    pub fn explain(&mut self, error: &io::Error) -> io::Error {
        let state = match self.child.try_wait() {
            Ok(Some(status)) => status.to_string(),
            _ => "still running".to_owned(),
        };
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let shown = lines.get(lines.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default().join("\n");
        io::Error::other(format!("{error}\n--- {} ({state})\n{shown}\n---", self.log.display()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}

/// A running server that is measured.
#[derive(Debug)]
pub struct Server {
    process: Process,
    contestant: Contestant,
    address: SocketAddr,
    folder: PathBuf,
}

impl Server {
    /// Starts it in a folder, which holds its `bets.csv`, and waits until it accepts connections.
    pub fn start(contestant: Contestant, folder: &Path, agencies: u16) -> io::Result<Self> {
        let mut server = Self::spawn(contestant, folder, agencies)?;
        server.wait_until("connect", |address| TcpStream::connect(address).map(drop))?;
        Ok(server)
    }

    /// Starts the real server and waits until it and storage answer; returns the time it took.
    pub fn start_timed(folder: &Path, agencies: u16) -> io::Result<(Self, Duration)> {
        let start = Instant::now();
        let mut server = Self::spawn(SERVER, folder, agencies)?;
        server.wait_until("answer", |address| status(address).map(drop))?;
        Ok((server, start.elapsed()))
    }

    fn spawn(contestant: Contestant, folder: &Path, agencies: u16) -> io::Result<Self> {
        let port = free_port()?;
        let process = Process::start(contestant.command(port, agencies), folder, "server")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Self { process, contestant, address, folder: folder.to_owned() })
    }

    fn wait_until(&mut self, what: &str, holds: impl Fn(SocketAddr) -> io::Result<()>) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = holds(self.address) {
            if self.process.child.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(self.process.explain(&io::Error::other(format!("it does not {what}: {error}"))));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder with its `bets.csv`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where plain clients connect.
    pub fn target(&self) -> Target {
        Target::plain(self.address)
    }

    /// The process that was started.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Ends it and returns the result; an error comes with the end of the log. The real server must end with exit code 0.
    pub fn finish<T>(mut self, result: io::Result<T>) -> io::Result<T> {
        result.and_then(|value| self.end().map(|()| value)).map_err(|error| self.process.explain(&error))
    }

    fn end(&mut self) -> io::Result<()> {
        if matches!(self.contestant, Contestant::Baseline(_)) {
            return self.process.child.kill().and_then(|()| self.process.child.wait()).map(drop);
        }
        if let Some(status) = self.process.child.try_wait()? {
            return Err(io::Error::other(format!("the server ended by itself: {status}")));
        }
        signal_child(Pid::from_raw(self.pid()), Signal::SIGTERM);
        must_be_success(self.process.wait(|_| ())?)
    }
}

pub fn must_be_success(status: ExitStatus) -> io::Result<()> {
    if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) }
}

/// A free port below the range from which the kernel takes the ports of clients, so that none of them gets it before the
/// server does.
pub fn free_port() -> io::Result<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let lowest = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(32_768_u16);
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let tries = std::iter::repeat_with(|| rand::random_range(1024..lowest.max(1025))).take(1000);
    tries.into_iter().find(free).ok_or_else(|| io::Error::other("no port is free"))
}

/// Asks a server for its STATUS.
pub fn status(address: SocketAddr) -> io::Result<Status> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(&header(kind::STATUS_REQUEST, 0))?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    serde_json::from_slice(answer.get(HEADER_LEN..).unwrap_or_default()).map_err(io::Error::other)
}

/// A running `loteria agency`, with its file in the server's folder.
#[derive(Debug)]
pub struct Agency(Process);

impl Agency {
    /// Starts it.
    pub fn start(server: &Server, folder: &Path, agency: AgencyId) -> io::Result<Self> {
        let mut command = Command::new(PROGRAM);
        command.arg("agency").env_clear().env("CLI_ID", agency.to_string());
        command.env("CLI_SERVER_ADDRESS", server.address().to_string());
        Process::start(command, folder, &format!("agency-{agency}")).map(Self)
    }

    /// Waits until it ends, which must be with exit code 0, and calls `meanwhile` with its pid again and again. Returns the number
    /// of winners that it logged.
    pub fn finish(mut self, meanwhile: impl FnMut(i32)) -> io::Result<u64> {
        let ended = self.0.wait(meanwhile).and_then(must_be_success);
        ended.and_then(|()| self.winners()).map_err(|error| self.0.explain(&error))
    }

    fn winners(&self) -> io::Result<u64> {
        let log = fs::read_to_string(&self.0.log)?;
        let winners = log.lines().find_map(|line| line.split_once("cant_ganadores: "));
        winners
            .and_then(|(_, count)| count.split(' ').next()?.parse().ok())
            .ok_or_else(|| io::Error::other("it tells no result"))
    }
}

//! The contest while it runs: starts the processes, watches over them, and stops them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::DemoError;
use super::output::Output;
use super::process::{Process, Variable};
use crate::config::{AGENCY_SETTINGS, SERVER_SETTINGS, Setting, Settings};
use crate::lottery::AgencyId;
use crate::protocol::status::Status;
use crate::status;
use crate::system::signal::{Signals, is_termination};

/// The time between two looks at how far the server is.
const TICK: Duration = Duration::from_millis(150);
/// The time between two looks at whether it listens yet.
const SHORT_TICK: Duration = Duration::from_millis(10);
/// How long a server may take until it listens: it may have to wait for one that was killed, and to read a long file.
const START_LIMIT: Duration = Duration::from_mins(1);
/// How long the bar waits for its number. Signals wait as long.
const PEEK_LIMIT: Duration = Duration::from_millis(300);
/// How long processes may take to end before they are killed.
const STOP_LIMIT: Duration = Duration::from_secs(3);
/// How often the server is started again.
const MAX_RESTARTS: u32 = 5;
/// Connections that the server takes besides the agencies'.
const SPARE_CLIENTS: u16 = 64;

/// What server and agencies said at the end.
pub struct Claims {
    /// The server's last status.
    pub status: Status,
    /// How many of its bets won, agency by agency.
    pub winners: Vec<(AgencyId, u64)>,
    /// From the start of the agencies to the end of the last one.
    pub duration: Duration,
}

/// The processes of a contest.
pub struct LiveContest<'a> {
    folder: &'a Path,
    size: u16,
    signals: &'a Signals,
    output: &'a Output,
    server: Process,
    /// 0 until the first server has said which one it took; the next ones get the same.
    port: u16,
    restarts: u32,
    agencies: Vec<(AgencyId, Process)>,
}

impl<'a> LiveContest<'a> {
    /// Starts the server.
    ///
    /// # Errors
    /// It can't be started.
    pub fn new(
        folder: &'a Path,
        size: u16,
        signals: &'a Signals,
        output: &'a Output,
    ) -> Result<Self, DemoError> {
        let server = start_server(folder, size, 0)?;
        Ok(Self { folder, size, signals, output, server, port: 0, restarts: 0, agencies: Vec::new() })
    }

    /// Runs the agencies until all of them have their results.
    ///
    /// # Errors
    /// A process failed, or a signal came.
    pub fn run(&mut self) -> Result<Claims, DemoError> {
        self.await_listening()?;
        let begun = Instant::now();
        self.start_agencies()?;
        while !self.all_agencies_have_ended()? {
            self.wait(TICK)?;
            self.keep_server_alive()?;
            if let Ok(status) = status::ask(self.address(), Instant::now() + PEEK_LIMIT) {
                self.output.stored(status.bets);
            }
        }
        let duration = begun.elapsed();
        Ok(Claims { status: self.last_status()?, winners: self.winners()?, duration })
    }

    /// Asks all processes to end, and kills those that do not.
    ///
    /// # Errors
    /// The server did not end as it should.
    pub fn stop(mut self) -> Result<(), DemoError> {
        let limit = Instant::now() + STOP_LIMIT;
        for (_, agency) in &mut self.agencies {
            agency.ask_to_end()?;
        }
        self.server.ask_to_end()?;
        while Instant::now() < limit && !self.all_have_ended()? {
            // Whoever sends another signal wants what is being done already.
            let _: bool = self.signal_came(SHORT_TICK)?;
        }
        match self.server.ended()? {
            Some(status) if !status.success() => Err(self.server_ended(status)),
            Some(_) => Ok(()),
            None => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        }
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Waits for a while, or until a child ends.
    fn wait(&self, time: Duration) -> Result<(), DemoError> {
        if self.signal_came(time)? { Err(DemoError::Interrupted) } else { Ok(()) }
    }

    /// Waits for a while, or until a child ends; whether a signal that ends the demo came.
    fn signal_came(&self, time: Duration) -> io::Result<bool> {
        let mut waiting = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut came = false;
        while let Some(signal) = self.signals.take()? {
            came |= is_termination(signal);
        }
        Ok(came)
    }

    /// Waits until the server listens, and says so; or until it has ended.
    fn await_listening(&mut self) -> Result<(), DemoError> {
        let limit = Instant::now() + START_LIMIT;
        while Instant::now() < limit {
            if let Some(port) = self.server.logged("listen", "port")? {
                self.port = port.parse().map_err(io::Error::other)?;
                return Ok(self.output.say(&format!("server: pid {}, port {port}", self.server.id()))?);
            }
            if let Some(status) = self.server.ended()? {
                let killed = status.signal().is_some() && self.port != 0;
                return if killed { Ok(()) } else { Err(self.server_ended(status)) };
            }
            self.wait(SHORT_TICK)?;
        }
        Err(DemoError::NotListening { last_line: self.server.last_line() })
    }

    /// Starts the server again if a signal has ended it.
    fn keep_server_alive(&mut self) -> Result<(), DemoError> {
        while let Some(status) = self.server.ended()? {
            let Some(signal) = status.signal().filter(|_| self.restarts < MAX_RESTARTS) else {
                return Err(self.server_ended(status));
            };
            self.restarts += 1;
            self.output.say(&format!("server: killed by signal {signal}, starting it again"))?;
            self.server = start_server(self.folder, self.size, self.port)?;
            self.await_listening()?;
        }
        Ok(())
    }

    fn server_ended(&self, status: ExitStatus) -> DemoError {
        DemoError::ServerEnded { status, last_line: self.server.last_line() }
    }

    fn start_agencies(&mut self) -> Result<(), DemoError> {
        self.output.say(&format!("agencies: {}", self.size))?;
        for agency in (1..=self.size).filter_map(AgencyId::new) {
            let process = start_agency(self.folder, agency, self.address())?;
            self.agencies.push((agency, process));
        }
        Ok(())
    }

    fn all_agencies_have_ended(&mut self) -> Result<bool, DemoError> {
        let mut all = true;
        for (agency, process) in &mut self.agencies {
            match process.ended()? {
                Some(status) if !status.success() => {
                    let last_line = process.last_line();
                    return Err(DemoError::AgencyEnded { agency: *agency, status, last_line });
                }
                Some(_) => {}
                None => all = false,
            }
        }
        Ok(all)
    }

    fn all_have_ended(&mut self) -> io::Result<bool> {
        for (_, process) in &mut self.agencies {
            if process.ended()?.is_none() {
                return Ok(false);
            }
        }
        Ok(self.server.ended()?.is_some())
    }

    fn last_status(&mut self) -> Result<Status, DemoError> {
        loop {
            self.keep_server_alive()?;
            match status::ask(self.address(), Instant::now() + status::DEADLINE) {
                Ok(status) => return Ok(status),
                // Killed in the last moment: it is started again.
                Err(_) if self.server.ended()?.is_some() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn winners(&self) -> Result<Vec<(AgencyId, u64)>, DemoError> {
        let winners_of = |(agency, process): &(AgencyId, Process)| {
            let logged = process.logged("consulta_ganadores", "cant_ganadores")?;
            let winners = logged.and_then(|text| text.parse().ok()).ok_or(DemoError::NoWinners(*agency))?;
            Ok((*agency, winners))
        };
        self.agencies.iter().map(winners_of).collect()
    }
}

fn start_server(folder: &Path, size: u16, port: u16) -> io::Result<Process> {
    let changes = [
        ("SERVER_IP", Ipv4Addr::LOCALHOST.to_string()),
        ("SERVER_PORT", port.to_string()),
        ("CLIENTS_AMOUNT", size.to_string()),
        ("MAX_CLIENTS", size.saturating_add(SPARE_CLIENTS).to_string()),
        ("STORAGE_FILEPATH", super::BETS_FILE.to_owned()),
    ];
    Process::start(folder, "server", variables(&SERVER_SETTINGS, &changes), "server.log")
}

fn start_agency(folder: &Path, agency: AgencyId, server: SocketAddr) -> io::Result<Process> {
    let changes = [("ID", agency.to_string()), ("SERVER_ADDRESS", server.to_string())];
    let log = format!("agency-{agency}.log");
    Process::start(folder, "agency", variables(&AGENCY_SETTINGS, &changes), &log)
}

/// Every setting as an environment variable, so that no `config.ini` of the folder has a say.
fn variables(settings: &Settings, changes: &[(&str, String)]) -> Vec<Variable> {
    let value_of = |setting: &Setting| {
        let change = changes.iter().find(|(key, _)| *key == setting.key);
        change.map_or_else(|| setting.default.to_owned(), |(_, value)| value.clone())
    };
    settings.rows.iter().map(|setting| (settings.variable(setting.key), value_of(setting))).collect()
}

//! Starts the processes of the contest, supervises them and stops them.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::error::DemoError;
use super::process::Process;
use crate::audit::{Count, Tally};
use crate::config::{AGENCY_SETTINGS, SERVER_SETTINGS, Settings};
use crate::lottery::{AgencyId, Digest, Seal};
use crate::protocol::status::Status;
use crate::status;
use crate::system::signal::{Signals, is_termination};
use crate::tls::client::Target;

/// The server's file of bets, in the demo's folder.
pub(crate) const BETS_FILE: &str = "bets.csv";

/// The time between two status requests.
const TICK: Duration = Duration::from_millis(150);
/// The time between two looks at the server's log until it listens.
const SHORT_TICK: Duration = Duration::from_millis(10);
/// The time in which a server must listen. It may have to wait for a killed one to end, and to read a long file.
const START_LIMIT: Duration = Duration::from_mins(1);
/// The time limit of a status request for the progress bar. It delays the reaction to a signal.
const PEEK_LIMIT: Duration = Duration::from_millis(300);
/// The time after which a server that has not ended is killed.
const STOP_LIMIT: Duration = Duration::from_secs(3);
/// How often, at most, a server that was killed is started again.
const MAX_RESTARTS: u32 = 5;
/// Connections that the server serves besides the agencies'.
const SPARE_CLIENTS: u16 = 64;

/// What server and agencies report at the end.
pub(crate) struct Reported {
    /// The bets, winners and digests by the agencies' logs.
    pub(crate) tally: Tally,
    pub(crate) winning_number: u32,
    pub(crate) seal: Option<Seal>,
    /// From the start of the agencies to the end of the last.
    pub(crate) duration: Duration,
}

/// A running contest.
pub(crate) struct Contest<'a> {
    folder: &'a Path,
    size: u16,
    signals: &'a Signals,
    /// Draws nothing unless standard error is a terminal.
    bar: ProgressBar,
    server: Process,
    /// 0 until the first server listens. A server that is started again gets the same port.
    port: u16,
    restarts: u32,
    agencies: Vec<(AgencyId, Process)>,
}

impl<'a> Contest<'a> {
    /// Start the server. Each agency will have that many bets.
    pub(crate) fn start(
        folder: &'a Path,
        size: u16,
        bets: u64,
        signals: &'a Signals,
    ) -> Result<Self, DemoError> {
        let bar = ProgressBar::new(u64::from(size) * bets);
        if let Ok(style) =
            ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} bets stored, {elapsed}")
        {
            bar.set_style(style);
        }
        let server = start_server(folder, size, 0)?;
        Ok(Self { folder, size, signals, bar, server, port: 0, restarts: 0, agencies: Vec::new() })
    }

    /// Run the agencies until all of them have their results.
    pub(crate) fn run(&mut self) -> Result<Reported, DemoError> {
        self.await_listening()?;
        let begun = Instant::now();
        self.say(&format!("agencies: {}", self.size))?;
        for agency in all_agencies(self.size) {
            self.agencies.push((agency, start_agency(self.folder, agency, self.address())?));
        }
        while !self.agencies_have_ended()? {
            self.wait(TICK)?;
            self.keep_server_alive()?;
            if let Ok(status) = self.status(PEEK_LIMIT) {
                self.bar.set_position(status.bets);
            }
        }
        let duration = begun.elapsed();
        let status = self.last_status()?;
        let winning_number = status.draw.as_ref().map_or(0, |draw| draw.winning_number);
        Ok(Reported { tally: self.tally()?, winning_number, seal: status.seal(), duration })
    }

    /// End all processes.
    pub(crate) fn stop(mut self) -> Result<(), DemoError> {
        let limit = Instant::now() + STOP_LIMIT;
        self.bar.finish_and_clear();
        // Those that have not ended are killed.
        self.agencies.clear();
        self.server.terminate()?;
        loop {
            match self.server.ended()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.server_ended(status)),
                // Another signal asks for what is already being done.
                None if Instant::now() < limit => drop(self.signals.wait(SHORT_TICK)?),
                None => return Err(DemoError::NotEnding { last_line: self.server.last_line() }),
            }
        }
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    fn status(&self, limit: Duration) -> Result<Status, status::StatusError> {
        status::ask(&Target::plain(&self.address()), limit)
    }

    /// Print a line above the bar.
    fn say(&self, line: &str) -> io::Result<()> {
        self.bar.suspend(|| writeln!(io::stdout(), "{line}"))
    }

    /// Wait for that time, or until a child ends.
    fn wait(&self, time: Duration) -> Result<(), DemoError> {
        match self.signals.wait(time)? {
            Some(signal) if is_termination(signal) => Err(DemoError::Interrupted),
            _ => Ok(()),
        }
    }

    /// Wait until the server listens, or has been killed.
    fn await_listening(&mut self) -> Result<(), DemoError> {
        let limit = Instant::now() + START_LIMIT;
        while Instant::now() < limit {
            if let Some(port) = self.server.logged("listen", "port")? {
                self.port = port.parse().map_err(io::Error::other)?;
                return Ok(self.say(&format!("server: pid {}, port {port}", self.server.id()))?);
            }
            if let Some(status) = self.server.ended()? {
                let killed = status.signal().is_some() && self.port != 0;
                return if killed { Ok(()) } else { Err(self.server_ended(status)) };
            }
            self.wait(SHORT_TICK)?;
        }
        Err(DemoError::NotListening { last_line: self.server.last_line() })
    }

    /// Start the server again if it was killed.
    fn keep_server_alive(&mut self) -> Result<(), DemoError> {
        while let Some(status) = self.server.ended()? {
            let Some(signal) = status.signal().filter(|_| self.restarts < MAX_RESTARTS) else {
                return Err(self.server_ended(status));
            };
            self.restarts += 1;
            self.say(&format!("server: killed by signal {signal}, starting it again"))?;
            self.server = start_server(self.folder, self.size, self.port)?;
            self.await_listening()?;
        }
        Ok(())
    }

    fn server_ended(&self, status: ExitStatus) -> DemoError {
        DemoError::ServerEnded { status, last_line: self.server.last_line() }
    }

    fn agencies_have_ended(&mut self) -> Result<bool, DemoError> {
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

    fn last_status(&mut self) -> Result<Status, DemoError> {
        loop {
            self.keep_server_alive()?;
            match self.status(status::DEADLINE) {
                Ok(status) => return Ok(status),
                // It was killed meanwhile, and is started again.
                Err(_) if self.server.ended()?.is_some() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn tally(&self) -> Result<Tally, DemoError> {
        let mut tally = Tally::default();
        for (agency, process) in &self.agencies {
            let number = |action: &str, key: &str, radix: u32| {
                let text = process.logged(action, key)?.unwrap_or_default();
                u64::from_str_radix(&text, radix).map_err(|_| DemoError::NoResult(*agency))
            };
            let (bets, digest) = (number("end_message", "bets", 10)?, number("end_message", "digest", 16)?);
            let winners = number("consulta_ganadores", "cant_ganadores", 10)?;
            tally.set(*agency, Count { bets, winners, digest: Digest(digest) });
        }
        Ok(tally)
    }
}

/// The agencies of a contest of that size.
pub(crate) fn all_agencies(size: u16) -> impl Iterator<Item = AgencyId> {
    (1..=size).filter_map(AgencyId::new)
}

fn start_server(folder: &Path, size: u16, port: u16) -> io::Result<Process> {
    let changes = [
        ("SERVER_IP", Ipv4Addr::LOCALHOST.to_string()),
        ("SERVER_PORT", port.to_string()),
        ("CLIENTS_AMOUNT", size.to_string()),
        ("MAX_CLIENTS", size.saturating_add(SPARE_CLIENTS).to_string()),
        ("STORAGE_FILEPATH", BETS_FILE.to_owned()),
    ];
    Process::start(folder, "server", variables(&SERVER_SETTINGS, &changes), "server.log")
}

fn start_agency(folder: &Path, agency: AgencyId, server: SocketAddr) -> io::Result<Process> {
    let changes = [("ID", agency.to_string()), ("SERVER_ADDRESS", server.to_string())];
    let log = format!("agency-{agency}.log");
    Process::start(folder, "agency", variables(&AGENCY_SETTINGS, &changes), &log)
}

/// All settings as environment variables, so that a `config.ini` in the folder has no effect.
fn variables(settings: &Settings, changes: &[(&str, String)]) -> impl Iterator<Item = (String, String)> {
    settings.rows.iter().map(|setting| {
        let change = changes.iter().find(|(key, _)| *key == setting.key);
        let value = change.map_or_else(|| setting.default.to_owned(), |(_, value)| value.clone());
        (settings.variable(setting.key), value)
    })
}

//! Starts the processes of the contest, supervises them and stops them.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::error::DemoError;
use super::process::Process;
use crate::audit::{Count, Tally};
use crate::config::{AGENCY_SETTINGS, SERVER_SETTINGS, Settings};
use crate::lottery::{AgencyId, Digest};
use crate::server::storage::state_file::Stored;
use crate::status;
use crate::system::signal::{Signals, is_termination};
use crate::tls::client::Target;

/// The server's file of bets, in the demo's folder.
pub(crate) const BETS_FILE: &str = "bets.csv";

/// The time between two status requests.
const TICK: Duration = Duration::from_millis(150);
/// The time between two looks at the server's log until it listens.
const SHORT_TICK: Duration = Duration::from_millis(10);
/// The time in which a server must listen. It may have to wait for the end of a killed one, and to read a long file.
const START_LIMIT: Duration = Duration::from_mins(1);
/// The time limit of a status request. It delays the reaction to a signal.
const STATUS_LIMIT: Duration = Duration::from_millis(300);
/// The time after which a server that has not ended is killed.
const STOP_LIMIT: Duration = Duration::from_secs(3);
/// How often, at most, a server that was killed is started again.
const MAX_RESTARTS: u32 = 5;
/// Connections that the server serves besides the agencies'.
const SPARE_CLIENTS: u16 = 64;

/// A running contest.
pub(crate) struct Contest<'a> {
    folder: &'a Path,
    size: u16,
    signals: &'a Signals,
    /// Draws nothing unless standard error is a terminal.
    bar: ProgressBar,
    server: Process,
    /// Whether the server listens.
    listens: bool,
    /// 0 until the first server listens. A server that is started again gets the same port.
    port: u16,
    restarts: u32,
    agencies: Vec<(AgencyId, Process)>,
}

impl<'a> Contest<'a> {
    /// Starts the server. Each agency will have that many bets.
    pub(crate) fn start(
        folder: &'a Path,
        size: u16,
        bets: u64,
        signals: &'a Signals,
    ) -> Result<Self, DemoError> {
        let template = "{bar:40} {human_pos} of {human_len} bets stored, {elapsed}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(u64::from(size) * bets).with_style(style);
        let server = start_server(folder, size, 0)?;
        let agencies = Vec::new();
        Ok(Self { folder, size, signals, bar, server, listens: false, port: 0, restarts: 0, agencies })
    }

    /// Runs the agencies until all have their results. Returns what they report, and how long they took.
    pub(crate) fn run(&mut self) -> Result<(Tally, Duration), DemoError> {
        self.keep_server_alive()?;
        let begun = Instant::now();
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        self.say(&format!("agencies: {}", self.size))?;
        for agency in all_agencies(self.size) {
            self.agencies.push((agency, start_agency(self.folder, agency, server)?));
        }
        while !self.agencies_have_ended()? {
            self.wait(TICK)?;
            self.keep_server_alive()?;
            if let Ok(status) = status::ask(&Target::plain(&server), STATUS_LIMIT) {
                self.bar.set_position(status.bets);
            }
        }
        let duration = begun.elapsed();
        Ok((self.tally()?, duration))
    }

    /// Ends all processes.
    pub(crate) fn stop(mut self) -> Result<(), DemoError> {
        let limit = Instant::now() + STOP_LIMIT;
        self.bar.finish_and_clear();
        // Those that have not ended are killed.
        self.agencies.clear();
        self.server.terminate()?;
        loop {
            match self.server.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.server.failure(format_args!("the server ended ({status})"))),
                // Another signal asks for what is already being done.
                None if Instant::now() < limit => drop(self.signals.wait(SHORT_TICK)?),
                None => return Err(self.server.failure("the server does not end")),
            }
        }
    }

    /// Prints a line above the bar.
    fn say(&self, line: &str) -> io::Result<()> {
        self.bar.suspend(|| writeln!(io::stdout(), "{line}"))
    }

    /// Waits for that time, or until a child ends.
    fn wait(&self, time: Duration) -> Result<(), DemoError> {
        match self.signals.wait(time)? {
            Some(signal) if is_termination(signal) => Err(DemoError::Interrupted),
            _ => Ok(()),
        }
    }

    /// Starts the server again if it was killed, and waits until it listens.
    fn keep_server_alive(&mut self) -> Result<(), DemoError> {
        let limit = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = self.server.child.try_wait()? {
                let Some(signal) = status.signal().filter(|_| self.restarts < MAX_RESTARTS) else {
                    return Err(self.server.failure(format_args!("the server ended ({status})")));
                };
                self.restarts += 1;
                self.say(&format!("server: killed by signal {signal}, starting it again"))?;
                self.server = start_server(self.folder, self.size, self.port)?;
                self.listens = false;
            } else if self.listens {
                return Ok(());
            } else if let Some(port) = self.server.logged("listen", "port")? {
                self.port = port.parse().map_err(io::Error::other)?;
                self.listens = true;
                self.say(&format!("server: pid {}, port {port}", self.server.child.id()))?;
            } else if Instant::now() < limit {
                self.wait(SHORT_TICK)?;
            } else {
                return Err(self.server.failure("the server does not listen"));
            }
        }
    }

    fn agencies_have_ended(&mut self) -> Result<bool, DemoError> {
        let mut all = true;
        for (agency, process) in &mut self.agencies {
            match process.child.try_wait()? {
                Some(status) if status.success() => {}
                Some(status) => {
                    return Err(process.failure(format_args!("agency {agency} ended ({status})")));
                }
                None => all = false,
            }
        }
        Ok(all)
    }

    /// Reads from the agencies' logs which bets are stored, and how many won.
    fn tally(&self) -> Result<Tally, DemoError> {
        let mut tally = Tally::default();
        for (agency, process) in &self.agencies {
            let number = |action: &str, key: &str, radix: u32| {
                let text = process.logged(action, key)?.unwrap_or_default();
                u64::from_str_radix(&text, radix)
                    .map_err(|_| process.failure(format_args!("agency {agency} does not log its {key}")))
            };
            let (bets, digest) = (number("end_message", "bets", 10)?, number("end_message", "digest", 16)?);
            let winners = number("consulta_ganadores", "cant_ganadores", 10)?;
            let stored = Stored { bets, digest: Digest(digest.to_be_bytes()) };
            tally.set(*agency, Count { stored, winners });
        }
        Ok(tally)
    }
}

/// Returns the agencies of a contest of that size.
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

/// Returns all settings as environment variables, so that a `config.ini` in the folder has no effect.
fn variables(settings: &Settings, changes: &[(&str, String)]) -> impl Iterator<Item = (String, String)> {
    settings.rows.iter().map(|setting| {
        let change = changes.iter().find(|(key, _)| *key == setting.key);
        let value = change.map_or_else(|| setting.default.to_owned(), |(_, value)| value.clone());
        (settings.variable(setting.key), value)
    })
}

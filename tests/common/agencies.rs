//! `loteria agency`, run as a process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::program::{Running, loteria};
use super::{Bet, Log, Setup, until};

/// The bets of an agency's file in the setup's folder.
pub fn bets_of(setup: &Setup, agency: u32) -> Vec<Bet> {
    let path = setup.path(&format!("agency-{agency}.csv"));
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_path(path).unwrap();
    let records = reader.records().map(|record| record.unwrap());
    let bets = records.map(|record| Bet {
        agency,
        first_name: record[0].to_owned(),
        last_name: record[1].to_owned(),
        document: record[2].to_owned(),
        birthdate: record[3].to_owned(),
        number: record[4].parse().unwrap(),
    });
    bets.collect()
}

/// A running agency.
#[derive(Debug)]
pub struct Agency {
    process: Running,
    log: PathBuf,
}

impl Agency {
    /// Starts it in this folder, which has its bets, with these variables in its environment.
    pub fn start(folder: &Path, number: u32, address: &str, variables: &[(&str, &str)]) -> Self {
        let log = folder.join(format!("agency-log-{number}"));
        let mut command = Self::command(folder, number, address, variables);
        let process = Running::start(command.stderr(File::create(&log).unwrap()));
        Self { process, log }
    }

    /// The command that runs it.
    pub fn command(folder: &Path, number: u32, address: &str, variables: &[(&str, &str)]) -> Command {
        let mut command = loteria(&["agency"]);
        command.current_dir(folder).env("CLI_ID", number.to_string()).env("CLI_SERVER_ADDRESS", address);
        command.envs(variables.iter().copied());
        command
    }

    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Its log so far.
    pub fn log(&self) -> Log {
        Log(fs::read_to_string(&self.log).unwrap())
    }

    /// Waits until its log contains the text this many times.
    pub fn await_log(&self, text: &str, times: usize) {
        until(text, || self.log().0.matches(text).count() >= times);
    }

    /// How it ended. None if it still runs.
    pub fn try_end(&mut self) -> Option<ExitStatus> {
        self.process.try_wait()
    }

    /// Waits for its end. Its log must keep to the grammar.
    #[track_caller]
    pub fn end(&mut self) -> ExitStatus {
        let status = self.process.end();
        self.log().assert_well_formed();
        status
    }

    /// Waits for its end with exit code 0.
    #[track_caller]
    pub fn succeed(&mut self) -> Log {
        let status = self.end();
        assert_eq!(status.code(), Some(0), "{}", self.log().0);
        self.log()
    }

    /// Waits for its end with exit code 1. Returns the last line of its log, without the agency.
    #[track_caller]
    pub fn fail(&mut self) -> String {
        let status = self.end();
        let log = self.log();
        assert_eq!(status.code(), Some(1), "{}", log.0);
        let last = log.lines().last().unwrap();
        assert!(last.starts_with("CRITICAL action: agency | result: fail"), "{}", log.0);
        last.rsplit_once(" | agency_id: ").unwrap().0.to_owned()
    }

    /// Sends it a signal. It must end with exit code 0 within a second.
    #[track_caller]
    pub fn terminate(&mut self, signal: Signal) {
        let begun = Instant::now();
        self.process.signal(signal);
        self.succeed();
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
}

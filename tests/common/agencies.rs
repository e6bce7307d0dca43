//! Agencies of this program, as processes, with files of made-up bets in the server's folder.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{Bet, Log, Setup, until};

/// The bets of an agency's file.
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

/// An agency in session mode. It is killed when it goes out of scope.
#[derive(Debug)]
pub struct RunningAgency {
    child: Child,
    log: PathBuf,
}

impl RunningAgency {
    /// Starts it, against the server on the setup's port.
    pub fn start(setup: &Setup, agency: u32) -> Self {
        let log = setup.path(&format!("agency-log-{agency}"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_loteria"));
        command.arg("agency").current_dir(setup.path("."));
        for setting in loteria::config::AGENCY_SETTINGS {
            command.env_remove(format!("CLI_{}", setting.key));
        }
        command.env("CLI_ID", agency.to_string());
        command.env("CLI_SERVER_ADDRESS", format!("127.0.0.1:{}", setup.setting("SERVER_PORT")));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        loteria::system::process::die_with_parent(&mut command);
        Self { child: command.spawn().unwrap(), log }
    }

    /// Waits for its end, which must be a good one; how many of its bets won, as it says.
    pub fn winners(mut self) -> String {
        let mut status = None;
        until("the agency ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let log = Log(std::fs::read_to_string(&self.log).unwrap());
        assert_eq!(status.unwrap().code(), Some(0), "{}", log.0);
        log.assert_well_formed();
        log.value("consulta_ganadores", "cant_ganadores").expect("a result")
    }
}

impl Drop for RunningAgency {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

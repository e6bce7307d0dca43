//! `loteria demo`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};

use common::program::PROGRAM;
use common::{Running, free_port, loteria, output, processes, text, until};
use nix::sys::signal::Signal;

/// A running demo in a folder of its own.
struct Demo {
    folder: tempfile::TempDir,
    process: Running,
    output: BufReader<ChildStdout>,
}

impl Demo {
    fn start(agencies: u32, bets: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The configuration of another contest must not matter.
        fs::write(folder.path().join("config.ini"), "[DEFAULT]\nNONSENSE = 1\n").unwrap();
        let [agencies, bets] = [agencies, bets].map(|count| count.to_string());
        let mut command = loteria(&["demo", "--agencies", &agencies, "--bets", &bets, "--dir", "contest"]);
        command.current_dir(folder.path()).envs([
            ("CLIENTS_AMOUNT", "99"),
            ("CLI_ID", "77"),
            ("LOGGING_LEVEL", "CRITICAL"),
        ]);
        let mut process = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let output = BufReader::new(process.stdout());
        Self { folder, process, output }
    }

    /// Reads its output up to the line about the server. Returns the server's process ID.
    fn server(&mut self) -> i32 {
        let mut read = String::new();
        while self.output.read_line(&mut read).unwrap() > 0 {
            let line = read.lines().last().unwrap();
            if let Some((id, _)) =
                line.strip_prefix("server: pid ").and_then(|rest| rest.split_once(", port "))
            {
                return id.parse().unwrap();
            }
        }
        panic!("no server in {read} {:?}", self.end());
    }

    fn bets_file(&self) -> std::path::PathBuf {
        self.folder.path().join("contest/bets.csv")
    }

    fn await_bets(&self) {
        until("a bet on the disk", || fs::metadata(self.bets_file()).is_ok_and(|file| file.size() > 0));
    }

    /// Waits for its end. Returns how it ended, the rest of its output, and its errors.
    fn end(&mut self) -> (ExitStatus, String, String) {
        let (mut out, mut error) = (String::new(), String::new());
        self.output.read_to_string(&mut out).unwrap();
        self.process.stderr().read_to_string(&mut error).unwrap();
        let status = self.process.end();
        assert_eq!(processes_in(self.folder.path()), [], "{error}");
        (status, out, error)
    }

    fn succeed(&mut self, agencies: u32, bets: u64) -> String {
        let (status, out, error) = self.end();
        assert_eq!((status.code(), &*error), (Some(0), ""), "{out}");
        let mut counted = vec![(0, 0); agencies as usize];
        let mut rows = csv::ReaderBuilder::new().has_headers(false).from_path(self.bets_file()).unwrap();
        for row in rows.records().map(Result::unwrap) {
            let agency = counted.get_mut(row[0].parse::<usize>().unwrap() - 1).unwrap();
            agency.0 += 1;
            agency.1 += u64::from(&row[5] == "7574");
        }
        for (index, (stored, winners)) in counted.into_iter().enumerate() {
            assert_eq!(stored, bets);
            let agency = (index + 1).to_string();
            let expected = [agency, stored.to_string(), winners.to_string()];
            assert!(out.lines().any(|line| line.split_whitespace().eq(&expected)), "{expected:?} in {out}");
        }
        out
    }
}

/// The processes of the contest in `folder`, without the demo itself.
fn processes_in(folder: &Path) -> Vec<(i32, String)> {
    let contest = folder.join("contest");
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let found = entries.filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let inside = fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == contest);
        let command = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        // A zombie has no command line.
        (inside && !command.is_empty()).then(|| (id, command.replace('\0', " ")))
    });
    found.collect()
}

#[test]
fn the_table_agrees_with_the_file_and_no_process_is_left() {
    let mut demo = Demo::start(3, 1000);
    let out = demo.succeed(3, 1000);
    assert!(
        out.contains("server: pid ") && out.contains("time: ") && out.contains("seal: 3000 bets, "),
        "{out}"
    );
    assert!(out.contains(&format!("bets: {}", demo.bets_file().display())), "{out}");
    assert!(!out.contains('\u{1b}'), "{out}");
}

#[test]
fn a_server_that_is_killed_under_load_is_started_again_and_no_bet_is_lost_or_doubled() {
    let mut demo = Demo::start(4, 40_000);
    let server = demo.server();
    demo.await_bets();
    processes::send(server, Signal::SIGKILL);
    let second = demo.server();
    assert_ne!(server, second);
    demo.succeed(4, 40_000);
}

#[test]
fn a_signal_stops_everything() {
    for signal in processes::termination_signals() {
        let mut demo = Demo::start(3, 40_000);
        demo.server();
        demo.await_bets();
        demo.process.signal(signal);
        let (status, _, error) = demo.end();
        assert_eq!((status.code(), &*error), (Some(1), "loteria: interrupted\n"));
    }
}

#[test]
fn no_process_outlives_a_demo_that_is_killed() {
    let mut demo = Demo::start(3, 40_000);
    demo.server();
    demo.await_bets();
    demo.process.signal(Signal::SIGKILL);
    until("all are gone", || processes_in(demo.folder.path()).is_empty());
}

#[test]
fn an_agency_that_fails_is_named() {
    let mut demo = Demo::start(3, 40_000);
    demo.server();
    demo.await_bets();
    let processes = processes_in(demo.folder.path());
    let (agency, _) = processes.iter().find(|(_, command)| command.contains(" agency")).unwrap();
    processes::send(*agency, Signal::SIGKILL);
    let (status, _, error) = demo.end();
    assert_eq!(status.code(), Some(1));
    assert!(error.starts_with("loteria: agency ") && error.contains(".log"), "{error}");
}

#[test]
fn a_folder_with_bets_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bets.csv"), "").unwrap();
    let output = output(&mut loteria(&["demo", "--dir", folder.path().to_str().unwrap()]));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("bets.csv"));
}

#[test]
fn the_five_lines_of_the_readme_run_a_contest() {
    let readme = include_str!("../README.md");
    let (_, section) = readme.split_once("\n## Run a contest\n").unwrap();
    let (_, code) = section.split_once("```sh\n").unwrap();
    let (lines, _) = code.split_once("```").unwrap();
    assert_eq!(lines.lines().count(), 5);
    let port = free_port().to_string();
    let script = format!("set -e\ntrap 'kill $(jobs -p)' EXIT\n{}", lines.replace("12345", &port));
    let folder = tempfile::tempdir().unwrap();
    let programs = Path::new(&*PROGRAM).parent().unwrap().display();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir(folder.path()).env("PATH", path).env("SERVER_PORT", &port);
    let output = output(&mut command);
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{error}");
    for part in [
        "agencies ended    2 of 2\nbets stored       2000\ndraw              winning number 7574, ",
        "winning number: 7574 (as drawn, says ./bets.csv.state)\n",
        "     all         2000            6\n\n",
        "./bets.csv: the file of the draw: 2000 bets, ",
        "./bets.csv: 2000 bets of 2 agencies; draw of 2 agencies: winning number 7574, ",
        "; errors: 0, notices: 0\n",
    ] {
        assert!(out.contains(part), "{part}\n{out}{error}");
    }
}

//! Contests in containers, by `docker compose` with the image of this checkout.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::program::output_within;
use super::{Log, output, text};

/// The folder of this checkout, with the Dockerfile and the compose file.
const CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// What of the checkout a contest needs: what the image is made of, and the files of the compose file.
const NEEDED: [&str; 10] = [
    ".cargo",
    ".dockerignore",
    "Cargo.lock",
    "Cargo.toml",
    "Dockerfile",
    "config.ini",
    "docker-compose.yaml",
    "src",
    "tests/common/Cargo.toml",
    "tests/data",
];
/// How long containers may take for an action. Generous, because the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(2);

/// How long a command of the engine may take. The longest one builds the image.
const LONGEST: Duration = Duration::from_mins(20);

/// The right to use the engine, for one contest at a time. Builds the image first. None if no engine answers.
pub fn engine() -> Option<MutexGuard<'static, ()>> {
    static ENGINE: Mutex<()> = Mutex::new(());
    static READY: OnceLock<bool> = OnceLock::new();
    let turn = ENGINE.lock().unwrap_or_else(PoisonError::into_inner);
    let ready = *READY.get_or_init(|| {
        let answers = succeeds(&["info"]) && succeeds(&["compose", "version"]);
        if answers {
            docker(&["compose", "--project-directory", CHECKOUT, "build"]);
        } else {
            // `eprintln!` would not show it: the output of a test that passes is hidden.
            writeln!(io::stderr(), "skipped: no Docker engine with `docker compose` answers").ok();
        }
        answers
    });
    ready.then_some(turn)
}

fn run(arguments: &[&str]) -> io::Result<Output> {
    output_within(LONGEST, Command::new("docker").args(arguments))
}

fn succeeds(arguments: &[&str]) -> bool {
    run(arguments).is_ok_and(|output| output.status.success())
}

/// Runs `docker`. Returns both outputs, because containers log to standard error.
pub fn docker(arguments: &[&str]) -> String {
    let output = run(arguments).unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "docker {arguments:?}: {text}");
    text
}

/// A contest: a compose project and the folder with its agencies' files. Both are removed when it goes out of scope.
#[derive(Debug)]
pub struct Contest {
    project: String,
    directory: PathBuf,
    folder: TempDir,
    data: PathBuf,
    agencies: usize,
}

impl Contest {
    /// The contest of this checkout, in a copy of what it needs.
    pub fn of_checkout() -> Self {
        let this = Self::in_folder("checkout", 5);
        let mut copy = Command::new("cp");
        copy.args(["--recursive", "--parents"]).args(NEEDED).arg(&this.directory).current_dir(CHECKOUT);
        assert!(output(&mut copy).status.success());
        this.with_agencies(5, "tests/data")
    }

    /// A contest whose agencies have these numbers of bets.
    pub fn of_agencies(name: &str, bets: &[u32]) -> Self {
        let this = Self::in_folder(name, bets.len());
        let agencies = bets.len().to_string();
        let bets = bets.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        loteria(&["sample", "--agencies", &agencies, "--bets", &bets, "--dir", this.data.to_str().unwrap()]);
        let file = loteria(&["compose", "--agencies", &agencies, "--data", "data"]);
        fs::write(this.directory.join("docker-compose.yaml"), file).unwrap();
        this
    }

    fn in_folder(name: &str, agencies: usize) -> Self {
        let folder = tempfile::Builder::new().prefix("loteria-test-").tempdir().unwrap();
        let directory = folder.path().canonicalize().unwrap();
        let project = format!("loteria-test-{name}-{}", std::process::id());
        Self { project, data: directory.join("data"), directory, folder, agencies }
    }

    /// The same project with other agencies, whose files are in the folder `data`.
    #[must_use]
    pub fn with_agencies(mut self, agencies: usize, data: &str) -> Self {
        (self.agencies, self.data) = (agencies, self.directory.join(data));
        self
    }

    /// Writes a file beside the compose file.
    pub fn with_file(self, name: &str, text: &str) -> Self {
        fs::write(self.directory.join(name), text).unwrap();
        self
    }

    /// Runs `docker compose`. Returns what it prints.
    pub fn compose(&self, arguments: &[&str]) -> String {
        let directory = self.directory.to_str().unwrap();
        docker(&[&["compose", "-p", &self.project, "--project-directory", directory], arguments].concat())
    }

    /// Runs a script in the project's folder. Returns what it prints, also on standard error.
    pub fn run(&self, script: &str, variables: &[(&str, &str)]) -> String {
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &format!("exec 2>&1\n{script}")]).current_dir(&self.directory);
        bash.env_remove("TZ").env("COMPOSE_PROJECT_NAME", &self.project).envs(variables.iter().copied());
        let output = output_within(LONGEST, bash.stdin(Stdio::null())).unwrap();
        let said = text(&output.stdout);
        assert!(output.status.success(), "{script}\n--- ended with {}:\n{said}", output.status);
        said
    }

    /// The name of the compose project.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// A file in the project's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Starts the services that do not run.
    pub fn up(&self) {
        self.compose(&["up", "--detach"]);
    }

    /// The name of a service's container.
    pub fn container(&self, service: &str) -> String {
        format!("{}-{service}-1", self.project)
    }

    /// What `docker inspect` says of a service's container. `value` is a field of a Go template.
    pub fn inspect(&self, service: &str, value: &str) -> String {
        docker(&["inspect", "--format", &format!("{{{{{value}}}}}"), &self.container(service)])
            .trim()
            .to_owned()
    }

    /// The log of a service since its container was created.
    pub fn log(&self, service: &str) -> Log {
        Log(docker(&["logs", &self.container(service)]))
    }

    /// The number of stored bets in the server's status. None while it does not answer.
    pub fn stored(&self) -> Option<u64> {
        let server = self.container("server");
        let output = run(&["exec", &server, "/loteria", "status", "--json"]).unwrap();
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        status["bets"].as_u64()
    }

    /// Waits until some of the bets are stored, but not all.
    pub fn wait_for_load(&self) {
        self.until("bets are stored", || self.stored().is_some_and(|stored| stored > 1000));
        let all: usize = (1..=self.agencies).map(|agency| self.rows(agency).len()).sum();
        assert!(self.stored().unwrap() < all as u64, "all bets are stored already");
    }

    /// Waits until the condition holds.
    pub fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(
                Instant::now() < deadline,
                "this did not happen: {what}\n{}",
                self.compose(&["ps", "-a"])
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until all agencies have ended with exit code 0. Each must have logged its winners once for each start.
    pub fn wait_for_winners(&self, starts: usize) {
        for agency in 1..=self.agencies {
            let client = format!("client{agency}");
            self.until(&client, || self.inspect(&client, ".State.Status") == "exited");
            let log = self.log(&client);
            assert_eq!(self.inspect(&client, ".State.ExitCode"), "0", "{}", log.0);
            let winners = self.rows(agency).iter().filter(|row| row.ends_with(",7574\r\n")).count();
            let event = format!("consulta_ganadores | result: success | cant_ganadores: {winners}");
            assert_eq!(log.count("INFO", &event), starts, "{event}\n{}", log.0);
        }
    }

    /// The rows that the bets of an agency become. They have quotes exactly where the agency's file has them.
    fn rows(&self, agency: usize) -> Vec<String> {
        let file = fs::read_to_string(self.data.join(format!("agency-{agency}.csv"))).unwrap();
        file.lines().map(|line| format!("{agency},{line}\r\n")).collect()
    }

    /// The server's file of bets.
    pub fn bets_file(&self) -> String {
        let copy = self.folder.path().join("copy.csv");
        self.compose(&["cp", "server:/data/bets.csv", copy.to_str().unwrap()]);
        fs::read_to_string(copy).unwrap()
    }

    /// Panics unless the bets file contains each bet of each agency once, in the agency's order, and nothing else.
    pub fn assert_all_stored_once(&self) {
        let file = self.bets_file();
        let mut all = 0;
        for agency in 1..=self.agencies {
            let expected = self.rows(agency);
            let own = format!("{agency},");
            let stored: Vec<&str> = file.split_inclusive('\n').filter(|row| row.starts_with(&own)).collect();
            assert!(stored == expected, "agency {agency}: {} of {}", stored.len(), expected.len());
            all += stored.len();
        }
        assert_eq!(file.split_inclusive('\n').count(), all);
    }

    /// Stops the server, which must end with exit code 0. Returns how long that took after the signal.
    pub fn stop_server(&self) -> Duration {
        let begun = docker(&["info", "--format", "{{.SystemTime}}"]);
        self.compose(&["stop", "server"]);
        assert_eq!(self.inspect("server", ".State.ExitCode"), "0", "{}", self.log("server").0);
        let ended = docker(&["info", "--format", "{{.SystemTime}}"]);
        let when = |action: &str| self.time_of(action, begun.trim(), ended.trim());
        Duration::from_nanos(when("die") - when("kill"))
    }

    /// The time of the last event of this kind of the server's container, in nanoseconds.
    fn time_of(&self, action: &str, since: &str, until: &str) -> u64 {
        let container = format!("container={}", self.container("server"));
        let action = format!("event={action}");
        let format = ["--format", "{{.TimeNano}}"];
        let limits = ["events", "--since", since, "--until", until];
        let times = docker(&[&limits[..], &["--filter", &container, "--filter", &action], &format].concat());
        times.lines().last().and_then(|time| time.parse().ok()).expect("an event of that kind")
    }
}

impl Drop for Contest {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = run(&["logs", "--tail", "50", &self.container("server")]);
            eprintln!(
                "--- the server's log\n{}",
                log.map_or_else(|_| String::new(), |log| String::from_utf8_lossy(&log.stderr).into_owned())
            );
        }
        let directory = self.directory.to_str().unwrap();
        let project = ["compose", "-p", &self.project, "--project-directory", directory];
        // Without `--profile` the metrics service would stay, and with it the network.
        run(&[&project[..], &["--profile", "metrics", "down", "--volumes", "--timeout", "2"]].concat()).ok();
    }
}

fn loteria(arguments: &[&str]) -> String {
    let output = output(&mut super::loteria(arguments));
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

//! What one could take instead: PostgreSQL with its own settings, which are as durable. The same bets come by `COPY` from a
//! connection for each agency, and each batch is a transaction.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use loteria::system::process::signal_child;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, User, geteuid};

use super::sessions::{bring, rate};
use super::{AGENCIES, Bench};
use crate::load::stream::{Stream, agencies, write_copy_commands};
use crate::measure::Series;
use crate::process::{Process, SERVER, free_port, must_be_success};
use crate::report::{Goal, Row, Unit};

/// Where Debian's packages are, a folder for each version.
const PACKAGES: &str = "/usr/lib/postgresql";
const TABLE: &str = "CREATE TABLE bets (agency integer, first_name text, last_name text, document text, \
                     birthdate date, number bigint)";
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);

pub fn run(bench: &Bench) -> io::Result<Vec<Row>> {
    let Some(programs) = installed() else {
        return Ok(vec![Row::absent("PostgreSQL: not installed")]);
    };
    let rounds = bench.size.rounds;
    bench.progress.begin("postgres", rounds * 2);
    let bets = bench.size.session_bets;
    let streams: Vec<Stream> =
        agencies(AGENCIES).map(|agency| Stream::for_session(agency, 0..bets)).collect::<io::Result<_>>()?;
    let cluster = Cluster::new(programs, &bench.folder)?;
    let scripts: Vec<PathBuf> = agencies(AGENCIES)
        .map(|agency| {
            let script = bench.folder.join(format!("agency-{agency}.sql"));
            write_copy_commands(&script, agency, bets).map(|()| script)
        })
        .collect::<io::Result<_>>()?;
    let (mut sessions, mut postgres) = (Series::default(), Series::default());
    for _ in 0..rounds {
        sessions.push(bench.turn("sessions", || bring(bench, SERVER, &streams))?);
        postgres.push(bench.turn("PostgreSQL", || cluster.store(&scripts, u64::from(AGENCIES) * bets))?);
    }
    let row = |name: &str, values| Row::new(name, Unit::BetsPerSecond, values);
    Ok(vec![
        row("sessions", &sessions).against("PostgreSQL", &postgres, Goal::None),
        row(&format!("  {}", cluster.version()?), &postgres),
    ])
}

/// The programs of the newest version, if there is one.
fn installed() -> Option<PathBuf> {
    let versions = fs::read_dir(PACKAGES).ok()?.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    versions.filter(|programs| programs.join("initdb").exists()).max()
}

/// The files of a PostgreSQL server. It refuses to run as root.
struct Cluster {
    programs: PathBuf,
    folder: PathBuf,
    user: Option<User>,
}

impl Cluster {
    fn new(programs: PathBuf, parent: &Path) -> io::Result<Self> {
        let named = |name| User::from_name(name).ok().flatten();
        let user = geteuid().is_root().then(|| named("postgres").or_else(|| named("nobody"))).flatten();
        let folder = parent.join("postgres");
        fs::create_dir(&folder)?;
        if let Some(user) = &user {
            fs::set_permissions(parent, Permissions::from_mode(0o711))?;
            chown(&folder, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        }
        let cluster = Self { programs, folder, user };
        let mut init = cluster.command("initdb");
        init.args(["-D", "data", "-U", "contest", "--auth=trust", "--encoding=UTF8", "--locale=C"]);
        succeed(&mut init)?;
        Ok(cluster)
    }

    /// A command that runs in the folder as the user.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.env_clear().current_dir(&self.folder);
        if let Some(user) = &self.user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    fn version(&self) -> io::Result<String> {
        let version = succeed(self.command("postgres").arg("--version"))?;
        let number = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        Ok(format!("PostgreSQL {}", number.unwrap_or_default()))
    }

    /// Starts the server, has it store the bets of the scripts, one connection for each, and stops it. Returns bets per second.
    fn store(&self, scripts: &[PathBuf], bets: u64) -> io::Result<f64> {
        let port = free_port()?;
        let mut server = self.command("postgres");
        server.args(["-D", "data", "-k", "", "-h", "127.0.0.1", "-p", &port.to_string()]);
        let mut server = Process::start(server, &self.folder, "server")?;
        let stored = self.store_over(port, scripts, bets);
        signal_child(Pid::from_raw(server.pid()), Signal::SIGINT);
        let ended = server.wait(|_| ()).and_then(must_be_success);
        stored.and_then(|rate| ended.map(|()| rate)).map_err(|error| server.explain(&error))
    }

    fn store_over(&self, port: u16, scripts: &[PathBuf], bets: u64) -> io::Result<f64> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.ask(port, "SELECT 1") {
            if Instant::now() > deadline {
                return Err(error);
            }
            std::thread::sleep(PAUSE);
        }
        self.ask(port, TABLE)?;
        let start = Instant::now();
        let clients: io::Result<Vec<_>> =
            scripts.iter().map(|script| self.client(port).arg("-f").arg(script).spawn()).collect();
        for mut client in clients? {
            must_be_success(client.wait()?)?;
        }
        let time = start.elapsed();
        let stored = self.ask(port, "SELECT count(*) FROM bets")?;
        self.ask(port, "DROP TABLE bets")?;
        if stored.trim() == bets.to_string() { Ok(rate(bets, time)) } else { Err(io::Error::other(stored)) }
    }

    fn ask(&self, port: u16, query: &str) -> io::Result<String> {
        succeed(self.client(port).args(["-c", query]))
    }

    fn client(&self, port: u16) -> Command {
        let mut client = Command::new(self.programs.join("psql"));
        client.env_clear().args([
            "-X",
            "-q",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            "127.0.0.1",
            "-U",
            "contest",
        ]);
        client.args(["-d", "postgres", "-p", &port.to_string()]);
        client
    }
}

/// Runs a command; returns what it has written.
fn succeed(command: &mut Command) -> io::Result<String> {
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    must_be_success(output.status).map_err(|status| io::Error::other(format!("{status}: {text}{error}")))?;
    Ok(text)
}

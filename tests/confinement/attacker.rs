//! An attack is tried by a stand-in first, an ordinary process to which each call must be possible; then by a handler that
//! has read nothing, and by one in a session, to which none may be.

use std::fs::File;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::hijack::Hijacked;
use common::tls::{agency_folder, relay, with_tls};
use common::{Client, Running, RunningServer, Setup, bets, kind};
use nix::errno::Errno;
use nix::libc::c_long;
use nix::sys::signal::Signal;

/// A process that was taken over.
pub struct Attacker {
    pub process: Hijacked,
    /// The processes that it attacks.
    pub victims: Vec<i32>,
    /// A file that it may neither read nor change.
    pub file: PathBuf,
    is_stand_in: bool,
    /// Calls with another result than they should have.
    wrong: Vec<String>,
}

impl Attacker {
    /// Tries a call that only a stand-in may make.
    pub fn tries(&mut self, what: &str, number: c_long, arguments: &[u64]) {
        let result = self.process.call(number, arguments);
        if result.is_ok() != self.is_stand_in {
            self.wrong.push(format!("{what}: {result:?}"));
        }
    }

    /// Makes a call that each process may make.
    pub fn makes(&mut self, what: &str, number: c_long, arguments: &[u64]) {
        self.process.call(number, arguments).expect(what);
    }

    /// Tries a call that the system may refuse to a stand-in too.
    pub fn tries_privileged(&mut self, what: &str, number: c_long, arguments: &[u64]) {
        if !self.is_stand_in {
            self.tries(what, number, arguments);
        }
    }

    /// Tries a call that would do harm on another kind of log than a file: the filter itself must refuse it.
    pub fn tries_on_any_log(&mut self, what: &str, number: c_long, arguments: &[u64]) {
        if !self.is_stand_in {
            let result = self.process.call(number, arguments);
            if result != Err(Errno::EPERM) {
                self.wrong.push(format!("{what}: {result:?}"));
            }
        }
    }

    /// Puts the file's path into its memory.
    pub fn path(&mut self) -> u64 {
        let path = self.file.clone();
        self.put_path(&path)
    }

    pub fn put_path(&mut self, path: &Path) -> u64 {
        self.process.put(&[path.to_str().unwrap().as_bytes(), b"\0"].concat())
    }
}

/// Tries the attack in a server of this setup with TLS, as far as it can be set up: by a handler whose client has sent nothing,
/// which has a socket to the keeper, and in a session over TLS. Afterwards the server must serve, and end at once.
#[track_caller]
pub fn run(setup: Option<Setup>, attack: fn(&mut Attacker)) {
    let Some(setup) = setup else { return };
    if by_stand_in(&setup, attack).is_none() {
        return;
    }
    let server = with_tls(setup, 1).with("PLAIN_AGENCIES", "all").start();
    server.connect().classic(kind::BET, &bets(1, 0..1)[0].record(), kind::BET_ACK, b"OK");
    server.wait_for_handlers(0);
    let classic = server.connect();
    server.wait_for_handlers(1);
    by_handler(&server, attack);
    drop(classic);
    server.wait_for_handlers(0);
    let mut session = Client::connect(relay(server.port(), &agency_folder(&server.setup(), 1)));
    session.open_session(1);
    by_handler(&server, attack);
    drop(session);
    assert_unharmed(server, &bets(1, 0..2));
}

/// The server must store the second of these bets, have both, and end at once.
#[track_caller]
pub fn assert_unharmed(mut server: RunningServer, bets: &[common::Bet]) {
    server.connect().classic(kind::BET, &bets[1].record(), kind::BET_ACK, b"OK");
    assert_eq!(server.bets_file(), common::rows(bets));
    let (status, took) = server.stop(Signal::SIGTERM);
    assert!(status.success() && took < Duration::from_secs(1), "{status} after {took:?}");
}

fn by_handler(server: &RunningServer, attack: fn(&mut Attacker)) {
    let process = Hijacked::attach(server.handlers()[0]).unwrap();
    let victims = vec![server.pid(), server.storage(), server.keeper()];
    carry_out(attack, process, victims, server.setup().bets_path(), false);
}

/// Runs `sleep` as the setup's user, with a log as a handler has it, to attack others of the kind.
fn by_stand_in(setup: &Setup, attack: fn(&mut Attacker)) -> Option<()> {
    let start = || {
        let mut command = Command::new("sleep");
        command.arg("60").current_dir(setup.path("")).stdin(Stdio::null()).stdout(Stdio::null());
        if let Some(user) = setup.user() {
            command.uid(user).gid(user);
        }
        let log = setup.clone().write("log-0", b"").path("log-0");
        chown(&log, setup.user(), setup.user()).unwrap();
        let log = File::options().read(true).write(true).open(log).unwrap();
        Running::start(command.process_group(0).stderr(log))
    };
    // The process that may trace the other one must end first.
    let victim = start();
    let own = start();
    let process = Hijacked::attach(own.pid())?;
    let file = setup.clone().write("file", b"content").path("file");
    chown(&file, setup.user(), setup.user()).unwrap();
    carry_out(attack, process, vec![victim.pid()], file, true);
    Some(())
}

#[track_caller]
fn carry_out(
    attack: fn(&mut Attacker),
    process: Hijacked,
    victims: Vec<i32>,
    file: PathBuf,
    is_stand_in: bool,
) {
    let mut attacker = Attacker { process, victims, file, is_stand_in, wrong: Vec::new() };
    attack(&mut attacker);
    let of = if is_stand_in { "a stand-in" } else { "a handler" };
    assert!(attacker.wrong.is_empty(), "calls of {of}: {:#?}", attacker.wrong);
}

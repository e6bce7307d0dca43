//! `loteria status --watch`: the live view on a terminal that the test plays, and the lines where there is none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]

mod common;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::num::NonZeroU16;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use common::{PATIENCE, RunningServer, Setup, bets, until};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use nix::unistd::Pid;

const ENTERS: &str = "\x1b[?1049h";
const LEAVES: &str = "\x1b[?1049l";
const HIDES: &str = "\x1b[?25l";
const SHOWS: &str = "\x1b[?25h";

/// The program on a terminal of its own.
struct Watched {
    child: Child,
    master: File,
    /// The terminal itself, kept open so that its mode can be looked at when the program has ended.
    terminal: OwnedFd,
    before: Termios,
    seen: Vec<u8>,
}

impl Watched {
    fn start(address: &str, variables: &[(&str, &str)]) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_loteria"));
        command.args(["status", "--watch", "--address", address]);
        command.env_remove("NO_COLOR").env_remove("FAILPOINTS").envs(variables.iter().copied());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        fcntl(&pty.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        Self { child, master: File::from(pty.master), terminal: pty.slave, before, seen: Vec::new() }
    }

    /// All that it has written so far.
    fn seen(&mut self) -> String {
        let mut chunk = [0; 4096];
        loop {
            match self.master.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => self.seen.extend(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// What stands on the terminal now.
    fn screen(&mut self) -> String {
        let size = |length| NonZeroU16::new(length).unwrap();
        let mut screen = vt100::Parser::new(size(50), size(160), 0);
        screen.process(self.seen().as_bytes());
        screen.screen().contents()
    }

    fn wait_for(&mut self, text: &str) {
        until(&format!("the terminal shows {text}"), || self.screen().contains(text));
    }

    fn type_in(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    fn mode(&self) -> Termios {
        tcgetattr(self.terminal.as_fd()).unwrap()
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // A terminal that nobody reads from takes no more.
            self.seen();
            match self.child.try_wait().unwrap() {
                Some(status) => return status,
                None if Instant::now() >= deadline => panic!("it does not end: {}", self.seen()),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// It must end, and leave the terminal as it found it.
    #[track_caller]
    fn expect_end(mut self, code: i32) -> String {
        assert_eq!(self.wait().code(), Some(code));
        assert_eq!(self.mode(), self.before, "the mode of the terminal");
        let seen = self.seen();
        assert_eq!([ENTERS, LEAVES].map(|sequence| seen.matches(sequence).count()), [1, 1]);
        for (first, then) in [(ENTERS, LEAVES), (HIDES, SHOWS)] {
            assert!(seen.rfind(first) < seen.rfind(then), "{then:?} is missing");
        }
        seen
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn address(server: &RunningServer) -> String {
    format!("127.0.0.1:{}", server.port())
}

/// A watcher that has taken the terminal over and shows a contest.
fn watching(server: &RunningServer) -> Watched {
    let mut watched = Watched::start(&address(server), &[]);
    watched.wait_for("stored");
    assert!(!watched.mode().local_flags.contains(LocalFlags::ICANON), "it reads single keys");
    watched
}

#[test]
fn q_ctrl_c_and_signals_leave_the_terminal_as_it_was() {
    let server = Setup::new().start();
    for keys in [&b"q"[..], b"Q", b"\x03", b"xq"] {
        let mut watched = watching(&server);
        watched.type_in(keys);
        watched.expect_end(0);
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let watched = watching(&server);
        watched.signal(signal);
        watched.expect_end(0);
    }
}

#[test]
fn other_keys_do_nothing() {
    let server = Setup::new().start();
    let mut watched = watching(&server);
    watched.type_in(b"x \x1b[A\x1b[B\r");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(watched.child.try_wait().unwrap(), None);
    watched.type_in(b"q");
    watched.expect_end(0);
}

#[cfg(debug_assertions)]
#[test]
fn a_panic_leaves_the_terminal_as_it_was() {
    let server = Setup::new().start();
    let watched =
        Watched::start(&address(&server), &[("FAILPOINTS", "watch_draws=1*off->panic(on purpose)")]);
    let seen = watched.expect_end(101);
    let (_, after) = seen.rsplit_once(LEAVES).unwrap();
    assert!(after.contains("on purpose"), "said where it can be read: {after}");
}

#[test]
fn it_shows_the_contest_and_what_happens() {
    let server = Setup::new().with("CLIENTS_AMOUNT", 2).start();
    let mut watched = watching(&server);
    let (mut session, _) = server.session(1);
    session.store(0, &bets(1, 0..7));
    watched.wait_for("7 stored");
    session.end_agency();
    watched.wait_for("agency 1 has ended");
    server.session(2).0.end_agency();
    watched.wait_for("the draw was made: 7574 won");
    watched.type_in(b"q");
    watched.expect_end(0);
}

#[test]
fn a_server_that_goes_is_waited_for() {
    let mut server = Setup::new().start();
    let mut watched = watching(&server);
    let port = server.port();
    server.terminate();
    watched.wait_for("no answer for");
    watched.wait_for("Connection refused");
    let again = server.setup().with("SERVER_PORT", port).start();
    watched.wait_for("the server answers again");
    watched.type_in(b"q");
    watched.expect_end(0);
    drop(again);
}

#[test]
fn it_leaves_while_the_server_does_not_answer() {
    let server = Setup::new().start();
    let mut watched = watching(&server);
    let storage = server.storage();
    common::processes::send(storage, Signal::SIGSTOP);
    watched.wait_for("no answer within 2 s");
    let asked = Instant::now();
    watched.type_in(b"q");
    watched.expect_end(0);
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    common::processes::send(storage, Signal::SIGCONT);
}

#[test]
fn it_fits_itself_to_a_terminal_that_changes_its_size() {
    let server = Setup::new().with("CLIENTS_AMOUNT", 500).start();
    let mut watched = watching(&server);
    watched.wait_for("and 484 more");
    let terminal = watched.terminal.try_clone().unwrap();
    let resized = Command::new("stty").args(["rows", "50", "cols", "160"]).stdin(terminal).status();
    assert!(resized.unwrap().success());
    watched.wait_for("and 364 more");
    watched.type_in(b"q");
    watched.expect_end(0);
}

#[test]
fn without_colours_where_they_are_not_wanted() {
    let server = Setup::new().start();
    for (variables, coloured) in [(&[][..], true), (&[("NO_COLOR", "1")], false), (&[("NO_COLOR", "")], true)]
    {
        let mut watched = Watched::start(&address(&server), variables);
        watched.wait_for("stored");
        watched.type_in(b"q");
        let seen = watched.expect_end(0);
        assert_eq!(has_colours(&seen), coloured, "{variables:?} {seen:?}");
    }
}

/// Whether a sequence that sets attributes (`CSI .. m`) sets a foreground: 30 to 38, or 90 to 97.
fn has_colours(seen: &str) -> bool {
    let attributes = seen.split("\x1b[").filter_map(|sequence| {
        let end = sequence.find(|c: char| c.is_ascii_alphabetic())?;
        sequence[end..].starts_with('m').then(|| &sequence[..end])
    });
    let mut numbers =
        attributes.flat_map(|list| list.split(';')).filter_map(|number| number.parse::<u8>().ok());
    numbers.any(|number| matches!(number, 30..=38 | 90..=97))
}

/// What it writes where there is no terminal, until it is told to end.
fn lines(address: &str, enough: impl Fn(&str) -> bool, act: impl FnOnce()) -> (String, ExitStatus) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let mut child = Command::new(env!("CARGO_BIN_EXE_loteria"))
        .args(["status", "--watch", "--address", address])
        .stdin(Stdio::null())
        .stdout(File::create(&path).unwrap())
        .spawn()
        .unwrap();
    let written = || std::fs::read_to_string(&path).unwrap();
    until("the first line", || !written().is_empty());
    act();
    until("enough lines", || enough(&written()));
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    let status = child.wait().unwrap();
    (written(), status)
}

#[test]
fn without_a_terminal_there_are_lines() {
    let server = Setup::new().with("CLIENTS_AMOUNT", 1).start();
    let (text, status) = lines(
        &address(&server),
        |text| text.contains("1 of 1 agency ended"),
        || {
            let (mut session, _) = server.session(1);
            session.store(0, &bets(1, 0..7));
            session.end_agency();
        },
    );
    assert_eq!(status.code(), Some(0));
    assert!(!text.contains('\x1b'), "{text}");
    for part in ["the server answers\n", " 0 bets, ", " 7 bets, ", "agency 1 has ended\n", "7574 won"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let one_second = |line: &str| line[..19].to_owned();
    let contest: Vec<String> = text.lines().filter(|line| line.contains(" bets, ")).map(one_second).collect();
    let mut once = contest.clone();
    once.dedup();
    assert!(contest.len() <= once.len() + 1, "{text}");
}

#[test]
fn a_server_that_is_not_there_is_a_line() {
    let (text, status) = lines("127.0.0.1:1", |text| !text.is_empty(), || ());
    assert_eq!(status.code(), Some(0));
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("the server does not answer: Connection refused"), "{text}");
}

#[test]
fn who_has_seen_enough_ends_it() {
    let server = Setup::new().start();
    let mut child = Command::new(env!("CARGO_BIN_EXE_loteria"))
        .args(["status", "--watch", "--address", &address(&server)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    until("it has ended", || child.try_wait().unwrap().is_some());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

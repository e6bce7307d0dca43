//! `loteria status --watch`: the live view on a terminal, and the lines without one.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::ops::{Deref, DerefMut};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::terminal::{Left, OnTerminal};
use common::{
    Running, RunningServer, Setup, bets, frame, kind, loteria, processes, server_of, status, until,
};
use nix::sys::signal::Signal;
use nix::sys::termios::LocalFlags;

const ENTERS: &str = "\x1b[?1049h";
const LEAVES: &str = "\x1b[?1049l";
const HIDES: &str = "\x1b[?25l";
const SHOWS: &str = "\x1b[?25h";

/// A watcher on a terminal.
struct Watched(OnTerminal);

impl Watched {
    fn start(address: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = loteria(&["status", "--watch", "--address", address]);
        command.envs(variables.iter().copied());
        Self(OnTerminal::start(command, (24, 80)))
    }

    /// Starts a watcher and waits until it shows the contest.
    fn of(server: &RunningServer) -> Self {
        let watched = Self::start(&server.address(), &[]);
        watched.wait_for(" bets  ");
        assert!(!watched.mode().local_flags.contains(LocalFlags::ICANON), "it reads single keys");
        watched
    }

    /// Ends it with a key.
    #[track_caller]
    fn leave(mut self) -> String {
        self.type_in(b"q");
        self.expect_end(0)
    }

    /// Waits for its end with this code. It must restore the terminal. Returns all bytes that it wrote.
    #[track_caller]
    fn expect_end(self, code: i32) -> String {
        let Left { code: got, written, mode_is_as_before, .. } = self.0.end();
        assert_eq!((got, mode_is_as_before), (Some(code), true));
        assert_eq!([ENTERS, LEAVES].map(|sequence| written.matches(sequence).count()), [1, 1]);
        for (first, then) in [(ENTERS, LEAVES), (HIDES, SHOWS)] {
            assert!(written.rfind(first) < written.rfind(then), "{then:?} is missing");
        }
        written
    }
}

impl Deref for Watched {
    type Target = OnTerminal;

    fn deref(&self) -> &OnTerminal {
        &self.0
    }
}

impl DerefMut for Watched {
    fn deref_mut(&mut self) -> &mut OnTerminal {
        &mut self.0
    }
}

#[test]
fn q_ctrl_c_and_signals_leave_the_terminal_as_it_was() {
    let server = Setup::new().start();
    for keys in [&b"q"[..], b"Q", b"\x03", b"xq"] {
        let mut watched = Watched::of(&server);
        watched.type_in(keys);
        watched.expect_end(0);
    }
    for signal in processes::termination_signals() {
        let watched = Watched::of(&server);
        watched.process.signal(signal);
        watched.expect_end(0);
    }
}

#[test]
fn other_keys_do_nothing() {
    let server = Setup::new().start();
    let mut watched = Watched::of(&server);
    watched.type_in(b"x \x1b[A\x1b[Bo/\x7fj\r\x1b[C");
    server.session(1).0.store(0, &bets(1, 0..7));
    // When it shows the bets, which came after the keys, it has read the keys.
    watched.wait_for("7 bets");
    watched.leave();
}

/// Alt and `[`, or a letter that is not UTF-8.
#[test]
fn a_key_of_which_only_a_part_comes_holds_up_nothing() {
    for part in [&b"\x1b["[..], b"\xf1"] {
        let server = Setup::new().start();
        let mut watched = Watched::of(&server);
        watched.type_in(part);
        server.session(1).0.store(0, &bets(1, 0..7));
        watched.wait_for("7 bets");
        watched.process.signal(Signal::SIGTERM);
        watched.expect_end(0);
    }
}

#[cfg(debug_assertions)]
#[test]
fn a_panic_leaves_the_terminal_as_it_was() {
    let server = Setup::new().start();
    let watched =
        Watched::start(&server.address(), &[("FAILPOINTS", "watch_draws=1*off->panic(on purpose)")]);
    let seen = watched.expect_end(101);
    let (_, after) = seen.rsplit_once(LEAVES).unwrap();
    assert!(after.contains("on purpose"), "said where it can be read: {after}");
}

#[test]
fn watch_shows_the_contest_and_its_events() {
    let server = server_of(2);
    let watched = Watched::of(&server);
    let (mut session, _) = server.session(1);
    session.store(0, &bets(1, 0..7));
    watched.wait_for("7 bets");
    session.end_agency();
    watched.wait_for("agency 1 has ended");
    server.session(2).0.end_agency();
    watched.wait_for("the draw was made: winning number 7574");
    let hash = status(server.port())["draw"]["seal"]["sha256"].clone();
    watched.wait_for(hash.as_str().unwrap());
    watched.leave();
}

#[test]
fn watch_waits_for_a_server_that_restarts() {
    let mut server = Setup::new().start();
    let watched = Watched::of(&server);
    let port = server.port();
    server.terminate();
    watched.wait_for("no answer for");
    watched.wait_for("Connection refused");
    let again = server.setup().with("SERVER_PORT", port).start();
    watched.wait_for("the server answers again");
    watched.leave();
    drop(again);
}

#[test]
fn watch_can_be_left_while_the_server_does_not_answer() {
    let server = Setup::new().start();
    let watched = Watched::of(&server);
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    watched.wait_for("no answer within 2 s");
    let asked = Instant::now();
    watched.leave();
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    processes::send(storage, Signal::SIGCONT);
}

#[test]
fn watch_follows_the_size_of_the_terminal() {
    let server = server_of(500);
    let watched = Watched::of(&server);
    watched.wait_for("agencies 1 to 18 of 500");
    watched.resize((50, 160));
    watched.wait_for("agencies 1 to 160 of 500");
    watched.leave();
}

/// Types, and waits for a line with this text.
#[track_caller]
fn expect_after(watched: &mut Watched, keys: &[u8], text: &str) {
    watched.type_in(keys);
    watched.wait_for(text);
}

#[test]
fn one_can_scroll_find_an_agency_and_keep_the_order_still() {
    let server = server_of(200);
    let mut on_terminal = Watched::of(&server);
    let watched = &mut on_terminal;
    expect_after(watched, b"", "agencies 1 to 18 of 200, furthest behind first");
    expect_after(watched, b"o", "agencies 1 to 18 of 200, by number");
    for (keys, from) in [
        (&b"\x1b[B"[..], 2),
        (b"j", 3),
        (b"\x1b[6~", 21),
        (b"k", 20),
        (b"\x1b[A", 19),
        (b"\x1b[F", 183),
        (b"j\x1b[6~", 183),
        (b"\x1b[5~", 165),
        (b"\x1b[H", 1),
        (b"k\x1b[5~", 1),
    ] {
        expect_after(watched, keys, &format!("agencies {from} to {} of 200, by number", from + 17));
        watched.wait_for(&format!("{from:>6}  ─"));
    }
    expect_after(watched, b"/123", "find agency: 123_");
    watched.wait_for("agencies 114 to 131 of 200");
    expect_after(watched, b"4", "find agency: 1234_   there is none");
    expect_after(watched, b"\x7f\x7f\x7f9\r", "agencies 10 to 27 of 200");
    // In the other order the agency that was found stays on the screen: it has most bets, so it is the last.
    server.session(19).0.store(0, &bets(19, 0..7));
    expect_after(watched, b"o", "agencies 183 to 200 of 200, furthest behind first");
    watched.wait_for("    19  ━");
    // Ctrl-C leaves even while a number is typed.
    watched.type_in(b"/1\x03");
    on_terminal.expect_end(0);
}

/// Neither the watcher nor other requests for the status are clients.
#[test]
fn watch_does_not_count_its_own_connections() {
    let server = server_of(2);
    let watched = Watched::of(&server);
    for _ in 0..5 {
        status(server.port());
    }
    let session = server.session(1);
    watched.wait_for("clients  1 of 1,024      1 connection");
    drop(session);
    watched.wait_for("clients  0 of 1,024      1 connection");
    watched.leave();
}

#[test]
fn no_color_turns_the_colours_off() {
    let server = Setup::new().start();
    for (variables, coloured) in [(&[][..], true), (&[("NO_COLOR", "1")], false), (&[("NO_COLOR", "")], true)]
    {
        let watched = Watched::start(&server.address(), variables);
        watched.wait_for(" bets  ");
        let seen = watched.leave();
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

/// Runs it without a terminal until it has written `enough`, then ends it by SIGTERM. Returns what it wrote.
fn lines(address: &str, enough: &str, act: impl FnOnce()) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let mut command = loteria(&["status", "--watch", "--address", address]);
    let mut process = Running::start(command.stdout(File::create(&path).unwrap()));
    let written = || std::fs::read_to_string(&path).unwrap();
    until("the first line", || !written().is_empty());
    act();
    until(enough, || written().contains(enough));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end().code(), Some(0));
    written()
}

#[test]
fn without_a_terminal_watch_prints_lines() {
    let server = server_of(1);
    let text = lines(&server.address(), "1 of 1 agency ended", || {
        let (mut session, _) = server.session(1);
        session.store(0, &bets(1, 0..7));
        session.end_agency();
    });
    assert!(!text.contains('\x1b'), "{text}");
    for part in [
        "the server answers\n",
        " 0 bets, 0/s, 0 of 1 agency ended, ",
        " handlers, 0 groups/s, draw: not made\n",
        " 7 bets, ",
        "agency 1 has ended\n",
        "the draw was made: winning number 7574, 7 bets, ",
        ", draw: winning number 7574, ",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let one_second = |line: &str| line[..19].to_owned();
    let contest: Vec<String> =
        text.lines().filter(|line| line.contains(" groups/s, ")).map(one_second).collect();
    let mut once = contest.clone();
    once.dedup();
    assert!(contest.len() <= once.len() + 1, "{text}");
}

#[test]
fn a_missing_server_is_one_line() {
    let text = lines("127.0.0.1:1", "\n", || ());
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("127.0.0.1:1 does not answer: Connection refused"), "{text}");
}

#[test]
fn a_refusal_is_written_without_its_control_characters() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let refuse = || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&frame(kind::ERROR, b"\x1b[31mno\r\xc2\x9b2J")).unwrap();
        stream.read_to_end(&mut Vec::new()).ok();
    };
    let text = std::thread::scope(|scope| {
        scope.spawn(refuse);
        lines(&address, "\n", || ())
    });
    assert!(text.contains("the server refused: \\x1b[31mno\\x0d\\x9b2J\n"), "{text:?}");
}

#[test]
fn watch_ends_when_nobody_reads_its_output() {
    let server = Setup::new().start();
    let mut command = loteria(&["status", "--watch", "--address", &server.address()]);
    let mut process = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    drop(process.stdout());
    let code = process.end().code();
    let mut error = String::new();
    process.stderr().read_to_string(&mut error).unwrap();
    assert_eq!((code, &*error), (Some(0), ""));
}

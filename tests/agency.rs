//! The agency as a black box, against a server that each test plays itself, frame by frame.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZero;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(2);

const ERROR: u8 = 0x03;
const ACK: u8 = 0x04;
const END: u8 = 0x05;
const RESULT_REQUEST: u8 = 0x06;
const RESULT: u8 = 0x07;
const IN_PROGRESS: u8 = 0x08;
const OPEN_SESSION: u8 = 0x09;
const SESSION_OPENED: u8 = 0x0A;
const SESSION_BETS: u8 = 0x0B;
const SESSION_STORED: u8 = 0x0C;
const AWAIT_RESULT: u8 = 0x0D;

/// The server's side, and the agency that is going to talk to it.
struct Stage {
    listener: TcpListener,
    folder: tempfile::TempDir,
}

impl Stage {
    fn new(rows: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("agency-3.csv"), rows).unwrap();
        Self { listener, folder }
    }

    fn agency(&self, variables: &[(&str, &str)]) -> Agency {
        let address = self.listener.local_addr().unwrap().to_string();
        Agency::start(self.folder.path(), &address, variables)
    }

    fn accept(&self) -> Peer {
        let stream = await_some("a connection", || match self.listener.accept() {
            Ok((stream, _)) => Some(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        });
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Peer { stream }
    }

    /// Accepts a session that goes on from `stored`.
    fn accept_session(&self, stored: u64, state: u8, max_payload: u32) -> Peer {
        let mut peer = self.accept();
        assert_eq!(peer.frame(), Some((OPEN_SESSION, vec![1, 0, 0, 0, 3])));
        let mut payload = 3_u32.to_be_bytes().to_vec();
        payload.extend(stored.to_be_bytes());
        payload.push(state);
        payload.extend(max_payload.to_be_bytes());
        peer.send(SESSION_OPENED, &payload);
        peer
    }
}

/// One connection of the agency.
struct Peer {
    stream: TcpStream,
}

impl Peer {
    /// The next frame; none when the agency has closed its side.
    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 5];
        match self.stream.read(&mut header[..1]) {
            Ok(0) => return None,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
            got => assert_eq!(got.unwrap(), 1),
        }
        self.stream.read_exact(&mut header[1..]).unwrap();
        let mut payload = vec![0; u32::from_be_bytes(header[1..].try_into().unwrap()) as usize];
        self.stream.read_exact(&mut payload).unwrap();
        Some((header[0], payload))
    }

    fn send(&mut self, kind: u8, payload: &[u8]) {
        let mut frame = vec![kind];
        frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend(payload);
        self.stream.write_all(&frame).unwrap();
    }

    /// Takes the next `SESSION_BETS`: the index of its first bet and the documents.
    fn bets(&mut self) -> (u64, Vec<String>) {
        let (kind, payload) = self.frame().unwrap();
        assert_eq!(kind, SESSION_BETS);
        let (first, records) = payload.split_at(8);
        (u64::from_be_bytes(first.try_into().unwrap()), documents(records))
    }

    fn acknowledge(&mut self, stored: u64) {
        self.send(SESSION_STORED, &stored.to_be_bytes());
    }

    /// Stores bets from `stored` on until there are `total`; then END, the wait, and a result.
    fn finish(&mut self, mut stored: u64, total: u64, winners: &[u8]) {
        while stored < total {
            let (first, documents) = self.bets();
            assert_eq!(first, stored);
            for document in documents {
                assert_eq!(document, stored.to_string());
                stored += 1;
            }
            self.acknowledge(stored);
        }
        assert_eq!(self.frame(), Some((END, vec![])));
        self.send(ACK, b"OK");
        self.give_result(winners);
    }

    fn give_result(&mut self, winners: &[u8]) {
        assert_eq!(self.frame(), Some((AWAIT_RESULT, vec![])));
        self.send(RESULT, winners);
        assert_eq!(self.frame(), None);
    }
}

/// The documents of bet records, all of them of agency 3.
fn documents(records: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(records).unwrap();
    let document = |record: &str| {
        let fields: Vec<&str> = record.split('\x1f').collect();
        assert_eq!((fields.len(), fields[0], fields[1]), (6, "3", "Ana, \"Nita\""));
        fields[3].to_owned()
    };
    text.split('\x1e').map(document).collect()
}

/// Bets whose documents count from 0.
fn rows(count: usize) -> String {
    let row = |index| format!("\"Ana, \"\"Nita\"\"\",Núñez,{index},1990-02-28,7574\r\n");
    (0..count).map(row).collect::<Vec<_>>().concat()
}

/// A running agency of number 3, killed when it is dropped.
struct Agency {
    child: Child,
    log: std::path::PathBuf,
}

impl Agency {
    fn start(folder: &Path, address: &str, variables: &[(&str, &str)]) -> Self {
        let log = folder.join("agency.log");
        let mut command = Self::command(folder, address, variables);
        let child = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
        Self { child, log }
    }

    fn command(folder: &Path, address: &str, variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loteria"));
        command
            .arg("agency")
            .current_dir(folder)
            .env_clear()
            .envs([("CLI_ID", "3"), ("CLI_SERVER_ADDRESS", address), ("CLI_BATCH_MAXAMOUNT", "10")])
            .envs(variables.iter().copied())
            .stdin(Stdio::null());
        command
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn await_log(&self, text: &str) {
        await_some(text, || self.log().contains(text).then_some(()));
    }

    fn end(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let status = await_some("the end of the agency", || child.try_wait().unwrap());
        for line in self.log().lines() {
            assert!(line.contains(" action: ") && line.contains(" | result: "), "{line}");
            assert!(!line.contains(char::is_control), "{line:?}");
        }
        status
    }

    /// Waits for its end with exit code 0.
    fn succeed(&mut self) -> String {
        let status = self.end();
        assert_eq!(status.code(), Some(0), "{}", self.log());
        self.log()
    }

    /// Waits for its end with exit code 1, and gives the last line of its log.
    fn fail(&mut self) -> String {
        let status = self.end();
        let log = self.log();
        assert_eq!(status.code(), Some(1), "{log}");
        let last = log.lines().next_back().unwrap().to_owned();
        assert!(last.contains("CRITICAL action: agency | result: fail"), "{log}");
        last
    }

    fn terminate(&mut self, signal: Signal) {
        let begun = Instant::now();
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
        self.succeed();
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
}

impl Drop for Agency {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// An agency whose standard error is a terminal, high enough that nothing leaves it at the top.
struct OnTerminal {
    child: Child,
    screen: Arc<Mutex<vt100::Parser>>,
    reader: Option<JoinHandle<()>>,
}

impl OnTerminal {
    fn start(stage: &Stage, variables: &[(&str, &str)]) -> Self {
        let size = Winsize { ws_row: 400, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let address = stage.listener.local_addr().unwrap().to_string();
        let mut command = Agency::command(stage.folder.path(), &address, variables);
        let child = command.env("TERM", "xterm").stderr(pty.slave).spawn().unwrap();
        // With the command goes this process's last descriptor of the terminal's other side.
        drop(command);
        let [rows, columns] = [size.ws_row, size.ws_col].map(|side| NonZero::new(side).unwrap());
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let (mut terminal, on) = (File::from(pty.master), screen.clone());
        let reader = Builder::new().spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = terminal.read(&mut bytes) {
                on.lock().unwrap().process(&bytes[..count]);
            }
        });
        Self { child, screen, reader: reader.ok() }
    }

    /// What stands on the terminal now.
    fn lines(&self) -> Vec<String> {
        self.screen.lock().unwrap().screen().contents().lines().map(str::to_owned).collect()
    }

    /// Waits until the lowest line holds that text, and gives it.
    fn await_bar(&self, text: &str) -> String {
        await_some(text, || self.lines().pop().filter(|line| line.contains(text)))
    }

    /// Waits for its end: the exit code, and what it leaves on the terminal, of which every line must be the log's.
    fn end(mut self) -> (Option<i32>, Vec<String>) {
        let status = await_some("the end of the agency", || self.child.try_wait().unwrap());
        self.reader.take().unwrap().join().unwrap();
        let lines = self.lines();
        for line in &lines {
            let (time, rest) = line.split_at(20);
            assert!(time.starts_with("20") && time.ends_with(' '), "{line}");
            assert!(rest.contains(" action: ") && rest.contains(" | result: "), "{line}");
        }
        (status.code(), lines)
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn await_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let limit = Instant::now() + LIMIT;
    while Instant::now() < limit {
        if let Some(found) = look() {
            return found;
        }
        sleep(POLL);
    }
    panic!("no sign of {what} within {LIMIT:?}");
}

#[test]
fn all_bets_are_sent_in_order_and_the_winners_counted() {
    let stage = Stage::new(&rows(95));
    let mut agency = stage.agency(&[]);
    stage.accept_session(0, 0, 1 << 20).finish(0, 95, b"1\x1e2\x1e3");
    let log = agency.succeed();
    assert_eq!(log.matches("action: apuesta_enviada | result: success | cantidad: 10\n").count(), 9, "{log}");
    assert!(log.contains("action: apuesta_enviada | result: success | cantidad: 5\n"), "{log}");
    assert!(log.contains("action: consulta_ganadores | result: success | cant_ganadores: 3\n"), "{log}");
}

#[test]
fn an_empty_file_and_an_empty_result_are_fine() {
    let stage = Stage::new("");
    let mut agency = stage.agency(&[]);
    stage.accept_session(0, 0, 1 << 20).finish(0, 0, b"");
    assert!(agency.succeed().contains("cant_ganadores: 0\n"));
}

#[test]
fn after_a_break_it_goes_on_from_what_is_stored() {
    let stage = Stage::new(&rows(1000));
    let mut agency = stage.agency(&[]);
    let mut peer = stage.accept_session(0, 0, 1 << 20);
    for batch in 1..=5 {
        peer.bets();
        peer.acknowledge(batch * 10);
    }
    // The server has stored more than it could acknowledge, and not in whole batches.
    drop(peer);
    stage.accept_session(73, 0, 1 << 20).finish(73, 1000, b"");
    let log = agency.succeed();
    assert!(log.contains("WARNING  action: connect | result: fail"), "{log}");
}

#[test]
fn no_more_than_a_window_of_batches_is_in_flight() {
    let stage = Stage::new(&rows(1000));
    let mut agency = stage.agency(&[]);
    let mut peer = stage.accept_session(0, 0, 1 << 20);
    for _ in 0..32 {
        peer.bets();
    }
    peer.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert_eq!(peer.stream.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    peer.stream.set_read_timeout(Some(LIMIT)).unwrap();
    for batch in 1..=32 {
        peer.acknowledge(batch * 10);
    }
    peer.finish(320, 1000, b"");
    agency.succeed();
}

#[test]
fn no_payload_is_longer_than_the_server_takes() {
    let stage = Stage::new(&rows(50));
    let mut agency = stage.agency(&[]);
    let mut peer = stage.accept_session(0, 0, 120);
    let mut stored = 0;
    while stored < 50 {
        let (kind, payload) = peer.frame().unwrap();
        assert!(kind == SESSION_BETS && payload.len() <= 120, "{}", payload.len());
        stored += documents(&payload[8..]).len() as u64;
        peer.acknowledge(stored);
    }
    peer.finish(50, 50, b"");
    agency.succeed();
}

#[test]
fn a_bet_that_fits_into_no_message_is_an_error_with_its_line() {
    let stage = Stage::new(&rows(50));
    let mut agency = stage.agency(&[]);
    let mut peer = stage.accept_session(0, 0, 40);
    assert_eq!(peer.frame(), None);
    assert!(agency.fail().contains("| line: 1 |"));
}

#[test]
fn a_bad_row_ends_it_and_nothing_of_its_batch_is_sent() {
    let stage = Stage::new(&(rows(15) + "Ana,Paz,1,1990-02-30,7\r\n" + &rows(10)));
    let mut agency = stage.agency(&[]);
    let mut peer = stage.accept_session(0, 0, 1 << 20);
    assert_eq!(peer.bets().1.len(), 10);
    peer.acknowledge(10);
    assert_eq!(peer.frame(), None);
    let line = agency.fail();
    assert!(line.contains("agency-3.csv | line: 16 | error: the birthdate"), "{line}");
    assert!(agency.log().contains("apuesta_enviada | result: success | cantidad: 10\n"));
}

#[test]
fn a_text_with_a_separator_of_the_wire_is_refused() {
    let stage = Stage::new("A\x1ena,Paz,1,1990-02-28,7\n");
    let mut agency = stage.agency(&[]);
    assert_eq!(stage.accept_session(0, 0, 1 << 20).frame(), None);
    assert!(agency.fail().contains("| line: 1 |"));
}

#[test]
fn a_file_that_is_not_there_is_told_without_a_server() {
    let stage = Stage::new("");
    let mut agency = stage.agency(&[("CLI_BETS_FILE", "nothing-{id}.csv")]);
    assert!(agency.fail().contains("nothing-3.csv"));
}

#[test]
fn a_refusal_ends_it() {
    let stage = Stage::new(&rows(10));
    let mut agency = stage.agency(&[]);
    let mut peer = stage.accept();
    peer.frame().unwrap();
    peer.send(ERROR, b"agency 3 does not exist");
    assert!(agency.fail().contains("agency 3 does not exist"));

    let mut agency = stage.agency(&[]);
    let mut peer = stage.accept_session(0, 0, 1 << 20);
    peer.bets();
    peer.send(ERROR, b"no room on the disk");
    let line = agency.fail();
    assert!(line.contains("lines 1 to 10") && line.contains("no room on the disk"), "{line}");
}

#[test]
fn a_server_that_is_busy_is_asked_again() {
    let stage = Stage::new(&rows(10));
    let mut agency = stage.agency(&[]);
    let mut peer = stage.accept();
    peer.frame().unwrap();
    peer.send(ERROR, b"busy: no process to be had");
    drop(peer);
    stage.accept_session(0, 0, 1 << 20).finish(0, 10, b"");
    agency.succeed();
}

#[test]
fn what_has_ended_is_only_waited_for() {
    for state in [1, 2] {
        let stage = Stage::new(&rows(10));
        let mut agency = stage.agency(&[]);
        stage.accept_session(10, state, 1 << 20).give_result(b"4");
        assert!(agency.succeed().contains("cant_ganadores: 1\n"));
    }
}

#[test]
fn a_file_that_does_not_fit_to_what_is_stored_is_an_error() {
    let stage = Stage::new(&rows(10));
    let mut agency = stage.agency(&[]);
    assert_eq!(stage.accept_session(11, 0, 1 << 20).frame(), None);
    assert!(agency.fail().contains("has only 10"));
    let mut agency = stage.agency(&[]);
    assert_eq!(stage.accept_session(9, 1, 1 << 20).frame(), None);
    assert!(agency.fail().contains("has ended with 9 bets"));
}

#[test]
fn a_break_while_it_waits_for_the_draw_brings_it_back() {
    let stage = Stage::new(&rows(10));
    let mut agency = stage.agency(&[]);
    let mut peer = stage.accept_session(10, 0, 1 << 20);
    assert_eq!(peer.frame(), Some((END, vec![])));
    peer.send(ACK, b"OK");
    assert_eq!(peer.frame(), Some((AWAIT_RESULT, vec![])));
    drop(peer);
    stage.accept_session(10, 1, 1 << 20).give_result(b"");
    agency.succeed();
}

#[test]
fn a_peer_that_is_no_such_server_ends_it() {
    let stage = Stage::new(&rows(10));
    let mut agency = stage.agency(&[]);
    let mut peer = stage.accept();
    peer.frame().unwrap();
    peer.stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    agency.fail();
}

#[test]
fn a_signal_ends_it_while_it_waits_for_the_draw() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let stage = Stage::new(&rows(10));
        let mut agency = stage.agency(&[]);
        let mut peer = stage.accept_session(10, 1, 1 << 20);
        assert_eq!(peer.frame(), Some((AWAIT_RESULT, vec![])));
        agency.terminate(signal);
    }
}

#[test]
fn a_signal_ends_it_while_it_waits_for_an_answer() {
    let stage = Stage::new(&rows(10));
    let mut agency = stage.agency(&[]);
    stage.accept().frame().unwrap();
    agency.await_log("action: config");
    agency.terminate(Signal::SIGTERM);
}

#[test]
fn a_signal_ends_it_between_two_tries() {
    let stage = Stage::new(&rows(10));
    let address = stage.listener.local_addr().unwrap().to_string();
    let Stage { listener, folder } = stage;
    drop(listener);
    let mut agency = Agency::start(folder.path(), &address, &[]);
    await_some("a third try", || (agency.log().matches("retry_in_ms").count() > 2).then_some(()));
    agency.terminate(Signal::SIGTERM);
}

#[test]
fn classic_mode_sends_packets_of_at_most_8_kb_and_polls() {
    let stage = Stage::new(&rows(1000));
    let variables =
        [("CLI_PROTOCOL", "classic"), ("CLI_LOOP_PERIOD", "20ms"), ("CLI_BATCH_MAXAMOUNT", "500")];
    let mut agency = stage.agency(&variables);
    let mut stored = 0;
    while stored < 1000 {
        let mut peer = stage.accept();
        let (kind, payload) = peer.frame().unwrap();
        assert!(kind == 0x02 && payload.len() + 5 <= 8192, "{}", payload.len());
        for document in documents(&payload) {
            assert_eq!(document, stored.to_string());
            stored += 1;
        }
        peer.send(ACK, b"OK");
    }
    assert_eq!(stage.accept().frame(), Some((END, vec![3])));
    for _ in 0..2 {
        let mut peer = stage.accept();
        assert_eq!(peer.frame(), Some((RESULT_REQUEST, vec![3])));
        peer.send(IN_PROGRESS, b"");
    }
    let mut peer = stage.accept();
    peer.frame().unwrap();
    peer.send(RESULT, b"1\x1e2");
    let log = agency.succeed();
    assert!(log.contains("action: consulta_ganadores | result: success | cant_ganadores: 2\n"), "{log}");
    assert!(log.contains("action: apuesta_enviada | result: success | cantidad: "), "{log}");
}

#[test]
fn classic_mode_does_not_send_again_what_may_be_stored() {
    let stage = Stage::new(&rows(10));
    let mut agency = stage.agency(&[("CLI_PROTOCOL", "classic")]);
    stage.accept().frame().unwrap();
    let line = agency.fail();
    assert!(line.contains("lines 1 to 10") && line.contains("is not known"), "{line}");
}

#[test]
fn classic_mode_sends_again_what_is_known_not_to_be_stored() {
    let stage = Stage::new(&rows(10));
    let mut agency = stage.agency(&[("CLI_PROTOCOL", "classic")]);
    let mut peer = stage.accept();
    let sent = peer.frame();
    peer.send(ERROR, b"busy");
    drop(peer);
    let mut peer = stage.accept();
    assert_eq!(peer.frame(), sent);
    peer.send(ERROR, b"bet 3: no");
    assert!(agency.fail().contains("bet 3: no"));
}

#[test]
fn classic_mode_knows_no_agency_above_255() {
    let stage = Stage::new("");
    let variables = [("CLI_PROTOCOL", "classic"), ("CLI_ID", "256"), ("CLI_BETS_FILE", "agency-3.csv")];
    assert!(stage.agency(&variables).fail().contains("not 256"));
}

#[test]
fn a_bad_setting_ends_it_with_code_2_and_one_line() {
    let stage = Stage::new("");
    let mut agency = stage.agency(&[("CLI_LOOP_PERIOD", "soon")]);
    assert_eq!(agency.end().code(), Some(2));
    let log = agency.log();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(
        log.contains("CRITICAL action: config | result: fail | key: CLI_LOOP_PERIOD | value: soon"),
        "{log}"
    );
    assert!(log.contains("environment variable CLI_LOOP_PERIOD | allowed: a duration"), "{log}");
}

#[test]
fn on_a_terminal_a_bar_stands_below_the_log_and_is_gone_at_the_end() {
    let stage = Stage::new(&rows(1000));
    let agency = OnTerminal::start(&stage, &[]);
    let mut peer = stage.accept_session(0, 0, 1 << 20);
    for batch in 1..=5 {
        peer.bets();
        peer.acknowledge(batch * 10);
    }
    let bar = agency.await_bar("50 of about ");
    let expected: u64 = bar
        .split_whitespace()
        .skip_while(|word| *word != "about")
        .nth(1)
        .unwrap()
        .replace(',', "")
        .parse()
        .unwrap();
    assert!((950..=1100).contains(&expected) && bar.contains(" bets/s"), "{bar}");
    drop(peer);
    let mut peer = stage.accept_session(70, 0, 1 << 20);
    let bar = agency.await_bar(" 70 of ");
    assert!(bar.contains("reconnections: 1"), "{bar}");
    let mut stored = 70;
    while stored < 990 {
        stored += peer.bets().1.len() as u64;
        peer.acknowledge(stored);
    }
    let bar = agency.await_bar("990 of 1,000 bets");
    assert!(!bar.contains("about"), "{bar}");
    peer.bets();
    peer.acknowledge(1000);
    assert_eq!(peer.frame(), Some((END, vec![])));
    peer.send(ACK, b"OK");
    agency.await_bar("1,000 bets sent, waiting for the draw");
    peer.give_result(b"1\x1e2");
    let (code, lines) = agency.end();
    assert_eq!(code, Some(0));
    assert_eq!(
        lines.iter().filter(|line| line.contains("action: apuesta_enviada")).count(),
        98,
        "{lines:#?}"
    );
    assert!(lines.last().unwrap().ends_with("cant_ganadores: 2"), "{lines:#?}");
}

#[test]
fn on_a_terminal_classic_mode_shows_a_bar_too() {
    let stage = Stage::new(&rows(20));
    let agency = OnTerminal::start(&stage, &[("CLI_PROTOCOL", "classic"), ("CLI_LOOP_PERIOD", "20ms")]);
    let mut peer = stage.accept();
    peer.frame().unwrap();
    peer.send(ACK, b"OK");
    agency.await_bar("10 of about 20 bets");
    let mut peer = stage.accept();
    peer.frame().unwrap();
    peer.send(ACK, b"OK");
    assert_eq!(stage.accept().frame(), Some((END, vec![3])));
    let mut peer = stage.accept();
    peer.frame().unwrap();
    agency.await_bar("20 bets sent, waiting for the draw");
    peer.send(RESULT, b"");
    assert_eq!(agency.end().0, Some(0));
}

#[test]
fn on_a_terminal_a_signal_or_an_error_leaves_nothing_but_the_log() {
    let stage = Stage::new(&rows(10));
    let agency = OnTerminal::start(&stage, &[]);
    let mut peer = stage.accept_session(10, 1, 1 << 20);
    assert_eq!(peer.frame(), Some((AWAIT_RESULT, vec![])));
    agency.await_bar("10 bets sent, waiting for the draw");
    kill(Pid::from_raw(agency.child.id().cast_signed()), Signal::SIGINT).unwrap();
    let (code, lines) = agency.end();
    assert_eq!((code, lines.len()), (Some(0), 3), "{lines:#?}");
    assert!(lines[2].ends_with("action: shutdown | result: success | signal: SIGINT"), "{lines:#?}");

    let agency = OnTerminal::start(&stage, &[]);
    let mut peer = stage.accept();
    agency.await_bar("connecting");
    peer.frame().unwrap();
    peer.send(ERROR, b"agency 3 does not exist");
    let (code, lines) = agency.end();
    assert_eq!((code, lines.len()), (Some(1), 2), "{lines:#?}");
}

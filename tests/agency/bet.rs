//! `loteria bet`, against a server and against fake servers.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::thread::scope;

use common::{Log, Running, Setup, frame, free_port, kind, loteria, output, server_of, text};

const FLAGS: [&str; 12] = [
    "--agency",
    "3",
    "--first-name",
    "Ana \"Nita\"",
    "--last-name",
    "Paz, hija",
    "--document",
    "30111222",
    "--birthdate",
    "1980-01-02",
    "--number",
    "007",
];
const VARIABLES: [(&str, &str); 6] = [
    ("CLI_ID", "3"),
    ("NOMBRE", "Ana \"Nita\""),
    ("APELLIDO", "Paz, hija"),
    ("DOCUMENTO", "30111222"),
    ("NACIMIENTO", "1980-01-02"),
    ("NUMERO", "007"),
];
const RECORD: &[u8] = b"3\x1fAna \"Nita\"\x1fPaz, hija\x1f30111222\x1f1980-01-02\x1f7";

fn command(address: &str, flags: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = loteria(&[&["bet"], flags].concat());
    command.envs(variables.iter().copied()).env("CLI_SERVER_ADDRESS", address);
    command
}

fn bet(address: &str, flags: &[&str], variables: &[(&str, &str)]) -> Output {
    output(&mut command(address, flags, variables))
}

/// The log of a command, which must keep to the grammar.
fn log_of(output: &Output) -> Log {
    let log = Log(text(&output.stderr));
    assert!(output.stdout.is_empty());
    log.assert_well_formed();
    log
}

/// Reads the expected BET and sends the reply.
fn answer(stream: &mut TcpStream, answer: &[u8]) {
    let mut got = vec![0; 5 + RECORD.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(got, frame(kind::BET, RECORD));
    stream.write_all(answer).unwrap();
}

/// Runs it with the flags against a fake server that gives one reply on each connection.
fn against(answers: &[Vec<u8>]) -> Output {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    scope(|scope| {
        scope.spawn(|| {
            for bytes in answers {
                answer(&mut listener.accept().unwrap().0, bytes);
            }
        });
        bet(&address, &FLAGS, &[])
    })
}

#[test]
fn a_bet_by_flags_or_by_the_originals_variables_is_stored_and_logged() {
    let server = Setup::new().start();
    let address = server.address();
    for output in [bet(&address, &FLAGS, &[]), bet(&address, &[], &VARIABLES)] {
        let log = log_of(&output);
        assert_eq!(output.status.code(), Some(0), "{}", log.0);
        assert!(log.has("apuesta_enviada | result: success | dni: 30111222 | numero: 7"), "{}", log.0);
        let warning = log.lines_of("WARNING");
        assert!(log.0.lines().count() == 2 && warning[0].contains("agency_id: 3"), "{}", log.0);
    }
    let row = "3,\"Ana \"\"Nita\"\"\",\"Paz, hija\",30111222,1980-01-02,7\r\n";
    assert_eq!(text(&server.bets_file()), row.repeat(2));
}

#[test]
fn a_flag_overrides_its_variable() {
    let server = Setup::new().start();
    let output = bet(&server.address(), &["--number", "8", "--document", "x|y"], &VARIABLES);
    assert!(log_of(&output).has("apuesta_enviada | result: success | dni: x\\x7cy | numero: 8"));
}

#[test]
fn a_refusal_is_logged_with_its_reason() {
    let server = server_of(2);
    let output = bet(&server.address(), &FLAGS, &[]);
    let log = log_of(&output);
    assert_eq!(output.status.code(), Some(1), "{}", log.0);
    let line = "CRITICAL action: apuesta_enviada | result: fail | dni: 30111222 | numero: 7 | error: the server refused";
    assert!(log.lines().next().unwrap().starts_with(line), "{}", log.0);
    assert!(server.bets_file().is_empty());
}

#[test]
fn a_refusal_cannot_write_to_a_terminal() {
    let log = log_of(&against(&[frame(kind::ERROR, b"\x1b[31mno\n\xc2\x9b2J")]));
    assert!(log.0.contains("the server refused the bet: \\x1b[31mno\\x0a\\x9b2J"), "{}", log.0);
}

#[test]
fn without_a_reply_the_outcome_is_unknown_and_the_bet_is_not_sent_again() {
    let output = against(&[Vec::new()]);
    let log = log_of(&output);
    assert_eq!((output.status.code(), log.0.lines().count()), (Some(1), 1), "{}", log.0);
    assert!(log.0.contains("it is not known whether that is stored"), "{}", log.0);
    let output = against(&[b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(log_of(&output).0.contains("apuesta_enviada | result: fail"));
}

#[test]
fn a_server_that_is_busy_is_asked_again() {
    let output = against(&[frame(kind::ERROR, b"busy: no process"), frame(kind::BET_ACK, b"OK")]);
    let log = log_of(&output);
    assert_eq!(output.status.code(), Some(0), "{}", log.0);
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("WARNING  action: connect | result: fail"), "{}", log.0);
}

#[test]
fn bet_waits_for_a_server_that_does_not_run_yet() {
    let port = free_port();
    let mut command = command(&format!("127.0.0.1:{port}"), &FLAGS, &[]);
    let mut process = Running::start(command.stdout(Stdio::null()).stderr(Stdio::piped()));
    let mut lines = BufReader::new(process.stderr()).lines().map(Result::unwrap);
    assert!(
        lines.any(|line| line.contains(&format!(" | server_address: 127.0.0.1:{port} | error: "))),
        "it ended"
    );
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    answer(&mut listener.accept().unwrap().0, &frame(kind::BET_ACK, b"OK"));
    let rest: Vec<String> = lines.collect();
    assert_eq!(process.end().code(), Some(0), "{rest:?}");
}

#[test]
fn an_invalid_bet_is_not_sent() {
    for (name, value) in [
        ("--agency", "0"),
        ("--agency", "65536"),
        ("--first-name", "a\u{1e}b"),
        ("--document", "a\u{1f}b"),
        ("--last-name", "a\nb"),
        ("--document", &"1".repeat(256)),
        ("--birthdate", "1999-02-29"),
        ("--birthdate", "1999-2-2"),
        ("--number", "4294967296"),
        ("--number", "+1"),
        ("--address", "12345"),
        ("--address", "host:0"),
    ] {
        // Nobody listens on port 9: if the bet were valid, the command would retry for ever.
        let output = bet("127.0.0.1:9", &[name, value], &VARIABLES);
        let error = text(&output.stderr);
        assert!(output.status.code() == Some(2) && error.contains(name), "{name} {value:?}: {error}");
    }
    for (missing, flag) in VARIABLES.iter().zip(FLAGS.iter().step_by(2)) {
        let rest: Vec<_> = VARIABLES.into_iter().filter(|variable| variable != missing).collect();
        let output = bet("127.0.0.1:9", &[], &rest);
        let error = text(&output.stderr);
        assert!(output.status.code() == Some(2) && error.contains(flag), "{error}");
    }
}

#[test]
fn a_wrong_log_format_is_reported_before_anything_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let output = bet(&listener.local_addr().unwrap().to_string(), &FLAGS, &[("LOG_FORMAT", "xml")]);
    assert_eq!(output.status.code(), Some(2));
    let log = log_of(&output);
    let line = log.lines().next().unwrap();
    assert!(
        line.contains("key: LOG_FORMAT | value: xml | origin: environment variable LOG_FORMAT"),
        "{line}"
    );
    assert!(listener.accept().is_err(), "it connected");
}

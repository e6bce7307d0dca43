//! A client that repeats cheap messages: the log counts them, and does not grow with them.

use std::time::{Duration, Instant};

use common::{Client, Log, RunningServer, Setup, frame, kind, until};

/// How often each message of a flood is sent.
const ROUNDS: usize = 4000;

/// The lines of the log about the session of agency 1, but for its opening and its end.
fn lines_of_the_session(server: &RunningServer) -> usize {
    let actions = ["session_progress", "end_message", "result_request", "protocol", "apuesta_recibida"];
    actions.iter().map(|action| server.log().lines_with(&format!("action: {action} | ")).len()).sum()
}

/// Sends each frame 4,000 times and reads all answers.
fn flood(client: &mut Client, frames: &[Vec<u8>]) {
    for _ in 0..ROUNDS / 20 {
        client.send(&frames.concat().repeat(20));
        for _ in 0..20 * frames.len() {
            client.read_frame();
        }
    }
}

/// At level DEBUG, which writes most. The build before wrote 15 bytes for each byte of such a session.
#[test]
fn refused_and_repeated_requests_of_a_session_are_counted_and_make_one_line_in_five_seconds() {
    let server = Setup::of(2).start();
    let (mut client, _) = server.session(1);
    let start = Instant::now();
    let refused = [frame(kind::END, &[2]), frame(kind::END, b"no"), frame(kind::RESULT_REQUEST, &[2])];
    flood(&mut client, &refused);
    let repeated = [frame(kind::END, b""), frame(kind::RESULT_REQUEST, b"")];
    flood(&mut client, &repeated);
    // The lines: the first refusal, the first END, the first RESULT_REQUEST, and one report in each 5 s.
    let reports = usize::try_from(start.elapsed().as_secs() / 5).unwrap();
    let lines = lines_of_the_session(&server);
    assert!(lines <= 3 + reports, "{lines} lines:\n{}", server.log().0);
    assert_eq!(server.log().count("INFO", "end_message | result: success | agency_id: 1"), 1);
    // The draw: a new outcome has a line, its repetitions have none.
    server.connect().classic_end(2);
    flood(&mut client, &[frame(kind::RESULT_REQUEST, b"")]);
    assert_eq!(server.log().count("INFO", "result_request | result: success | agency_id: 1"), 1);
    drop(client);
    let totals = format!("refused: {} | repeated: {}", 3 * ROUNDS, 3 * ROUNDS - 3);
    let closed = format!("session_closed | result: success | agency_id: 1 | stored: 0 | {totals}");
    until("the totals are logged", || !server.log().lines_with(&closed).is_empty());
}

#[test]
fn a_session_that_goes_on_being_refused_reports_the_number_every_five_seconds() {
    let server = Setup::of(2).with("LOGGING_LEVEL", "INFO").start();
    let (mut client, _) = server.session(1);
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < Duration::from_secs(6) {
        client.send_frame(kind::END, &[2]);
        client.expect_error();
        sent += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    let log = server.log();
    assert_eq!(log.lines_with("session_progress | result: in_progress | ").len(), 1, "{}", log.0);
    assert_eq!(lines_of_the_session(&server), 2);
    drop(client);
    server.wait_for_handlers(0);
    assert_eq!(server.log().value("session_closed", "refused"), Some(sent.to_string()));
}

/// A classic client can only poll, and sends END again because it has no answer.
#[test]
fn an_agency_that_polls_before_the_draw_has_one_line_at_level_info() {
    let server = Setup::of(3).with("LOGGING_LEVEL", "INFO").start();
    for agency in [1, 2] {
        server.connect().classic_end(agency);
    }
    let before = server.log().lines().count();
    for _ in 0..50 {
        for agency in [1, 2] {
            server.connect().classic(kind::RESULT_REQUEST, &[agency], kind::IN_PROGRESS, b"");
            server.connect().classic_end(agency);
        }
    }
    let polled = server.log();
    let polls = |log: &Log| log.lines_with("result_request | result: in_progress | agency_id: ").len();
    // The first poll of each has a line, and one of its arrival.
    assert_eq!((polls(&polled), polled.lines().count()), (2, before + 4), "{}", polled.0);
    // What is new has its lines again.
    server.connect().classic_end(3);
    server.connect().classic(kind::RESULT_REQUEST, &[1], kind::RESULT, b"");
    let log = server.log();
    let lines: Vec<&str> = log.lines().skip(before + 4).collect();
    let actions = ["accept_connections", "end_message", "sorteo", "accept_connections", "result_request"];
    assert_eq!(lines.len(), actions.len(), "{lines:?}");
    for action in actions {
        assert!(
            lines.iter().any(|line| line.starts_with(&format!("INFO     action: {action} | "))),
            "{lines:?}"
        );
    }
}

/// A classic connection is one message, whatever follows it.
#[test]
fn a_classic_connection_that_is_refused_has_one_line_beside_that_of_its_arrival() {
    let server = Setup::of(2).start();
    for bad in [frame(kind::END, &[9]), frame(kind::END, b"no"), frame(kind::BET, b"x"), frame(0x55, b"")] {
        for closes_at_once in [false, true] {
            let before = server.log().lines().count();
            let mut client = server.connect();
            client.send(&bad.repeat(1000));
            if !closes_at_once {
                // The connection must end: by a close, or by a reset if the server left bytes unread.
                std::io::copy(&mut client.stream, &mut std::io::sink()).ok();
            }
            drop(client);
            until("the handler has ended", || server.log().lines().count() >= before + 2);
            server.wait_for_handlers(0);
            let log = server.log();
            let lines: Vec<&str> = log.lines().skip(before).collect();
            assert_eq!(lines.len(), 2, "{lines:?}");
        }
    }
}

//! The agency's sessions, against a fake server that each test plays frame by frame.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use common::agencies::Agency;
use common::original::{OnUnknown, OriginalServer};
use common::stage::{Stage, digest, documents, rows};
use common::{A_WHILE, PATIENCE, Setup, await_within, frame, free_port, kind, processes, until};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

#[test]
fn all_bets_are_sent_in_order_and_the_log_has_few_lines() {
    let stage = Stage::new(&rows(95));
    let mut agency = stage.agency(&[]);
    stage.accept_session(0, 0, 1 << 20).finish(0, 95, b"1\x1e2\x1e3");
    let log = agency.succeed();
    let lines: Vec<&str> = log.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            "INFO     action: open_session | result: success | agency_id: 3 | stored: 0",
            "INFO     action: apuesta_enviada | result: success | cantidad: 95 | agency_id: 3",
            &format!(
                "INFO     action: end_message | result: success | agency_id: 3 | bets: 95 | digest: {:016x}",
                digest(95)
            ),
            "INFO     action: consulta_ganadores | result: success | cant_ganadores: 3 | agency_id: 3",
        ]
    );
}

#[test]
fn each_batch_has_a_line_at_level_debug() {
    let stage = Stage::new(&rows(95));
    let mut agency = stage.agency(&[("CLI_LOG_LEVEL", "DEBUG")]);
    stage.accept_session(0, 0, 1 << 20).finish(0, 95, b"");
    let log = agency.succeed();
    assert_eq!(log.count("DEBUG", "apuesta_enviada | result: success | cantidad: 10"), 9, "{}", log.0);
    assert_eq!(log.count("DEBUG", "apuesta_enviada | result: success | cantidad: 5"), 1, "{}", log.0);
}

#[test]
fn a_long_upload_logs_its_progress() {
    let stage = Stage::new(&rows(50));
    let mut agency = stage.agency(&[]);
    let mut peer = stage.accept_session(0, 0, 1 << 20);
    for batch in 1..=5 {
        peer.bets();
        if batch >= 4 {
            std::thread::sleep(Duration::from_millis(2600));
        }
        peer.acknowledge(batch * 10);
    }
    peer.finish(50, 50, b"");
    let log = agency.succeed();
    assert_eq!(log.count("INFO", "apuesta_enviada | result: in_progress | cantidad: 50"), 1, "{}", log.0);
    assert_eq!(log.lines_with("apuesta_enviada").len(), 2, "{}", log.0);
}

#[test]
fn an_empty_file_and_an_empty_result_are_fine() {
    let stage = Stage::new("");
    let mut agency = stage.agency(&[]);
    stage.accept_session(0, 0, 1 << 20).finish(0, 0, b"");
    assert!(agency.succeed().has("consulta_ganadores | result: success | cant_ganadores: 0"));
}

#[test]
fn after_a_lost_connection_the_agency_continues_from_stored() {
    let stage = Stage::new(&rows(1000));
    let mut agency = stage.agency(&[]);
    let mut peer = stage.accept_session(0, 0, 1 << 20);
    for batch in 1..=5 {
        peer.bets();
        peer.acknowledge(batch * 10);
    }
    // The server has stored more than it acknowledged, and not whole batches.
    drop(peer);
    stage.accept_session(73, 0, 1 << 20).finish(73, 1000, b"");
    let log = agency.succeed();
    assert!(log.0.contains("WARNING  action: connect | result: fail"), "{}", log.0);
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
    peer.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for batch in 1..=32 {
        peer.acknowledge(batch * 10);
    }
    peer.finish(320, 1000, b"");
    agency.succeed();
}

#[test]
fn no_payload_is_longer_than_the_server_accepts() {
    let stage = Stage::new(&rows(50));
    let mut agency = stage.agency(&[]);
    let mut peer = stage.accept_session(0, 0, 120);
    let mut stored = 0;
    while stored < 50 {
        let (kind, payload) = peer.frame().unwrap();
        assert!(kind == kind::SESSION_BETS && payload.len() <= 120, "{}", payload.len());
        stored += documents(&payload[8..]).len() as u64;
        peer.acknowledge(stored);
    }
    peer.finish(50, 50, b"");
    agency.succeed();
}

#[test]
fn no_message_is_longer_than_the_agency_is_told() {
    let stage = Stage::new(&rows(50));
    let mut agency = stage.agency(&[("CLI_BATCH_MAXBYTES", "125")]);
    let mut peer = stage.accept_session(0, 0, 1 << 20);
    let mut stored = 0;
    while stored < 50 {
        let (kind, payload) = peer.frame().unwrap();
        assert!(kind == kind::SESSION_BETS && payload.len() + 5 <= 125, "{}", payload.len());
        stored += documents(&payload[8..]).len() as u64;
        peer.acknowledge(stored);
    }
    peer.finish(50, 50, b"");
    agency.succeed();
}

#[test]
fn a_bet_that_fits_into_no_message_is_an_error_with_its_line() {
    for (limit, max_payload) in [("", 40), ("10", 1 << 20)] {
        let stage = Stage::new(&rows(50));
        let mut agency = stage.agency(&[("CLI_BATCH_MAXBYTES", limit)]);
        let mut peer = stage.accept_session(0, 0, max_payload);
        assert_eq!(peer.frame(), None);
        let line = agency.fail();
        assert!(line.contains("| line: 1 |") && line.contains(": raise CLI_BATCH_MAXBYTES, or "), "{line}");
    }
}

#[test]
fn an_invalid_row_ends_the_agency_and_nothing_of_its_batch_is_sent() {
    let stage = Stage::new(&(rows(15) + "Ana,Paz,1,1990-02-30,7\r\n" + &rows(10)));
    let mut agency = stage.agency(&[]);
    let mut peer = stage.accept_session(0, 0, 1 << 20);
    assert_eq!(peer.bets().1.len(), 10);
    peer.acknowledge(10);
    assert_eq!(peer.frame(), None);
    let line = agency.fail();
    assert!(line.contains("agency-3.csv | line: 16 | error: the birthdate"), "{line}");
    let log = agency.log();
    assert_eq!(log.count("INFO", "apuesta_enviada | result: in_progress | cantidad: 10"), 1, "{}", log.0);
    assert_eq!(log.count("INFO", "apuesta_enviada | result: success"), 0, "not all are sent: {}", log.0);
}

#[test]
fn an_invalid_text_is_refused_with_its_line() {
    // Two stray quotes turn five lines into one row of five columns.
    let merged = "Ana,\"Paz,1,1990-02-28,7\nEva,Gil,2,1990-02-28,7\nAna,Luz,3,1990-02-28,7\nAna,Paz,4,1990-02-28,7\n\
                  Ana,Paz\",5,1990-02-28,7\n";
    let long = format!("Ana,{},1,1990-02-28,7\n", "x".repeat(256));
    for (bad, reason) in [
        (merged, "a quote that opens in this line is not closed in it"),
        ("A\x1ena,Paz,1,1990-02-28,7\n", "the first name must not hold a control character"),
        ("Ana,Paz,\t1,1990-02-28,7\n", "the document must not hold a control character"),
        (&long, "the last name must be at most 255 bytes long"),
    ] {
        let stage = Stage::new(&(rows(3) + bad + &rows(3)));
        let mut agency = stage.agency(&[]);
        assert_eq!(stage.accept_session(0, 0, 1 << 20).frame(), None);
        let line = agency.fail();
        assert!(line.contains("| line: 4 |") && line.contains(reason), "{line}");
    }
}

#[test]
fn a_missing_file_is_reported_even_without_a_server() {
    let stage = Stage::new("");
    let mut agency = stage.agency(&[("CLI_BETS_FILE", "nothing-{id}.csv")]);
    let line = agency.fail();
    assert!(line.contains("nothing-3.csv: No such file") && line.contains("(CLI_BETS_FILE)"), "{line}");
}

#[test]
fn a_final_refusal_ends_the_agency() {
    let stage = Stage::new(&rows(10));
    let mut agency = stage.agency(&[]);
    for _ in 0..2 {
        let mut peer = stage.accept();
        peer.frame().unwrap();
        peer.send(kind::ERROR, b"agency 3 does not exist");
    }
    assert!(agency.fail().contains("agency 3 does not exist"));

    let mut agency = stage.agency(&[]);
    let mut peer = stage.accept_session(0, 0, 1 << 20);
    peer.bets();
    peer.send(kind::ERROR, b"no room on the disk");
    let line = agency.fail();
    assert!(line.contains("lines 1 to 10") && line.contains("no room on the disk"), "{line}");
}

#[test]
fn a_server_that_is_busy_is_asked_again() {
    let stage = Stage::new(&rows(10));
    let mut agency = stage.agency(&[]);
    let mut peer = stage.accept();
    peer.frame().unwrap();
    peer.send(kind::ERROR, b"busy: no process to be had");
    drop(peer);
    stage.accept_session(0, 0, 1 << 20).finish(0, 10, b"");
    agency.succeed();
}

#[test]
fn bets_that_could_not_be_stored_are_sent_again_over_a_new_session() {
    let stage = Stage::new(&rows(50));
    let mut agency = stage.agency(&[]);
    for _ in 0..3 {
        let mut peer = stage.accept_session(20, 0, 1 << 20);
        let refusals = ["could not be stored: No space left on device", "a gap", "a gap"].map(|reason| {
            peer.bets();
            frame(kind::ERROR, reason.as_bytes())
        });
        // In one write: the agency closes the connection after the first.
        peer.stream.write_all(&refusals.concat()).unwrap();
        assert_eq!(peer.frame(), None);
    }
    let mut peer = stage.accept_session(20, 0, 1 << 20);
    for stored in [30, 40, 50] {
        assert_eq!(peer.bets().0, stored - 10);
        peer.acknowledge(stored);
    }
    assert_eq!(peer.frame(), Some((kind::END, vec![])));
    peer.send(kind::ERROR, b"could not be stored: No space left on device");
    drop(peer);
    stage.accept_session(50, 0, 1 << 20).finish(50, 50, b"");
    let log = agency.succeed();
    // One warning before and one after the progress.
    let warnings = log.lines_of("WARNING");
    assert_eq!(warnings.len(), 2, "{}", log.0);
    assert!(warnings[0].contains("could not be stored: No space left on device"), "{}", log.0);
    assert!(log.lines().count() <= 12, "{}", log.0);
}

#[test]
fn an_agency_outlasts_a_full_disk() {
    if !cfg!(debug_assertions) {
        return; // A release has no failpoints.
    }
    let failpoints = "disk_append=1*off->4*return(28);disk_write_state=2*off->1*return(28)";
    let server = Setup::of(1).with("FAILPOINTS", failpoints).start();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("agency-1.csv"), rows(5000)).unwrap();
    let mut agency = Agency::start(folder.path(), 1, &server.address(), &[("CLI_BATCH_MAXAMOUNT", "10")]);
    let log = agency.succeed();
    assert!(!log.lines_with("the server says: could not be stored: No space left").is_empty(), "{}", log.0);
    assert_eq!(server.bets_file().split(|byte| *byte == b'\n').count(), 5000 + 1);
}

#[test]
fn the_pause_between_attempts_grows_while_there_is_no_progress() {
    let stage = Stage::new(&rows(10));
    let mut agency = stage.agency(&[]);
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut sessions = 0;
    while Instant::now() < deadline {
        let Some(mut peer) = await_within(Duration::from_millis(100), || stage.try_accept()) else {
            continue;
        };
        peer.expect_opening();
        peer.open(0, 0, 1 << 20);
        peer.bets();
        peer.acknowledge(10);
        peer.end(10);
        assert_eq!(peer.frame(), Some((kind::AWAIT_RESULT, vec![])));
        sessions += 1;
    }
    assert!((3..=8).contains(&sessions), "{sessions}");
    assert!(agency.log().lines_of("WARNING").len() <= 2, "{}", agency.log().0);
    agency.terminate(Signal::SIGTERM);
}

#[test]
fn the_error_about_a_server_without_sessions_names_classic_mode() {
    for on_unknown in [OnUnknown::Close, OnUnknown::KeepOpen] {
        let server = OriginalServer::start(1, on_unknown);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("agency-3.csv"), rows(10)).unwrap();
        let mut agency = Agency::start(folder.path(), 3, &server.address, &[]);
        let line = await_within(Duration::from_secs(15), || agency.try_end()).map(|_| agency.fail());
        let line = line.expect("an agency that ends");
        assert!(line.contains("does not speak sessions") && line.contains("CLI_PROTOCOL=classic"), "{line}");
        assert_eq!(server.bets_of(3), 0);
    }
}

#[test]
fn a_server_with_slow_storage_is_not_mistaken_for_one_without_sessions() {
    let server = Setup::of(1).start();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("agency-1.csv"), rows(10)).unwrap();
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    let mut agency = Agency::start(folder.path(), 1, &server.address(), &[]);
    // In less time the agency decides whether a server knows sessions.
    std::thread::sleep(Duration::from_secs(9));
    assert!(agency.try_end().is_none(), "{}", agency.log().0);
    processes::send(storage, Signal::SIGCONT);
    agency.succeed();
}

#[test]
fn a_server_that_restarts_while_a_session_opens_is_not_mistaken_for_one_without_sessions() {
    // Without the second agency there is no draw: on a busy machine the first might have its result before the last restart.
    let setup = Setup::of(2).with("SERVER_PORT", free_port());
    let mut server = setup.start();
    let folder = tempfile::tempdir().unwrap();
    for agency in 1..=2 {
        std::fs::write(folder.path().join(format!("agency-{agency}.csv")), rows(10)).unwrap();
    }
    let mut agency = None;
    for _ in 0..3 {
        let storage = server.storage();
        processes::send(storage, Signal::SIGSTOP);
        let address = server.address();
        agency.get_or_insert_with(|| Agency::start(folder.path(), 1, &address, &[]));
        until("OPEN_SESSION is in flight", || !server.log().lines_with("accept_connections").is_empty());
        server.kill9();
        server = setup.start();
    }
    Agency::start(folder.path(), 2, &server.address(), &[]).succeed();
    agency.unwrap().succeed();
}

#[test]
fn an_agency_that_waits_for_the_server_logs_this_once() {
    let stage = Stage::new(&rows(10));
    let mut agency = stage.agency(&[]);
    agency.await_log("INFO     action: connect | result: in_progress | waited_s: 3", 1);
    stage.accept_session(0, 0, 1 << 20).finish(0, 10, b"");
    assert_eq!(agency.succeed().0.matches("result: in_progress").count(), 1);
}

#[test]
fn an_agency_that_has_ended_only_waits_for_the_draw() {
    for state in [1, 2] {
        let stage = Stage::new(&rows(10));
        let mut agency = stage.agency(&[]);
        stage.accept_session(10, state, 1 << 20).give_result(b"4");
        assert!(agency.succeed().has("consulta_ganadores | result: success | cant_ganadores: 1"));
    }
}

#[test]
fn a_file_that_contradicts_the_stored_bets_is_an_error() {
    let stage = Stage::new(&rows(10));
    let mut agency = stage.agency(&[]);
    assert_eq!(stage.accept_session(11, 0, 1 << 20).frame(), None);
    assert!(agency.fail().contains("11 are stored, but it has only 10; nothing of it was sent"));
    let mut agency = stage.agency(&[]);
    assert_eq!(stage.accept_session(9, 1, 1 << 20).frame(), None);
    let error = agency.fail();
    assert!(error.contains("has ended with 9 bets") && error.contains("for a new contest"), "{error}");
}

#[test]
fn an_agency_that_loses_its_connection_while_it_waits_for_the_draw_reconnects() {
    let stage = Stage::new(&rows(10));
    let mut agency = stage.agency(&[]);
    let mut peer = stage.accept_session(10, 0, 1 << 20);
    peer.end(10);
    assert_eq!(peer.frame(), Some((kind::AWAIT_RESULT, vec![])));
    drop(peer);
    stage.accept_session(10, 1, 1 << 20).give_result(b"");
    agency.succeed();
}

#[test]
fn a_peer_that_is_not_a_lottery_server_ends_the_agency() {
    let stage = Stage::new(&rows(10));
    let mut agency = stage.agency(&[]);
    let mut peer = stage.accept();
    peer.frame().unwrap();
    // Fewer bytes than the header of a frame has.
    peer.stream.write_all(b"220").unwrap();
    agency.fail();
}

#[test]
fn a_second_reply_to_one_request_ends_the_agency() {
    let stage = Stage::new("");
    let mut agency = stage.agency(&[]);
    let mut peer = stage.accept_session(0, 0, 1 << 20);
    assert_eq!(peer.frame(), Some((kind::END, vec![])));
    // In one write, so that the agency reads both at once.
    peer.stream.write_all(&frame(kind::BET_ACK, b"OK").repeat(2)).unwrap();
    agency.fail();
}

#[test]
fn a_signal_ends_it_while_it_waits_for_the_draw() {
    for signal in processes::termination_signals() {
        let stage = Stage::new(&rows(10));
        let mut agency = stage.agency(&[]);
        let mut peer = stage.accept_session(10, 1, 1 << 20);
        assert_eq!(peer.frame(), Some((kind::AWAIT_RESULT, vec![])));
        agency.terminate(signal);
    }
}

#[test]
fn a_signal_ends_it_while_it_reads_a_configuration_that_nobody_writes() {
    let stage = Stage::new(&rows(10));
    mkfifo(&stage.folder.path().join("config.ini"), Mode::S_IRWXU).unwrap();
    let mut agency = stage.agency(&[]);
    std::thread::sleep(A_WHILE);
    agency.terminate(Signal::SIGTERM);
}

#[test]
fn a_signal_ends_it_while_it_waits_for_an_answer() {
    let stage = Stage::new(&rows(10));
    let mut agency = stage.agency(&[]);
    stage.accept().frame().unwrap();
    agency.await_log("action: config", 1);
    agency.terminate(Signal::SIGTERM);
}

#[test]
fn a_signal_ends_it_between_two_tries() {
    let stage = Stage::new(&rows(10));
    let address = stage.listener.local_addr().unwrap().to_string();
    let Stage { listener, folder } = stage;
    drop(listener);
    let mut agency = Agency::start(folder.path(), 3, &address, &[("CLI_LOG_LEVEL", "DEBUG")]);
    agency.await_log("retry_in_ms", 3);
    assert_eq!(agency.log().lines_of("WARNING").len(), 1, "the reason is the same");
    agency.terminate(Signal::SIGTERM);
}

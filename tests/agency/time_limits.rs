//! `CLI_CONNECT_TIMEOUT` and `CLI_RESULT_TIMEOUT`: they end the agency in time, and only then.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::agencies::Agency;
use common::original::{OnUnknown, OriginalServer};
use common::stage::{Stage, rows};
use common::tls::{agency_folder, make_certificates, tls_setup};
use common::{Setup, free_port, kind, until};

/// A limit that a test waits for.
const LIMIT: &str = "300ms";
const SHORT: Duration = Duration::from_millis(300);
/// The same, and time for a busy machine.
const IN_TIME: Duration = Duration::from_secs(5);
const SESSION: (&str, &str) = ("CLI_PROTOCOL", "session");
const CLASSIC: (&str, &str) = ("CLI_PROTOCOL", "classic");
const CONNECT_LIMIT: (&str, &str) = ("CLI_CONNECT_TIMEOUT", LIMIT);
const RESULT_LIMIT: (&str, &str) = ("CLI_RESULT_TIMEOUT", LIMIT);

/// The error with which the agency must end after the limit.
#[track_caller]
fn given_up(agency: &mut Agency, since: Instant) -> String {
    let line = agency.fail();
    let took = since.elapsed();
    assert!(SHORT <= took && took < IN_TIME, "{took:?}");
    line
}

#[test]
fn an_agency_that_finds_no_server_gives_up() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("agency-3.csv"), rows(1)).unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    // The file has the limit, and the environment the mode.
    fs::write(folder.path().join("config.ini"), format!("[AGENCY]\nCONNECT_TIMEOUT = {LIMIT}\n")).unwrap();
    for mode in [SESSION, CLASSIC] {
        let since = Instant::now();
        let line = given_up(&mut Agency::start(folder.path(), 3, &address, &[mode]), since);
        let error =
            format!("no connection to {address} within {LIMIT} (CLI_CONNECT_TIMEOUT): Connection refused");
        assert!(line.contains(&error), "{line}");
    }
}

#[test]
fn an_agency_whose_server_does_not_answer_gives_up() {
    let stage = Stage::new(&rows(1));
    let setup = Setup::new();
    make_certificates(&setup, 3, &[]);
    let folder = agency_folder(&setup, 3);
    let tls = ("CLI_TLS_DIR", folder.to_str().unwrap());
    // Connections are made, but nobody reads them: no session is opened, no TLS handshake ends.
    for variables in
        [&[SESSION, CONNECT_LIMIT][..], &[SESSION, CONNECT_LIMIT, tls], &[CLASSIC, CONNECT_LIMIT, tls]]
    {
        let since = Instant::now();
        let line = given_up(&mut stage.agency(variables), since);
        assert!(line.contains("(CLI_CONNECT_TIMEOUT): nothing answers;"), "{line}");
    }
}

#[test]
fn an_agency_whose_server_stays_busy_gives_up() {
    let stage = Stage::new(&rows(1));
    let since = Instant::now();
    let mut agency = stage.agency(&[CONNECT_LIMIT]);
    until("the agency ends", || {
        if let Some(mut peer) = stage.try_accept() {
            peer.expect_opening();
            peer.send(kind::ERROR, b"busy: try later");
        }
        agency.try_end().is_some()
    });
    let line = given_up(&mut agency, since);
    assert!(line.contains("(CLI_CONNECT_TIMEOUT): the server says: busy: try later;"), "{line}");
}

#[test]
fn the_time_to_connect_is_counted_anew_after_each_connection() {
    let stage = Stage::new(&rows(20));
    let mut agency = stage.agency(&[CONNECT_LIMIT]);
    let mut peer = stage.accept_session(0, 0, 1 << 20);
    peer.bets();
    sleep(SHORT);
    peer.acknowledge(10);
    drop(peer);
    let mut peer = stage.accept_session(10, 0, 1 << 20);
    sleep(SHORT);
    peer.finish(10, 20, b"");
    agency.succeed();

    let mut agency = stage.agency(&[CLASSIC, CONNECT_LIMIT]);
    for _ in 0..2 {
        let mut peer = stage.accept();
        peer.frame().unwrap();
        sleep(SHORT);
        peer.send(kind::BET_ACK, b"OK");
    }
    assert_eq!(stage.accept().frame(), Some((kind::END, vec![3])));
    let mut peer = stage.accept();
    peer.frame().unwrap();
    sleep(SHORT);
    peer.send(kind::RESULT, b"");
    agency.succeed();
}

#[test]
fn a_session_that_waits_too_long_for_the_result_gives_up() {
    let stage = Stage::new(&rows(10));
    let mut agency = stage.agency(&[RESULT_LIMIT]);
    let mut peer = stage.accept_session(0, 0, 1 << 20);
    peer.bets();
    // The upload does not count.
    sleep(SHORT);
    peer.acknowledge(10);
    let since = Instant::now();
    peer.end(10);
    assert_eq!(peer.frame(), Some((kind::AWAIT_RESULT, vec![])));
    // The wait goes on while the agency connects again, to a server that does not answer.
    drop(peer);
    let line = given_up(&mut agency, since);
    assert!(
        line.contains("no result within 300ms (CLI_RESULT_TIMEOUT): the draw waits for agencies"),
        "{line}"
    );
}

#[test]
fn a_result_that_comes_in_time_is_taken() {
    let stage = Stage::new(&rows(10));
    let mut agency = stage.agency(&[("CLI_RESULT_TIMEOUT", "1m"), ("CLI_CONNECT_TIMEOUT", "1m")]);
    let mut peer = stage.accept_session(0, 0, 1 << 20);
    peer.finish(0, 10, b"1");
    assert!(agency.succeed().has("consulta_ganadores | result: success | cant_ganadores: 1 | agency_id: 3"));
}

#[test]
fn classic_mode_and_an_agency_over_tls_give_up_too() {
    let original = OriginalServer::start(2, OnUnknown::KeepOpen);
    let setup = tls_setup(2);
    let server = setup.start();
    fs::write(setup.path("agency-1.csv"), rows(10)).unwrap();
    let folder = agency_folder(&setup, 1);
    let tls = ("CLI_TLS_DIR", folder.to_str().unwrap());
    let address = format!("localhost:{}", server.port());
    for (address, variables) in [
        (&original.address, &[CLASSIC, RESULT_LIMIT][..]),
        (&address, &[CLASSIC, RESULT_LIMIT, tls]),
        (&address, &[SESSION, RESULT_LIMIT, tls]),
    ] {
        let since = Instant::now();
        let line = given_up(&mut Agency::start(&setup.path(""), 1, address, variables), since);
        assert!(line.contains("no result within 300ms (CLI_RESULT_TIMEOUT)"), "{line}");
    }
}

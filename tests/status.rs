//! STATUS: how the contest goes, as JSON, for operators and health checks.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

mod common;

use std::time::Duration;

use common::{Setup, bets, frame, kind, processes, status, winner};
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn a_status_tells_how_the_contest_goes() {
    let server = Setup::new().with("CLIENTS_AMOUNT", 3).with("MAX_CLIENTS", 50).start();
    let (mut first, _) = server.session(1);
    first.store(0, &bets(1, 0..7));
    server.session(2).0.store(0, &[winner(2, "1")]);
    first.end_agency();
    server.wait_for_handlers(1);
    let got = status(server.port());
    let mut keys: Vec<&str> = got.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "agencies",
            "bets",
            "confinement",
            "draw",
            "drawn",
            "ended",
            "handlers",
            "max_clients",
            "per_agency",
            "storage_restarts",
            "uptime_seconds"
        ]
    );
    assert_eq!((&got["agencies"], &got["ended"], &got["bets"]), (&json!(3), &json!(1), &json!(8)));
    assert_eq!((&got["drawn"], &got["draw"]), (&json!(false), &json!(null)));
    assert_eq!((&got["max_clients"], &got["storage_restarts"]), (&json!(50), &json!(0)));
    let handlers = got["handlers"].as_u64().unwrap();
    assert!((1..=2).contains(&handlers), "one session, and perhaps the one that asks: {handlers}");
    assert!(got["uptime_seconds"].as_f64().unwrap() < 60.0);
    assert_eq!(
        got["per_agency"],
        json!([
            {"agency": 1, "bets": 7, "ended": true},
            {"agency": 2, "bets": 1, "ended": false},
            {"agency": 3, "bets": 0, "ended": false},
        ])
    );
}

#[test]
fn a_status_tells_of_the_draw() {
    let server = Setup::new().with("CLIENTS_AMOUNT", 1).start();
    server.session(1).0.end_agency();
    let got = status(server.port());
    assert_eq!((&got["drawn"], &got["ended"]), (&json!(true), &json!(1)));
    assert!(got["draw"].is_object(), "{got}");
    assert!(got["draw"].to_string().contains("7574"), "{got}");
}

#[test]
fn a_status_of_many_agencies_is_whole() {
    let server = Setup::new().with("CLIENTS_AMOUNT", 65_535).start();
    server.session(65_535).0.store(0, &bets(65_535, 0..2));
    let got = status(server.port());
    assert_eq!(got["agencies"], 65_535);
    let agencies = got["per_agency"].as_array().unwrap();
    assert_eq!(agencies.last().unwrap(), &json!({"agency": 65_535, "bets": 2, "ended": false}));
}

#[test]
fn a_status_request_with_a_payload_is_refused() {
    let server = Setup::new().start();
    server.connect().refused(kind::STATUS_REQUEST, b"x");
}

#[test]
fn a_status_is_answered_only_when_storage_answers() {
    let server = Setup::new().start();
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    let mut client = server.connect();
    client.send(&frame(kind::STATUS_REQUEST, b""));
    client.expect_silence(Duration::from_millis(300));
    processes::send(storage, Signal::SIGCONT);
    assert_eq!(client.read_frame().0, kind::STATUS);
    client.expect_eof();
}

//! STATUS, for operators and health checks.

use std::process::Command;

use common::tls::tls_setup;
use common::{Setup, bets, frame, kind, loteria, output, processes, server_of, status, text, until, winner};
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn a_status_reports_the_contest() {
    let server = Setup::of(3).with("MAX_CLIENTS", 50).start();
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
            "batches",
            "bets",
            "confinement",
            "connections",
            "draw",
            "drawn",
            "ended",
            "group_bets",
            "handlers",
            "max_clients",
            "per_agency",
            "refusals",
            "status_requests",
            "storage_restarts",
            "sync_seconds",
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
fn a_status_reports_the_counters_and_storages_own_begin_again_with_storage() {
    let server = server_of(1);
    let (mut session, _) = server.session(1);
    session.store(0, &bets(1, 0..1));
    session.store(1, &bets(1, 1..150));
    session.send_bets(151, &bets(1, 151..152));
    session.expect_error();
    server.connect().refused(kind::BET, b"no record");
    let got = status(server.port());
    assert_eq!((&got["batches"], &got["connections"]), (&json!(2), &json!(3)));
    assert_eq!(got["status_requests"], json!(1), "the one that asked");
    assert_eq!(got["group_bets"], json!({"count": 2, "sum": 150.0}));
    assert_eq!(got["sync_seconds"]["count"], json!(2));
    assert!(got["sync_seconds"]["sum"].as_f64().unwrap() > 0.0);
    assert_eq!(refused(&got), [("handler", "bets", 1), ("storage", "gap", 1)]);
    let before = server.storage();
    processes::send(before, Signal::SIGKILL);
    until("there is another storage service", || server.storage() != before);
    let got = status(server.port());
    assert_eq!((&got["bets"], &got["batches"], &got["connections"]), (&json!(150), &json!(0), &json!(4)));
    assert_eq!(got["group_bets"], json!({"count": 0, "sum": 0.0}));
    assert_eq!(refused(&got), [("handler", "bets", 1)]);
}

/// The counters of refusals that are not 0: process, reason, count.
fn refused(status: &serde_json::Value) -> Vec<(&str, &str, u64)> {
    let all = status["refusals"].as_array().unwrap().iter();
    let all = all.map(|one| (one["by"].as_str(), one["reason"].as_str(), one["count"].as_u64()));
    all.map(|(by, reason, count)| (by.unwrap(), reason.unwrap(), count.unwrap()))
        .filter(|(.., count)| *count > 0)
        .collect()
}

#[test]
fn a_status_reports_the_draw() {
    let server = server_of(1);
    server.session(1).0.end_agency();
    let got = status(server.port());
    assert_eq!((&got["drawn"], &got["ended"]), (&json!(true), &json!(1)));
    assert!(got["draw"].is_object(), "{got}");
    assert!(got["draw"].to_string().contains("7574"), "{got}");
}

/// Runs `loteria status` in the setup's folder with these variables. Returns its exit code and both outputs.
fn ask(setup: &Setup, arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = loteria(&[&["status"], arguments].concat());
    let output = output(command.current_dir(setup.path(".")).envs(variables.iter().copied()));
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_status_asks_the_server_of_the_configuration() {
    let server = Setup::of(3).with("SERVER_IP", "127.0.0.2").start();
    let (setup, port) = (server.setup(), server.port().to_string());
    for ip in ["127.0.0.2", "0.0.0.0", "server"] {
        let server =
            setup.clone().with("SERVER_IP", ip).with("STORAGE_FILEPATH", format!("{ip}.csv")).start();
        let port = server.port().to_string();
        let (code, out, error) = ask(&setup, &[], &[("SERVER_PORT", &port), ("SERVER_IP", ip)]);
        assert!(code == Some(0) && out.contains("0 of 3"), "{ip}: {error}");
    }
    let file = format!("[DEFAULT]\nSERVER_PORT = {port}\nSERVER_IP = 127.0.0.2\n");
    let setup = setup.write("config.ini", file);
    let (code, _, error) = ask(&setup, &[], &[]);
    assert_eq!(code, Some(0), "{error}");
    let (code, _, error) = ask(&setup, &[], &[("SERVER_PORT", "1")]);
    assert!(code == Some(1) && error.contains("127.0.0.2:1"), "the environment overrides the file: {error}");
    let address = format!("127.0.0.2:{port}");
    let (code, _, error) = ask(&setup, &["--address", &address], &[("SERVER_PORT", "no port")]);
    assert_eq!(code, Some(0), "--address overrides all: {error}");
}

#[test]
fn a_configuration_without_a_usable_port_is_an_error() {
    let setup = Setup::new().write("config.ini", "[DEFAULT]\nMAX_CLIENTS = 0\nSERVER_PROT = 1\n");
    let (code, out, error) = ask(&setup, &[], &[("SERVER_PORT", "x")]);
    assert_eq!((code, &*out), (Some(2), ""));
    for part in ["SERVER_PORT", "MAX_CLIENTS", "SERVER_PROT", "--address"] {
        assert!(error.contains(part), "{part} is missing: {error}");
    }
    let folder = Setup::new();
    std::fs::create_dir(folder.path("config.ini")).unwrap();
    let (code, _, error) = ask(&folder, &["--watch"], &[]);
    assert!(code == Some(2) && error.contains("config.ini") && error.contains("--address"), "{error}");
    let (code, _, error) = ask(&Setup::new(), &[], &[("SERVER_PORT", "0")]);
    assert!(code == Some(2) && error.contains("SERVER_PORT is 0") && error.contains("--address"), "{error}");
}

#[test]
fn a_status_of_many_agencies_is_complete() {
    let server = server_of(65_535);
    server.session(65_535).0.store(0, &bets(65_535, 0..2));
    let got = status(server.port());
    assert_eq!(got["agencies"], 65_535);
    let agencies = got["per_agency"].as_array().unwrap();
    assert_eq!(agencies.last().unwrap(), &json!({"agency": 65_535, "bets": 2, "ended": false}));
}

#[test]
fn health_checks_write_no_line_at_level_info() {
    let server = Setup::new().with("LOGGING_LEVEL", "INFO").start();
    let before = server.log().0;
    for _ in 0..5 {
        status(server.port());
    }
    server.wait_for_handlers(0);
    assert_eq!(server.log().0, before);
    server.connect().refused(kind::STATUS_REQUEST, b"x");
    assert_eq!(server.log().lines_with("action: protocol | result: fail | ip: 127.0.0.1").len(), 1);
}

#[test]
fn a_status_is_answered_only_when_storage_answers() {
    let server = Setup::new().start();
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    let mut client = server.connect();
    client.send(&frame(kind::STATUS_REQUEST, b""));
    client.expect_silence();
    processes::send(storage, Signal::SIGCONT);
    assert_eq!(client.read_frame().0, kind::STATUS);
    client.expect_eof();
}

#[test]
fn the_end_of_the_servers_certificate_is_in_the_status_and_in_the_metrics() {
    let setup = tls_setup(1);
    let server = setup.start();
    let openssl = ["x509", "-noout", "-enddate", "-dateopt", "iso_8601", "-in", "certs/server/tls.crt"];
    let printed = output(Command::new("openssl").args(openssl).current_dir(setup.path(""))).stdout;
    let end = text(&printed).trim().trim_start_matches("notAfter=").replace(' ', "T");
    let seconds = output(Command::new("date").args(["--date", &end, "+%s"])).stdout;
    let seconds = text(&seconds).trim().to_owned();
    assert_eq!(status(server.port())["certificate_until"].to_string(), seconds);
    for (format, line) in [
        (&[][..], format!("\ncertificate until {end}\n")),
        (&["--prometheus"], format!("\nloteria_certificate_end_timestamp_seconds {seconds}\n")),
    ] {
        let printed = output(loteria(&["status", "--address", &server.address()]).args(format)).stdout;
        assert!(text(&printed).contains(&line), "{line}\n{}", text(&printed));
    }
}

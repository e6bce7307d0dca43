//! The configuration: where settings come from, and how a start that can't be ends.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

mod common;

use std::net::TcpListener;

use common::server::Ended;
use common::{Client, Setup, bets, free_port, kind, loteria, output, rows, text};

/// The one line that a start with a bad configuration writes.
#[track_caller]
fn only_line(ended: &Ended) -> &str {
    assert_eq!(ended.code, Some(2), "{}", ended.log.0);
    ended.log.assert_well_formed();
    assert_eq!(ended.log.0.lines().count(), 1, "{}", ended.log.0);
    assert!(ended.log.0.contains(" | result: fail"), "{}", ended.log.0);
    ended.log.0.trim_end()
}

#[test]
fn a_missing_file_is_no_error_and_the_settings_are_logged() {
    let server = Setup::new().without("LOGGING_LEVEL").start();
    let log = server.log();
    let lines = log.lines_with("action: config | ");
    assert_eq!(lines.len(), 1);
    let start =
        "INFO     action: config | result: success | port: 0 | listen_backlog: 128 | logging_level: INFO";
    assert!(lines[0].starts_with(start), "{}", lines[0]);
    for (key, value) in [("clients_amount", "5"), ("max_clients", "1024"), ("max_payload", "65536")] {
        assert_eq!(log.value("config", key).as_deref(), Some(value), "{}", lines[0]);
    }
}

#[test]
fn the_file_is_read_and_the_environment_overrides_it() {
    let file = "# a comment\n[DEFAULT]\nserver_port = 1\nServer_Ip = 127.0.0.1\nCLIENTS_AMOUNT = 2\nMAX_PAYLOAD: 5000\n\
        STORAGE_FILEPATH = other.csv\n[AGENCY]\nSERVER_ADDRESS = server:12345\n[WHATEVER]\nX = y\n";
    let setup = Setup::new().without("SERVER_IP").with("CLIENTS_AMOUNT", 7).write("config.ini", file);
    let server = setup.start();
    assert_eq!(server.session(7).1.max_payload, 5000);
    server.connect().classic(kind::BET, &bets(1, 0..1)[0].record(), kind::BET_ACK, b"OK");
    assert_eq!(std::fs::read(setup.path("other.csv")).unwrap(), rows(&bets(1, 0..1)));
    assert!(setup.path("other.csv.state").exists() || !setup.path("bets.csv.state").exists());
}

#[test]
fn the_originals_file_is_taken() {
    let file = "[DEFAULT]\nSERVER_PORT = 12345\nSERVER_IP = server\nSERVER_LISTEN_BACKLOG = 5\nLOGGING_LEVEL = INFO\n";
    let setup = Setup::new().without("SERVER_IP").without("LOGGING_LEVEL").write("config.ini", file);
    let server = setup.start();
    let log = server.log();
    assert_eq!(log.value("config", "listen_backlog").as_deref(), Some("5"));
    assert_eq!(log.lines_of("WARNING").len(), 1, "a host name is ignored, and that is said once");
}

#[test]
fn the_shipped_file_is_taken() {
    let file = include_str!("../config.ini");
    let server = Setup::new().write("config.ini", file).start();
    assert_eq!(server.session(5).1.max_payload, 1 << 16);
}

#[test]
fn a_host_name_in_server_ip_means_all_addresses_with_one_warning() {
    let server = Setup::new().with("SERVER_IP", "server").start();
    let log = server.log();
    let [warning] = log.lines_of("WARNING")[..] else { panic!("one warning: {}", log.0) };
    assert!(warning.contains("SERVER_IP") && warning.contains("server"), "{warning}");
    assert_eq!(log.value("listen", "ip").as_deref(), Some("0.0.0.0"));
    Client::connect(server.port()).open_session(1);
}

#[test]
fn fewer_connections_than_agencies_are_warned_of() {
    for (max_clients, warnings) in [(3, 0), (2, 1)] {
        let setup = Setup::new().with("CLIENTS_AMOUNT", 3).with("MAX_CLIENTS", max_clients);
        let log = setup.start().log();
        let lines = log.lines_with("WARNING  action: config | result: success | max_clients: ");
        assert_eq!(lines.len(), warnings, "{}", log.0);
    }
}

#[test]
fn an_unknown_key_is_named_with_value_and_origin_and_all_settings() {
    let setup = Setup::new().write("config.ini", "[DEFAULT]\nSERVER_PROT = 12\n");
    let ended = setup.run();
    let line = only_line(&ended);
    for part in ["SERVER_PROT", "12", "config.ini", "SERVER_PORT", "MAX_CLIENTS"] {
        assert!(line.contains(part), "{part} is missing: {line}");
    }
    assert!(!setup.bets_path().exists());
}

#[test]
fn a_bad_value_in_the_environment_is_named_with_its_origin_and_what_is_allowed() {
    for (key, value, allowed) in [
        ("SERVER_PORT", "65536", "0 to 65535"),
        ("SERVER_PORT", "http", "0 to 65535"),
        ("CLIENTS_AMOUNT", "0", "1 to 65535"),
        ("CLIENT_TIMEOUT", "-1", "seconds"),
        ("LOGGING_LEVEL", "LOUD", "CRITICAL"),
        ("LOTTERY_WINNER_NUMBER", "4294967296", "4294967295"),
        ("MAX_PAYLOAD", "1M", "bytes"),
        ("SERVER_IP", "1.2.3", "address"),
        ("STORAGE_FILEPATH", "", "path"),
        ("MAX_CLIENTS", "a | b\nc", "number"),
    ] {
        let ended = Setup::new().with(key, value).run();
        let line = only_line(&ended);
        assert!(line.contains(key) && line.contains("environment") && line.contains(allowed), "{line}");
        if !value.contains('\n') {
            assert!(line.contains(value), "{line}");
        }
    }
}

#[test]
fn a_bad_value_in_the_file_is_named_with_the_file() {
    let setup = Setup::new().write("config.ini", "[DEFAULT]\nMAX_CLIENTS = many\n");
    let ended = setup.run();
    let line = only_line(&ended);
    for part in ["MAX_CLIENTS", "many", "config.ini", "1 to 1000000"] {
        assert!(line.contains(part), "{part} is missing: {line}");
    }
}

#[test]
fn a_file_that_is_no_ini_file_is_refused() {
    for file in
        [&b"[DEFAULT\nSERVER_PORT = 1\n"[..], b"SERVER_PORT = 1\n", b"[DEFAULT]\nSERVER_PORT\n", b"\xff\xfe"]
    {
        let ended = Setup::new().write("config.ini", file).run();
        assert!(only_line(&ended).contains("config.ini"));
    }
    let folder = Setup::new();
    std::fs::create_dir(folder.path("config.ini")).unwrap();
    assert!(only_line(&folder.run()).contains("config.ini"));
}

#[test]
fn a_port_in_use_ends_the_start_with_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let ended = Setup::new().with("SERVER_PORT", port).run();
    assert_eq!(ended.code, Some(1));
    ended.log.assert_well_formed();
    let line = ended.failure();
    assert!(line.contains(&port.to_string()), "{line}");
}

#[test]
fn an_address_of_another_machine_ends_the_start_with_one_line() {
    let ended = Setup::new().with("SERVER_IP", "192.0.2.1").run();
    assert_eq!(ended.code, Some(1));
    assert!(ended.failure().contains("192.0.2.1"));
}

#[test]
fn a_folder_that_can_not_be_written_ends_the_start_with_one_line() {
    let setup = Setup::new().write("file", "");
    for path in ["file/bets.csv", "missing/bets.csv", "/proc/bets.csv", "."] {
        let ended = setup.clone().with("STORAGE_FILEPATH", path).run();
        assert_eq!(ended.code, Some(1), "{path}");
        ended.log.assert_well_formed();
        let line = ended.failure();
        assert!(line.contains(path), "{line}");
    }
}

#[test]
fn levels_below_the_configured_one_are_not_logged() {
    let server = Setup::new().with("LOGGING_LEVEL", "warning").with("SERVER_PORT", free_port()).spawn();
    let port: u16 = server.setup().setting("SERVER_PORT").parse().unwrap();
    common::until("it listens", || Client::try_connect(port).is_ok());
    Client::connect(port).classic(kind::BET, &bets(1, 0..1)[0].record(), kind::BET_ACK, b"OK");
    assert_eq!(server.log().0, "");
}

/// Runs `loteria server --check` in the setup's folder, with its settings: the exit code, and both outputs.
fn check(setup: &Setup, variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = loteria(&["server", "--check"]);
    let output = output(command.current_dir(setup.path(".")).envs(variables.iter().copied()));
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_check_prints_each_setting_with_its_origin_and_touches_nothing() {
    let file = "[DEFAULT]\nCLIENTS_AMOUNT = 7\nSERVER_IP = server\nMAX_CLIENTS = 10\n";
    let setup = Setup::new().write("config.ini", file);
    let (code, table, log) = check(&setup, &[("MAX_CLIENTS", "20"), ("CLIENT_TIMEOUT", "0.5")]);
    assert_eq!((code, &*log), (Some(0), ""));
    for setting in loteria::config::SERVER_SETTINGS.rows {
        assert_eq!(table.lines().filter(|line| line.starts_with(setting.key)).count(), 1, "{table}");
    }
    assert_eq!(table.lines().count(), loteria::config::SERVER_SETTINGS.rows.len(), "{table}");
    let row = |key: &str| {
        let line = table.lines().find(|line| line.starts_with(&format!("{key} "))).unwrap();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("CLIENTS_AMOUNT"), "7 config.ini [DEFAULT]");
    assert_eq!(row("MAX_CLIENTS"), "20 environment variable MAX_CLIENTS");
    assert_eq!(row("CLIENT_TIMEOUT"), "0.5 environment variable CLIENT_TIMEOUT");
    assert_eq!(row("MAX_PAYLOAD"), "65536 default");
    assert!(row("SERVER_IP").starts_with("0.0.0.0 config.ini [DEFAULT]; server is a host name"), "{table}");
    let files: Vec<_> =
        std::fs::read_dir(setup.path(".")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["config.ini"]);
}

#[test]
fn a_check_tells_what_is_wrong_as_the_server_does() {
    let setup = Setup::new().with("MAX_CLIENTS", 0);
    let (code, table, line) = check(&setup, &[("MAX_CLIENTS", "0")]);
    assert_eq!((code, &*table), (Some(2), ""));
    let ended = setup.run();
    assert_eq!(line.get(20..), only_line(&ended).get(20..).map(|rest| format!("{rest}\n")).as_deref());
    let (code, _, line) = check(&Setup::new().write("config.ini", "[DEFAULT]\nNO = 1\n"), &[]);
    assert!(code == Some(2) && line.contains("there is no such setting"), "{line}");
}

#[test]
fn the_metrics_at_a_name_of_the_servers_own_address_end_the_start_with_both_told() {
    let port = free_port();
    let setup = Setup::new().with("SERVER_PORT", port).with("METRICS_ADDRESS", format!("localhost:{port}"));
    let ended = setup.run();
    assert_eq!(ended.code, Some(1));
    let line = ended.failure();
    let what = format!("can't listen on 127.0.0.1:{port} (SERVER_IP, SERVER_PORT): ");
    assert!(line.contains(&what) && ended.log.0.contains("action: metrics_listen"), "{}", ended.log.0);
}

//! The configuration: where settings come from, and how a start with a fault ends.

use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::server::Ended;
use common::{Log, Setup, bets, kind, loteria, output, rows, text};
use loteria::config::{AGENCY_SETTINGS, SERVER_SETTINGS};

/// The only line of a start with a wrong configuration.
#[track_caller]
fn only_line(ended: &Ended) -> &str {
    assert_eq!(ended.code, Some(2), "{}", ended.log.0);
    ended.log.assert_well_formed();
    assert_eq!(ended.log.0.lines().count(), 1, "{}", ended.log.0);
    assert!(ended.log.0.contains(" | result: fail"), "{}", ended.log.0);
    ended.log.0.trim_end()
}

#[test]
fn a_missing_configuration_file_is_no_error_and_the_settings_are_logged() {
    let server = Setup::new().without("LOGGING_LEVEL").start();
    let log = server.log();
    let lines = log.lines_with("action: config | ");
    assert_eq!(lines.len(), 1);
    let start =
        "INFO     action: config | result: success | port: 0 | listen_backlog: 128 | logging_level: INFO";
    assert!(lines[0].starts_with(start), "{}", lines[0]);
    for (key, value) in
        [("clients_amount", "5"), ("max_clients", "1024"), ("max_payload", "65536"), ("config_file", "none")]
    {
        assert_eq!(log.value("config", key).as_deref(), Some(value), "{}", lines[0]);
    }
    let bets = server.setup().bets_path().display().to_string();
    assert_eq!(log.value("config", "storage_filepath"), Some(bets));
}

#[test]
fn the_file_is_read_and_the_environment_overrides_it() {
    let file = "# a comment\n[DEFAULT]\nserver_port = 1\nServer_Ip = 127.0.0.1\nCLIENTS_AMOUNT = 2\nMAX_PAYLOAD: 5000\n\
        STORAGE_FILEPATH = other.csv\n[AGENCY]\nserver_address: server:12345\n";
    let setup = Setup::new().without("SERVER_IP").with("CLIENTS_AMOUNT", 7).write("config.ini", file);
    let server = setup.start();
    assert_eq!(server.session(7).1.max_payload, 5000);
    server.connect().classic(kind::BET, &bets(1, 0..1)[0].record(), kind::BET_ACK, b"OK");
    assert_eq!(std::fs::read(setup.path("other.csv")).unwrap(), rows(&bets(1, 0..1)));
    let file = setup.path("config.ini").display().to_string();
    assert_eq!(server.log().value("config", "config_file"), Some(file));
}

#[test]
fn the_originals_file_is_accepted_and_its_host_name_means_all_addresses() {
    let file = "[DEFAULT]\nSERVER_PORT = 12345\nSERVER_IP = server\nSERVER_LISTEN_BACKLOG = 5\nLOGGING_LEVEL = INFO\n";
    let setup = Setup::new().without("SERVER_IP").without("LOGGING_LEVEL").write("config.ini", file);
    let server = setup.start();
    let log = server.log();
    assert_eq!(log.value("config", "listen_backlog").as_deref(), Some("5"));
    let [warning] = log.lines_of("WARNING")[..] else { panic!("one warning: {}", log.0) };
    assert!(warning.contains("SERVER_IP") && warning.contains("server"), "{warning}");
    assert_eq!(log.value("listen", "ip").as_deref(), Some("0.0.0.0"), "a host name means all addresses");
    server.session(1);
    let [line] = log.lines_with("action: config")[..] else { panic!("one config line: {}", log.0) };
    let start =
        "INFO     action: config | result: success | port: 0 | listen_backlog: 5 | logging_level: INFO | ";
    assert!(line.starts_with(start), "{line}");
}

#[test]
fn the_shipped_file_is_accepted() {
    let file = include_str!("../../config.ini");
    let server = Setup::new().write("config.ini", file).start();
    assert_eq!(server.session(5).1.max_payload, 65_536);
}

#[test]
fn fewer_connections_than_agencies_are_a_warning() {
    for (max_clients, warnings) in [(3, 0), (2, 1)] {
        let setup = Setup::new().with("CLIENTS_AMOUNT", 3).with("MAX_CLIENTS", max_clients);
        let log = setup.start().log();
        let lines = log.lines_with("WARNING  action: max_clients | result: success | max_clients: ");
        assert_eq!(lines.len(), warnings, "{}", log.0);
        assert_eq!(log.lines_with("action: config").len(), 1);
    }
}

/// Runs a command in the setup's folder, which must refuse its configuration. Returns the log without the times.
#[track_caller]
fn refused(setup: &Setup, program: &str, variables: &[(&str, &str)]) -> String {
    let mut command = loteria(&[program]);
    let output = output(command.current_dir(setup.path(".")).envs(variables.iter().copied()));
    let log = Log(text(&output.stderr));
    assert_eq!(output.status.code(), Some(2), "{}", log.0);
    log.assert_well_formed();
    log.lines().fold(String::new(), |lines, line| lines + line + "\n")
}

#[test]
fn all_faults_are_reported_together_one_line_each() {
    let file = "SERVER_IP = 1.2.3.4\n[DEFAULT]\nSERVER_PROT = 12\nMAX_CLIENTS = 10 # ten\nCLIENT_TIMEOUT\n\
        clients_amount = 3\nCLIENTS_AMOUNT: 4\nPROTOCOL = classic\n[AGENCI]\nID = 1\n[AGENCY]\nMAX_PAYLOAD = 5\n\
        LOOP_PERIOD = soon\nCLI_ID = 1\n";
    let setup = Setup::new().write("config.ini", file);
    let of_both = "\
CRITICAL action: config | result: fail | origin: config.ini line 1 | error: \"SERVER_IP = 1.2.3.4\" is before the first [SECTION]
CRITICAL action: config | result: fail | key: SERVER_PROT | value: 12 | origin: config.ini line 3 | error: there is no such setting; the nearest name is SERVER_PORT
CRITICAL action: config | result: fail | origin: config.ini line 5 | error: \"CLIENT_TIMEOUT\" has no value: KEY = VALUE is needed
CRITICAL action: config | result: fail | key: CLIENTS_AMOUNT | value: 4 | origin: config.ini line 7 | error: line 6 sets this key already
CRITICAL action: config | result: fail | key: PROTOCOL | value: classic | origin: config.ini line 8 | error: this setting belongs to the section [AGENCY]
CRITICAL action: config | result: fail | origin: config.ini line 9 | error: there is no section [AGENCI]; the nearest name is [AGENCY]
CRITICAL action: config | result: fail | key: MAX_PAYLOAD | value: 5 | origin: config.ini line 12 | error: this setting belongs to the section [DEFAULT]
CRITICAL action: config | result: fail | key: CLI_ID | value: 1 | origin: config.ini line 14 | error: this is an environment variable; here it is ID, in the section [AGENCY]
";
    let of_server = "\
CRITICAL action: config | result: fail | key: SERVER_PORT | value: 99999 | origin: environment variable SERVER_PORT | allowed: a port from 0 to 65535
CRITICAL action: config | result: fail | key: MAX_CLIENTS | value: 10 # ten | origin: config.ini line 4 | allowed: a number from 1 to 1000000 | error: a comment must be on a line of its own
";
    let of_agency = "\
CRITICAL action: config | result: fail | key: CLI_ID | allowed: an agency's number from 1 to 65535 | error: not set
CRITICAL action: config | result: fail | key: CLI_LOOP_PERIOD | value: soon | origin: config.ini line 13 | allowed: a duration above 0 such as 5s, 200ms or 1m30s
";
    assert_eq!(refused(&setup, "server", &[("SERVER_PORT", "99999")]), format!("{of_both}{of_server}"));
    assert_eq!(refused(&setup, "agency", &[]), format!("{of_both}{of_agency}"));
    assert!(!setup.bets_path().exists());
}

#[test]
fn the_draw_has_the_local_time_of_tz_and_an_unknown_zone_is_refused() {
    for zone in ["America/Argentina/Buenos_Aires", "<-03>3"] {
        if zone.contains('/') && !Path::new("/usr/share/zoneinfo").join(zone).exists() {
            eprintln!("skipped for {zone}: this machine has no zone files");
            continue;
        }
        let server = Setup::of(1).with("TZ", zone).start();
        server.connect().classic_end(1);
        let state = server.setup().state();
        assert!(state["draw"]["at"].as_str().unwrap().ends_with("-03:00"), "{zone}: {state}");
    }
    let said = "CRITICAL action: config | result: fail | key: TZ | value: Nowhere/City | origin: environment variable TZ | \
                allowed: a zone that has a file in /usr/share/zoneinfo, such as America/Lima, or a rule such as <-05>5\n";
    let variables = [("TZ", "Nowhere/City"), ("CLI_ID", "1")];
    for program in ["server", "agency"] {
        assert_eq!(refused(&Setup::new(), program, &variables), said);
    }
}

#[test]
fn the_level_names_of_python_and_go_are_accepted() {
    for (name, level) in
        [("WARN", "WARNING"), ("warning", "WARNING"), ("notice", "WARNING"), ("debug", "DEBUG")]
    {
        let server = Setup::new().with("LOGGING_LEVEL", name).start_quietly();
        let lines = server.log().lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines.is_empty(), level == "WARNING", "{name}: {lines:?}");
    }
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
fn a_file_that_is_not_an_ini_file_is_refused() {
    for file in [&b"[DEFAULT\nSERVER_PORT = 1\n"[..], b"\xff\xfe"] {
        let ended = Setup::new().write("config.ini", file).run();
        assert!(only_line(&ended).contains("config.ini"));
    }
    let folder = Setup::new();
    std::fs::create_dir(folder.path("config.ini")).unwrap();
    assert!(only_line(&folder.run()).contains("config.ini"));
}

#[test]
fn a_file_that_never_ends_is_refused() {
    let setup = Setup::new().with_limit("v", 256 * 1024);
    symlink("/dev/zero", setup.path("config.ini")).unwrap();
    let ended = setup.run();
    assert_eq!(ended.code, Some(2));
    assert!(ended.failure().contains("can't read config.ini: file too large"), "{}", ended.log.0);
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
fn a_folder_that_cannot_be_written_ends_the_start_with_one_line() {
    let setup = Setup::new().write("file", "");
    for path in ["file/bets.csv", "missing/bets.csv", "/proc/bets.csv", "."] {
        let ended = setup.clone().with("STORAGE_FILEPATH", path).run();
        assert_eq!(ended.code, Some(1), "{path}");
        ended.log.assert_well_formed();
        let line = ended.failure();
        assert!(line.contains(path), "{line}");
    }
}

/// Runs `loteria server --check` in the setup's folder. Returns the exit code and both outputs.
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
    for setting in SERVER_SETTINGS.rows {
        assert_eq!(table.lines().filter(|line| line.starts_with(setting.key)).count(), 1, "{table}");
    }
    assert_eq!(table.lines().count(), SERVER_SETTINGS.rows.len(), "{table}");
    let row = |key: &str| {
        let line = table.lines().find(|line| line.starts_with(&format!("{key} "))).unwrap();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("CLIENTS_AMOUNT"), "7 config.ini line 2");
    assert_eq!(row("MAX_CLIENTS"), "20 environment variable MAX_CLIENTS");
    assert_eq!(row("CLIENT_TIMEOUT"), "0.5 environment variable CLIENT_TIMEOUT");
    assert_eq!(row("MAX_PAYLOAD"), "65536 default");
    assert!(row("SERVER_IP").starts_with("0.0.0.0 config.ini line 3; server is a host name"), "{table}");
    let files: Vec<_> =
        std::fs::read_dir(setup.path(".")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["config.ini"]);
}

#[test]
fn a_check_reports_faults_as_the_server_does() {
    let setup = Setup::new().with("MAX_CLIENTS", 0);
    let (code, table, line) = check(&setup, &[("MAX_CLIENTS", "0")]);
    assert_eq!((code, &*table), (Some(2), ""));
    let ended = setup.run();
    assert_eq!(line.get(20..), only_line(&ended).get(20..).map(|rest| format!("{rest}\n")).as_deref());
    let (code, _, lines) =
        check(&Setup::new().write("config.ini", "[DEFAULT]\nNO = 1\nMAX_CLIENTS = 0\n"), &[]);
    assert!(code == Some(2) && lines.contains("there is no such setting"), "{lines}");
    assert_eq!(lines.lines().count(), 2, "{lines}");
}

/// The rows of the first table of this section of the README, as cells without backquotes.
fn readme(section: &str) -> Vec<Vec<String>> {
    let (_, text) = include_str!("../../README.md").split_once(section).unwrap();
    let cells = |row: &str| row.split('|').skip(1).map(|cell| cell.trim().replace('`', "")).collect();
    let table = text.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    table.take_while(|line| line.starts_with('|')).map(cells).collect()
}

#[test]
fn the_readme_and_the_shipped_file_have_each_setting_with_its_default_and_range() {
    let (shipped_server, shipped_agency) = include_str!("../../config.ini").split_once("[AGENCY]").unwrap();
    for (settings, section, shipped) in [
        (&SERVER_SETTINGS, "\n### `loteria server`, section `[DEFAULT]`\n", shipped_server),
        (&AGENCY_SETTINGS, "\n### `loteria agency`, section `[AGENCY]`\n", shipped_agency),
    ] {
        let rows = readme(section);
        let in_readme: Vec<_> = rows.iter().map(|row| &*row[0]).collect();
        let keys: Vec<_> = settings.rows.iter().map(|setting| setting.key).collect();
        assert_eq!(in_readme, keys, "the keys in the README, and those of `config`");
        for (row, setting) in rows.iter().zip(settings.rows) {
            let (key, default) = (setting.key, setting.default);
            assert_eq!(row[1], if key == "ID" { "none: must be given" } else { default });
            if let Some((_, range)) = setting.allowed.split_once(" from ") {
                assert_eq!(row[2], range, "{key}");
            }
            assert_eq!(
                shipped.contains(&format!("\n{}\n", format!("{key} = {default}").trim_end())),
                key != "ID",
                "{key} in config.ini"
            );
        }
    }
}

//! The log in JSON, and the tables of log lines in `docs/operations.md`, compared with the sources.
//!
//! `common::log` also compares each line that the program writes in a test with the tables.
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::log::{ROWS, Row, check_line};
use common::{
    Client, Log, Running, Setup, bets, frame, free_port, kind, loteria, output, text, until, winner,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// A call in the sources that writes a log line. A part is none if it is not a literal in the call.
#[derive(Debug, Default)]
struct Call {
    file: PathBuf,
    action: Option<String>,
    level: Option<String>,
    result: Option<String>,
    /// The keys of the fields.
    fields: Option<BTreeSet<String>>,
}

impl Call {
    fn parse(file: &Path, name: &str, arguments: &str) -> Self {
        let after = |mark: &str| {
            let (_, rest) = arguments.split_once(mark)?;
            Some(rest.chars().take_while(char::is_ascii_alphabetic).collect::<String>())
        };
        let result = after("Outcome::").map(|name| match &*name {
            "InProgress" => "in_progress".to_owned(),
            other => other.to_lowercase(),
        });
        let level = if name == "info" { Some("INFO".to_owned()) } else { after("Level::") };
        let first_text = arguments.split('"').nth(1).filter(|_| {
            // The action is the first argument of `info`, the second of `event`.
            let before = arguments.split('"').next().unwrap_or("");
            before.matches(',').count() == usize::from(name == "event")
        });
        let fields = arguments.contains("&[").then(|| {
            let keys = arguments.split("(\"").skip(1);
            keys.filter_map(|rest| rest.split_once("\", ")).map(|(key, _)| key.to_owned()).collect()
        });
        Self {
            file: file.to_owned(),
            action: first_text.map(str::to_owned),
            level: level.map(|name| name.to_uppercase()),
            result,
            fields,
        }
    }

    fn fits(&self, row: &Row) -> bool {
        let known = |what: &Option<String>, allowed: &BTreeSet<String>| {
            what.as_ref().is_none_or(|what| allowed.contains(what))
        };
        self.action.as_ref().is_none_or(|action| *action == row.action)
            && known(&self.level, &row.levels)
            && known(&self.result, &row.results)
            && self.fields.as_ref().is_none_or(|fields| {
                if row.has_all_fields { *fields == row.fields } else { fields.is_subset(&row.fields) }
            })
    }
}

/// The sources that write log lines, each without its tests.
fn sources() -> Vec<(PathBuf, String)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("simulated_disk") {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let program = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
                sources.push((path, program));
            }
        }
    }
    sources
}

/// The arguments of each call of this function in a text.
fn arguments_of<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let calls = text.match_indices(name).filter(move |(at, _)| {
        let before = &text[..*at];
        let is_whole = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.');
        is_whole && !before.ends_with("fn ") && text[*at + name.len()..].starts_with('(')
    });
    calls.map(move |(at, _)| {
        let arguments = &text[at + name.len() + 1..];
        let mut depth = 1;
        let end = arguments.find(|c: char| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth == 0
        });
        &arguments[..end.unwrap()]
    })
}

fn calls(sources: &[(PathBuf, String)]) -> Vec<Call> {
    let mut calls = Vec::new();
    for (path, text) in sources {
        for name in ["event", "info"] {
            calls.extend(arguments_of(text, name).map(|arguments| Call::parse(path, name, arguments)));
        }
    }
    calls
}

#[test]
fn every_line_that_the_sources_write_is_documented() {
    let calls = calls(&sources());
    assert!(calls.len() > 40, "{} calls: are they still found?", calls.len());
    let in_words = calls.iter().filter(|call| call.action.is_some() && call.level.is_some());
    assert!(in_words.clone().count() > 30, "{} calls have literals", in_words.count());
    for call in &calls {
        assert!(ROWS.iter().any(|row| call.fits(row)), "docs/operations.md has no row for {call:?}");
    }
}

#[test]
fn every_documented_line_is_written_by_the_sources() {
    let sources = sources();
    let calls = calls(&sources);
    for row in ROWS.iter() {
        let quoted = format!("\"{}\"", row.action);
        let files: Vec<_> = sources.iter().filter(|(_, text)| text.contains(&quoted)).collect();
        let written = calls.iter().any(|call| {
            call.fits(row) && (call.action.is_some() || files.iter().any(|(path, _)| *path == call.file))
        });
        assert!(written, "no call in the sources writes {row:?}");
        for field in &row.fields {
            let [key, tag] = ["", "tag_lines"].map(|call| format!("{call}(\"{field}\", "));
            assert!(
                files.iter().any(|(_, text)| text.contains(&key))
                    || sources.iter().any(|(_, text)| text.contains(&tag)),
                "nobody writes the field {field} of {row:?}"
            );
        }
    }
}

/// The handler that has written the last line of this action.
fn pid_of(log: &Log, action: &str) -> String {
    let lines = log.lines_with(&format!("action: {action} | "));
    let (_, pid) =
        lines.last().unwrap_or_else(|| panic!("{action} in {}", log.0)).rsplit_once(" | pid: ").unwrap();
    pid.to_owned()
}

#[test]
fn the_lines_of_one_connection_have_its_handlers_pid_and_those_of_a_session_its_agency() {
    let server = Setup::of(2).start();
    let (mut session, _) = server.session(2);
    let handler = server.handlers()[0];
    session.store(0, &bets(2, 0..1));
    session.end_agency();
    session.send(&frame(kind::BET, b""));
    session.expect_error();
    server.wait_for_handlers(0);
    server.connect().classic(kind::MULTIPLE_BETS, &bets(1, 0..1)[0].record(), kind::BET_ACK, b"OK");
    let log = server.log();
    let of_session: Vec<&str> = log.lines_with(&format!(" | pid: {handler}"));
    let actions = ["accept_connections", "session_opened", "apuesta_recibida", "end_message", "protocol"];
    for (line, action) in of_session.iter().zip(actions.into_iter().chain(["session_closed"])) {
        assert!(line.contains(&format!(" action: {action} | ")), "{of_session:#?}");
        assert!(action == "accept_connections" || line.contains(" | agency_id: 2 | "), "{line}");
    }
    assert_eq!(of_session.len(), actions.len() + 1, "{of_session:#?}");
    let classic = pid_of(&log, "accept_connections");
    assert_eq!(classic, pid_of(&log, "apuesta_recibida"));
    assert_ne!(classic, handler.to_string());
    assert_eq!(log.lines_with(" | pid: ").len(), of_session.len() + 2, "{}", log.0);
}

/// The first is what logrotate's `copytruncate` does.
#[test]
fn a_log_that_is_appended_to_can_be_cut_and_one_that_is_moved_is_written_on() {
    let folder = tempfile::tempdir().unwrap();
    let [path, moved] = ["server.log", "server.log.1"].map(|name| folder.path().join(name));
    let port = free_port();
    let mut command = loteria(&["server"]);
    command.current_dir(folder.path()).env("SERVER_PORT", port.to_string());
    command.stderr(fs::File::options().create(true).append(true).open(&path).unwrap());
    let mut server = Running::start(&mut command);
    let log = |path: &Path| Log(fs::read_to_string(path).unwrap());
    until("it listens", || log(&path).value("listen", "port").is_some());
    fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    Client::connect(port).classic_end(1);
    let cut = log(&path);
    cut.assert_well_formed();
    let actions = ["accept_connections", "end_message"];
    assert!(cut.lines().count() == 2 && actions.iter().all(|action| cut.0.contains(action)), "{}", cut.0);
    common::tls::move_file(&path, &moved);
    Client::connect(port).classic_end(2);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end().code(), Some(0));
    assert!(!path.exists());
    let moved = log(&moved);
    moved.assert_well_formed();
    assert_eq!(moved.lines().count(), 5, "{}", moved.0);
    assert!(moved.lines().last().unwrap().contains("action: shutdown | result: success"), "{}", moved.0);
}

/// The lines of a log as JSON objects.
fn objects(log: &Log) -> Vec<Value> {
    log.assert_well_formed();
    log.0.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn find<'a>(objects: &'a [Value], action: &str) -> &'a Value {
    objects
        .iter()
        .find(|object| object["action"] == action)
        .unwrap_or_else(|| panic!("no {action} in {objects:?}"))
}

#[test]
fn a_server_writes_its_log_in_json_from_the_first_to_the_last_line() {
    let port = free_port();
    let setup = Setup::new().with("LOG_FORMAT", "json").with("SERVER_PORT", port).with("CLIENTS_AMOUNT", 1);
    let mut server = setup.spawn();
    until("it listens", || Client::try_connect(port).is_ok());
    let nasty = "a|\"b\"\\ \u{2028}ñ";
    Client::connect(port).classic(kind::BET, &winner(1, nasty).record(), kind::BET_ACK, b"OK");
    let mut other = bets(1, 0..1)[0].record();
    other[0] = b'9';
    let refusal = b"no such agency: the agencies are 1 to 1; others need another CLIENTS_AMOUNT, or after the draw a new \
                    contest";
    Client::connect(port).classic(kind::BET, &other, kind::ERROR, refusal);
    Client::connect(port).send(&frame(kind::END, &[1]));
    until("the draw", || server.log().0.contains("sorteo"));
    server.stop(Signal::SIGTERM);
    let objects = objects(&server.log());
    assert_eq!(objects.first().unwrap()["action"], "config");
    assert_eq!(find(&objects, "config")["port"], port.to_string());
    let stored = find(&objects, "apuesta_almacenada");
    assert_eq!(
        (&stored["dni"], &stored["numero"], &stored["level"]),
        (&nasty.into(), &"7574".into(), &"INFO".into())
    );
    let draw = find(&objects, "sorteo");
    assert_eq!((&draw["bets"], &draw["winners"]), (&"1".into(), &"1".into()));
    assert_eq!(objects.last().unwrap()["action"], "shutdown");
}

/// Runs the program with this configuration file and these variables. Returns its exit code and its log.
fn run(command: &str, file: &str, variables: &[(&str, &str)]) -> (Option<i32>, Log) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.ini"), file).unwrap();
    let mut command = loteria(&[command]);
    let output = output(command.current_dir(folder.path()).envs(variables.iter().copied()));
    (output.status.code(), Log(text(&output.stderr)))
}

#[test]
fn a_configuration_error_has_the_log_format_of_the_environment_or_the_file() {
    for command in ["server", "agency"] {
        let json = "LOG_FORMAT = json\n";
        for (file, variables) in [
            ("[DEFAULT]\nNO = 1\n".to_owned(), &[("LOG_FORMAT", "json"), ("CLI_ID", "1")][..]),
            (format!("[DEFAULT]\nNO = 1\n{json}[AGENCY]\n{json}"), &[("CLI_ID", "1")]),
        ] {
            let (code, log) = run(command, &file, variables);
            let objects = objects(&log);
            assert_eq!((code, objects.len(), &objects[0]["key"]), (Some(2), 1, &"NO".into()));
            assert_eq!(objects[0]["level"], "CRITICAL");
        }
        let (code, log) = run(command, "", &[("LOG_FORMAT", "xml"), ("CLI_ID", "1")]);
        let line = log.lines().next().unwrap();
        assert!(
            code == Some(2) && line.contains("key: LOG_FORMAT | value: xml | origin: environment"),
            "{line}"
        );
        assert!(line.ends_with("allowed: text or json"), "{line}");
    }
}

#[test]
fn an_agency_takes_its_log_format_from_the_environment_or_the_file() {
    for (file, variables) in [
        ("", &[("CLI_ID", "1"), ("LOG_FORMAT", "JSON")][..]),
        ("[AGENCY]\nLOG_FORMAT = json\n", &[("CLI_ID", "1")]),
    ] {
        let (code, log) = run("agency", file, variables);
        let objects = objects(&log);
        assert_eq!(code, Some(1));
        let config = find(&objects, "config");
        assert_eq!(
            (&config["id"], &config["loop_period"], &config["log_level"]),
            (&"1".into(), &"5s".into(), &"INFO".into())
        );
        assert!(config["config_file"].as_str().unwrap().ends_with("/config.ini"), "{config}");
        assert!(find(&objects, "agency")["error"].as_str().unwrap().contains("agency-1.csv"));
    }
    let text = run("agency", "[AGENCY]\nLOG_FORMAT = json\n", &[("CLI_ID", "1"), ("LOG_FORMAT", "text")]).1;
    text.assert_well_formed();
    assert!(text.0.contains("action: agency | result: fail"), "{}", text.0);
}

#[test]
fn the_log_grammar_accepts_good_lines_and_no_others() {
    let time = "2024-02-29 23:59:59";
    for good in [
        "INFO     action: sorteo | result: success",
        "CRITICAL action: x | result: fail | error: a: b \\x7c c",
        "DEBUG    action: x | result: in_progress | dni:  | numero: 7",
    ] {
        assert_eq!(check_line(&format!("{time} {good}")), Ok(()), "{good}");
    }
    for bad in [
        "INFO    action: sorteo | result: success",
        "INFO     sorteo | result: success",
        "INFO     action: sorteo",
        "INFO     action: sorteo | result: ok",
        "INFO     action: a | result: fail | text",
        "INFO     action: a | result: fail | k: a|b: c",
        "INFO     action: a | result: fail | action: b",
        "INFO     action: a | result: fail | k: \u{1b}[31m",
        "INFO     action: a | result: fail | k: v\r",
    ] {
        assert!(check_line(&format!("{time} {bad}")).is_err(), "{bad}");
    }
    assert!(check_line("[2024-02-29T23:59:59Z INFO loteria] action: a | result: fail").is_err());
}

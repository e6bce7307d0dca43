//! The commands for people: help, sample files, completions, manual pages, and the status of a fake server.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::thread::scope;
use std::time::{Duration, Instant};

use common::program::PROGRAM;
use common::{frame, output, text};

/// A status without the keys that were added later, and with a key that is not known yet.
const STATUS: &str = r#"{"news":[1],"agencies":2,"ended":1,"bets":30,"drawn":false,"draw":null,"handlers":1,"max_clients":9,"uptime_seconds":1.5,"storage_restarts":0,"confinement":{"identity":"full","limits":"full","landlock":"full","seccomp":"full"},"per_agency":[{"agency":1,"bets":10,"ended":true},{"agency":2,"bets":20,"ended":false}]}"#;

const COMMANDS: [&str; 13] = [
    "server",
    "agency",
    "demo",
    "sample",
    "status",
    "metrics",
    "bet",
    "winners",
    "check",
    "certs",
    "completions",
    "man",
    "compose",
];

fn loteria(arguments: &[&str]) -> Output {
    output(&mut common::loteria(arguments))
}

/// Runs `loteria status` against a server that gives this answer.
fn status(answer: &[u8], more: &[&str]) -> Output {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = [0; 5];
            stream.read_exact(&mut question).unwrap();
            assert_eq!(question, [0x0E, 0, 0, 0, 0]);
            stream.write_all(answer).unwrap();
            // Keep the connection open until the client closes it.
            stream.read_to_end(&mut Vec::new()).ok();
        });
        loteria(&[&["status", "--address", &address], more].concat())
    })
}

#[test]
fn without_a_command_the_program_prints_its_help() {
    let output = loteria(&[]);
    assert_eq!(output.status.code(), Some(2));
    for command in COMMANDS {
        assert!(text(&output.stderr).contains(command));
        assert_eq!(loteria(&[command, "--help"]).status.code(), Some(0));
    }
    assert!(text(&loteria(&["agency", "--help"]).stdout).contains("BATCH_MAXAMOUNT"));
    assert!(text(&loteria(&["server", "--help"]).stdout).contains("LOTTERY_WINNER_NUMBER"));
    assert!(text(&loteria(&["--version"]).stdout).starts_with("loteria "));
    assert_eq!(loteria(&["sample", "--bets"]).status.code(), Some(2));
    let too_many = loteria(&["sample", "--agencies", "2", "--bets", "1,2,3"]);
    assert_eq!(too_many.status.code(), Some(2), "{}", text(&too_many.stderr));
}

#[test]
fn the_test_data_is_what_sample_writes() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("new");
    let output = loteria(&[
        "sample",
        "--agencies",
        "5",
        "--bets",
        "9000,6000,3500,1500,0",
        "--dir",
        dir.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    for agency in 1..=5 {
        let name = format!("agency-{agency}.csv");
        assert!(fs::read(dir.join(&name)).unwrap() == fs::read(data.join(&name)).unwrap(), "{name}");
    }
}

#[test]
fn the_committed_compose_file_is_that_of_five_agencies() {
    let output = loteria(&["compose", "--agencies", "5"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker-compose.yaml");
    assert_eq!(text(&output.stdout), fs::read_to_string(committed).unwrap());
}

#[test]
fn a_compose_file_with_certificates_mounts_each_folder_where_its_program_looks() {
    let output = loteria(&["compose", "--agencies", "2", "--certs", "certs"]);
    let file = text(&output.stdout);
    for (folder, count) in [("server", 1), ("agency-1", 1), ("agency-2", 1), ("operator", 1)] {
        let mount = format!("- {{ <<: *file, source: \"./certs/{folder}\", target: /certs }}\n");
        assert_eq!(file.matches(&mount).count(), count, "{file}");
    }
    assert!(
        file.contains("\n      TLS_DIR: /certs\n") && file.contains("\n  CLI_TLS_DIR: /certs\n"),
        "{file}"
    );
    let (_, metrics) = file.split_once("\n  metrics:\n").unwrap();
    assert!(metrics.contains("\n      CLI_TLS_DIR: /certs\n    volumes:\n"), "{file}");
    assert!(!file.contains("CERTIFICATE") && !file.contains("OPERATOR_VOLUME"), "{file}");
}

#[test]
fn a_compose_file_may_have_no_agency_and_the_originals_container_names() {
    let compose = |arguments: &[&str]| {
        let output = loteria(&[&["compose", "--agencies"], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let server_alone = compose(&["0"]);
    assert!(server_alone.contains("\n  server:\n") && !server_alone.contains("client1:"), "{server_alone}");
    assert!(!server_alone.contains("CLIENTS_AMOUNT"), "config.ini says how many take part: {server_alone}");
    let names = |text: &str| {
        let names = text.lines().filter_map(|line| line.strip_prefix("    container_name: "));
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(names(&compose(&["2"])).is_empty());
    assert_eq!(names(&compose(&["2", "--container-names"])), ["server", "client1", "client2"]);
    assert_eq!(names(&compose(&["0", "--container-names"])), ["server"]);
}

#[test]
fn nothing_that_a_server_sends_reaches_a_terminal_unescaped() {
    let draw = |text: &str| {
        let draw = format!(r#""drawn":true,"draw":{{"at":"{text}","agencies":2,"winning_number":7574}}"#);
        let more = format!(r#""refusals":[{{"by":"{text}","reason":"{text}","count":1}}],"#);
        let status = STATUS.replacen(r#""drawn":false,"draw":null"#, &draw, 1);
        status.replacen(r#""per_agency""#, &format!(r#"{more}"per_agency""#), 1)
    };
    let escape = "\\u001b[31m\\u009b2J\\u007f\\r\\\"";
    let is_clean = |bytes: &[u8]| !text(bytes).contains(|c: char| c.is_control() && c != '\n');
    for flags in [&[][..], &["--json"], &["--prometheus"]] {
        for (answer, code) in [
            (frame(0x0F, draw(escape).as_bytes()), 0),
            (frame(0x0F, draw("\u{9b}2J\u{7f}").as_bytes()), 0),
            (frame(0x0F, draw("\x1b[31m").as_bytes()), 1),
            (frame(0x0F, STATUS.replace("\"full\"", &format!("\"{escape}\"")).as_bytes()), 1),
            (frame(0x03, b"\x1b[31mno\r\xc2\x9b2J"), 1),
        ] {
            let output = status(&answer, flags);
            assert!(is_clean(&output.stdout) && is_clean(&output.stderr), "{flags:?} {output:?}");
            assert_eq!(output.status.code(), Some(code), "{flags:?} {output:?}");
        }
    }
    let metrics = status(&frame(0x0F, draw(escape).as_bytes()), &["--prometheus"]).stdout;
    let label = r#"loteria_refusals_total{by="\\x1b[31m\\x9b2J\\x7f\\x0d\"",reason="#;
    assert!(text(&metrics).contains(label), "a label can't break its line: {}", text(&metrics));
}

#[test]
fn a_status_is_a_table_or_the_servers_json() {
    let output = status(&frame(0x0F, STATUS.as_bytes()), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let table = "agencies ended    1 of 2\nbets stored       30\ndraw              not made\n\
                 connections       0 of 9\nuptime            1.5 s\nstorage restarts  0\n\
                 confinement       identity full, limits full, landlock full, seccomp full\n\n\
                 agency         bets  ended\n     1           10  yes\n     2           20  no\n";
    assert_eq!(text(&output.stdout), table);
    let output = status(&frame(0x0F, STATUS.as_bytes()), &["--json"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), format!("{STATUS}\n")));
}

#[test]
fn a_status_can_be_printed_for_prometheus_and_only_in_one_format() {
    let output = status(&frame(0x0F, STATUS.as_bytes()), &["--prometheus"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for part in [
        "# HELP loteria_up Whether the server answers: 1 or 0.\n# TYPE loteria_up gauge\nloteria_up 1\n",
        "\n# TYPE loteria_bets_stored_total counter\nloteria_bets_stored_total 30\n",
        "\n# TYPE loteria_group_bets summary\nloteria_group_bets_sum 0\nloteria_group_bets_count 0\n",
    ] {
        assert!(text(&output.stdout).contains(part), "{part}\n{}", text(&output.stdout));
    }
    for both in [["--json", "--prometheus"], ["--json", "--watch"], ["--prometheus", "--watch"]] {
        assert_eq!(loteria(&[&["status"], &both[..]].concat()).status.code(), Some(2), "{both:?}");
    }
}

#[test]
fn no_status_is_exit_code_1() {
    let refused = status(&frame(0x03, b"no"), &[]);
    assert_eq!(refused.status.code(), Some(1));
    let error = text(&refused.stderr);
    assert!(
        error.starts_with("loteria: 127.0.0.1:") && error.ends_with(": the server refused: no\n"),
        "{error}"
    );
    let other = status(b"HTTP/1.1 400", &[]);
    assert_eq!(other.status.code(), Some(1));
    assert!(text(&other.stderr).contains("this is not a lottery server"), "{}", text(&other.stderr));
    assert_eq!(status(&frame(0x0F, b"{}"), &[]).status.code(), Some(1));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(loteria(&["status", "--address", &format!("127.0.0.1:{port}")]).status.code(), Some(1));
}

#[test]
fn an_invalid_address_is_a_wrong_command_line() {
    for address in ["here", "here:99999", ":12345", "here:"] {
        for more in [&[][..], &["--json"], &["--watch"]] {
            let output = loteria(&[&["status", "--address", address], more].concat());
            assert_eq!(output.status.code(), Some(2), "{address}");
            assert!(text(&output.stderr).contains("HOST:PORT"), "{}", text(&output.stderr));
        }
    }
}

#[test]
fn a_silent_server_fails_the_status_after_two_seconds() {
    let begun = Instant::now();
    let output = status(&frame(0x0F, STATUS.as_bytes())[..20], &[]);
    assert_eq!(output.status.code(), Some(1));
    let taken = begun.elapsed();
    assert!(taken >= Duration::from_secs(2) && taken < Duration::from_secs(3), "{taken:?}");
}

#[test]
fn every_shell_gets_completions_of_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = loteria(&["completions", shell]);
        assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
        let script = text(&output.stdout);
        for word in COMMANDS.iter().chain(&["--birthdate", "--csv"]) {
            // Each shell writes flags in its own way.
            assert!(script.contains(word.trim_start_matches('-')), "{shell}: {word}");
        }
    }
    assert_eq!(loteria(&["completions", "tcsh"]).status.code(), Some(2));
}

#[test]
fn bash_completes_with_the_script() {
    let script = r#"source <("$0" completions bash) && COMP_WORDS=(loteria win) && COMP_CWORD=1 &&
        _loteria loteria win loteria && echo "${COMPREPLY[@]}""#;
    let output = output(Command::new("bash").args(["-c", script, &PROGRAM]));
    assert_eq!(text(&output.stdout), "winners\n", "{}", text(&output.stderr));
}

#[test]
fn every_command_has_a_page_of_the_manual() {
    let page = text(&loteria(&["man"]).stdout);
    assert_eq!(page.matches("(1)\n").count(), COMMANDS.len() + 1, "these commands and `help`: {page}");
    for command in COMMANDS {
        assert!(page.contains(&format!("loteria\\-{command}(1)")), "{command} in {page}");
        let output = loteria(&["man", command]);
        assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
        assert!(text(&output.stdout).contains(&format!(".TH loteria-{command} 1")), "{command}");
    }
    let server = text(&loteria(&["man", "server"]).stdout);
    let setting = ".TP\n\\fBSTORAGE_FILEPATH\\fR\nthe file of all bets";
    assert!(server.contains(setting) && server.contains("\\-\\-check"), "{server}");
    assert!(server.contains(".PP\nExit code 0: ") && server.contains("\"loteria 0."), "{server}");
    let completions = text(&loteria(&["man", "completions"]).stdout);
    assert!(completions.contains(".EX\n  source <(loteria completions bash)\n.EE\n"), "{completions}");
    assert_eq!(loteria(&["man", "nonsense"]).status.code(), Some(2));
}

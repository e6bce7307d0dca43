//! The metrics: what a scrape over HTTP tells, that nobody can be in its way, and that it is in nobody's.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::control_socket::{have_said, words_that_fit};
use common::usage::assert_idle;
use common::{
    PATIENCE, PAUSE, Running, RunningServer, Setup, bets, frame, kind, loteria, output, processes, records,
    text, until, winner,
};
use nix::sys::signal::Signal;

fn setup() -> Setup {
    Setup::new().with("METRICS_ADDRESS", "127.0.0.1:0")
}

fn port_of(server: &RunningServer) -> u16 {
    server.log().value("metrics_listen", "port").unwrap().parse().unwrap()
}

fn connect(server: &RunningServer) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port_of(server))).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What comes until the end. A connection that is reset brings nothing more.
fn answer(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8(bytes).unwrap(),
    }
}

fn request(server: &RunningServer, bytes: &[u8]) -> String {
    let mut stream = connect(server);
    stream.write_all(bytes).unwrap();
    answer(stream)
}

const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n";

/// The text of a scrape, which must be a whole answer.
fn scrape(server: &RunningServer) -> String {
    let response = request(server, GET);
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{response:?}"));
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    body.to_owned()
}

/// The samples of a text, by name and labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// One sample of a scrape.
fn value(server: &RunningServer, name: &str) -> f64 {
    let text = scrape(server);
    *samples(&text).get(name).unwrap_or_else(|| panic!("no {name} in {text}"))
}

#[track_caller]
fn assert_value(server: &RunningServer, name: &str, expected: u32) {
    let got = value(server, name);
    assert!((got - f64::from(expected)).abs() < f64::EPSILON, "{name} is {got}, not {expected}");
}

fn refusals(by: &str, reason: &str) -> String {
    format!("loteria_refusals_total{{by=\"{by}\",reason=\"{reason}\"}}")
}

/// The metrics process: the child that is neither storage nor a handler, while no client is there.
fn metrics_process(server: &RunningServer) -> i32 {
    let mut found = Vec::new();
    until("one process besides storage", || {
        found = server.handlers();
        found.len() == 1
    });
    found[0]
}

fn check_with_promtool(text: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut promtool = match Running::try_start(&mut command) {
        Ok(promtool) => promtool,
        Err(error) => return eprintln!("skipped: promtool: {error}"),
    };
    promtool.stdin().write_all(text.as_bytes()).unwrap();
    let mut said = String::new();
    promtool.stdout().read_to_string(&mut said).unwrap();
    assert!(promtool.end().success() && said.is_empty(), "{said}\n{text}");
}

#[test]
fn a_scrape_tells_what_happened() {
    let server = setup().with("CLIENTS_AMOUNT", 2).with("MAX_CLIENTS", 50).start();
    let before = samples(&scrape(&server));
    assert!(
        before.iter().all(|(name, value)| *value == 0.0
            || matches!(
                name.as_str(),
                "loteria_agencies" | "loteria_handlers_limit" | "loteria_uptime_seconds"
            )),
        "{before:?}"
    );
    let (mut session, _) = server.session(1);
    session.store(0, &bets(1, 0..7));
    session.store(7, &bets(1, 7..10));
    server.connect().classic(kind::BET, &records(&[winner(2, "1")]), kind::BET_ACK, b"OK");
    server.wait_for_handlers(2);
    for (name, expected) in [
        ("loteria_bets_stored_total", 11),
        ("loteria_batches_stored_total", 3),
        ("loteria_connections_accepted_total", 2),
        ("loteria_handlers", 1),
        ("loteria_handlers_limit", 50),
        ("loteria_agencies", 2),
        ("loteria_agencies_ended", 0),
        ("loteria_draw_made", 0),
        ("loteria_storage_restarts_total", 0),
        ("loteria_group_bets_bucket{le=\"1\"}", 1),
        ("loteria_group_bets_bucket{le=\"10\"}", 3),
        ("loteria_group_bets_bucket{le=\"+Inf\"}", 3),
        ("loteria_group_bets_sum", 11),
        ("loteria_group_bets_count", 3),
        ("loteria_sync_duration_seconds_count", 3),
        ("loteria_sync_duration_seconds_bucket{le=\"+Inf\"}", 3),
    ] {
        assert_value(&server, name, expected);
    }
    assert!(value(&server, "loteria_sync_duration_seconds_sum") > 0.0);
    session.end_agency();
    server.session(2).0.end_agency();
    assert_value(&server, "loteria_agencies_ended", 2);
    assert_value(&server, "loteria_draw_made", 1);
}

#[test]
fn each_refusal_counts_under_who_refused_and_why() {
    let server = setup().with("CLIENTS_AMOUNT", 2).start();
    let (mut session, _) = server.session(1);
    session.send_bets(5, &bets(1, 5..6));
    session.expect_error();
    session.send_bets(0, &bets(2, 0..1));
    session.expect_error();
    session.end_agency();
    session.send_bets(0, &bets(1, 0..1));
    session.expect_error();
    server.connect().refused(kind::BET, b"no record");
    server.connect().refused(kind::MULTIPLE_BETS, b"");
    server.connect().refused(0x77, b"");
    server.connect().refused(kind::RESULT_REQUEST, &[9]);
    server.connect().classic_end(9);
    for (by, reason, count) in [
        ("acceptor", "busy", 0),
        ("handler", "protocol", 1),
        ("handler", "bets", 3),
        ("handler", "agency", 2),
        ("storage", "gap", 1),
        ("storage", "agency_ended", 1),
        ("storage", "malformed", 0),
    ] {
        assert_value(&server, &refusals(by, reason), count);
    }
}

#[test]
fn the_rules_of_prometheus_are_kept() {
    let server = setup().with("CLIENTS_AMOUNT", 1).start();
    let (mut session, _) = server.session(1);
    session.store(0, &bets(1, 0..2000));
    check_with_promtool(&scrape(&server));
    let asked = output(&mut loteria(&["status", "--prometheus", "--address", &server.address()]));
    assert_eq!(asked.status.code(), Some(0));
    let text = text(&asked.stdout);
    check_with_promtool(&text);
    let names = |text: &str| samples(text).into_keys().collect::<Vec<_>>();
    assert_eq!(names(&text), names(&scrape(&server)));
}

#[test]
fn without_an_address_there_are_none() {
    let server = Setup::new().start();
    assert_eq!(server.log().value("metrics_listen", "port"), None);
    assert!(server.handlers().is_empty());
    drop(server);
    let server = Setup::new().with("METRICS_ADDRESS", "").start();
    assert!(server.handlers().is_empty());
}

#[test]
fn an_address_that_is_taken_or_none_ends_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = Setup::new().with("METRICS_ADDRESS", &address).run();
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.failure().contains(&format!("can't listen on {address} (METRICS_ADDRESS): ")),
        "{}",
        ended.failure()
    );
    let ended = Setup::new().with("METRICS_ADDRESS", "9464").run();
    assert_eq!(ended.code, Some(2));
    assert!(ended.failure().contains("METRICS_ADDRESS"), "{}", ended.failure());
}

#[test]
fn what_is_no_request_for_the_metrics_is_refused() {
    let server = setup().start();
    let long = [b"GET /metrics HTTP/1.1\r\nHost: here\r\nX: ", &[b'a'; 9000][..], b"\r\n\r\n"].concat();
    for (bytes, status) in [
        (&b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"[..], "404 "),
        (b"POST /metrics HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\n\r\nabc", "405 "),
        (b"GET /metrics HTTP/1.1\r\n\r\n", "400 "),
        (b"\x16\x03\x01 not a request\r\n\r\n", "400 "),
        (&frame(kind::STATUS_REQUEST, b""), "400 "),
        (&long, "431 "),
    ] {
        let response = request(&server, bytes);
        assert!(response.starts_with(&format!("HTTP/1.1 {status}")), "{status} {response}");
    }
    let head = request(&server, b"HEAD /metrics HTTP/1.1\r\nHost: here\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    scrape(&server);
}

#[test]
fn a_request_that_comes_byte_by_byte_is_answered() {
    let server = setup().start();
    let mut stream = connect(&server);
    stream.set_nodelay(true).unwrap();
    for byte in GET {
        stream.write_all(&[*byte]).unwrap();
        // Each shall come by itself.
        std::thread::sleep(PAUSE);
    }
    assert!(answer(stream).starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn slow_and_silent_scrapers_hold_up_nobody() {
    let server = setup().start();
    let mut slow: Vec<TcpStream> = (0..100).map(|_| connect(&server)).collect();
    for stream in slow.iter_mut().step_by(2) {
        // It may have been dropped already: the last ones get the places.
        stream.write_all(b"GET /metrics HTTP/1.1\r\n").ok();
    }
    let begun = Instant::now();
    scrape(&server);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    server.session(1).0.store(0, &bets(1, 0..7));
    drop(slow);
    scrape(&server);
}

#[test]
fn who_does_not_finish_is_dropped() {
    let server = setup().start();
    let mut stream = connect(&server);
    stream.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    let begun = Instant::now();
    assert_eq!(answer(stream), "");
    assert!((4..9).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

#[test]
fn who_closes_early_leaves_nothing_behind() {
    let server = setup().start();
    let open = || std::fs::read_dir(format!("/proc/{}/fd", metrics_process(&server))).unwrap().count();
    scrape(&server);
    let before = open();
    for round in 0..200 {
        let mut stream = connect(&server);
        if round % 2 == 0 {
            stream.write_all(GET).unwrap();
        }
        if round % 3 == 0 {
            stream.shutdown(Shutdown::Write).unwrap();
        }
    }
    scrape(&server);
    until("all of them are closed", || open() <= before);
}

#[test]
fn its_process_is_confined_and_counts_as_no_client() {
    let server = setup().with("MAX_CLIENTS", 1).start();
    scrape(&server);
    let pid = metrics_process(&server);
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limit = |name: &str| limits.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    for (name, most) in [("Max open files", "32"), ("Max processes", "0"), ("Max core file size", "0")] {
        assert_eq!(limit(name)[name.len()..].split_whitespace().next(), Some(most), "{limits}");
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let told = common::status(server.port());
    assert_eq!(told["handlers"], 1, "only the one that asks");
    if told["confinement"]["seccomp"] == "full" {
        assert!(status.contains("Seccomp:\t2"), "{status}");
    }
    if told["confinement"]["identity"] == "full" {
        let mut uids = status.lines().filter(|line| line.starts_with("Uid:"));
        assert!(uids.next().unwrap().split('\t').nth(1).unwrap().parse::<u32>().unwrap() > 0x7e00_0000);
    }
    let (mut session, _) = server.session(1);
    session.store(0, &bets(1, 0..7));
    assert_value(&server, "loteria_handlers", 1);
}

#[test]
fn a_server_without_privileges_has_metrics_too() {
    let Some(setup) = setup().with_user_of_its_own() else { return };
    let server = setup.start();
    server.session(1).0.store(0, &bets(1, 0..7));
    assert_value(&server, "loteria_bets_stored_total", 7);
}

#[test]
fn a_metrics_process_that_is_killed_comes_back_and_nobody_else_notices() {
    let server = setup().start();
    scrape(&server);
    let (pid, storage) = (metrics_process(&server), server.storage());
    let (mut session, _) = server.session(1);
    processes::send(pid, Signal::SIGKILL);
    session.store(0, &bets(1, 0..7));
    assert_value(&server, "loteria_bets_stored_total", 7);
    assert_eq!(server.storage(), storage);
    let killed = format!("metrics | result: fail | pid: {pid} | error: killed by SIGKILL");
    assert_eq!(server.log().lines_with(&killed).len(), 1);
    session.store(7, &bets(1, 7..8));
}

#[test]
fn a_metrics_process_of_whom_storage_cannot_be_told_now_comes_back_once_it_can() {
    let server = setup().start();
    scrape(&server);
    let (pid, storage) = (metrics_process(&server), server.storage());
    let fit = words_that_fit();
    let other = fit.is_multiple_of(2).then(|| server.session(1));
    server.wait_for_handlers(1 + usize::from(other.is_some()));
    processes::send(storage, Signal::SIGSTOP);
    // The last word that fits is that this process is gone, so there is no room for the word that there is another.
    drop(other);
    server.wait_for_handlers(1);
    have_said(&server, fit - 1);
    processes::send(pid, Signal::SIGKILL);
    until("it is gone", || !server.log().lines_of("WARNING").is_empty());
    // By then it has been tried.
    std::thread::sleep(Duration::from_millis(1100));
    assert_idle(&[server.pid()]);
    assert!(server.log().lines_of("ERROR").is_empty(), "{}", server.log().0);
    processes::send(storage, Signal::SIGCONT);
    scrape(&server);
}

#[test]
fn when_storage_dies_the_metrics_come_back_and_tell_so() {
    let server = setup().start();
    server.session(1).0.store(0, &bets(1, 0..7));
    assert_value(&server, "loteria_batches_stored_total", 1);
    let before = server.storage();
    processes::send(before, Signal::SIGKILL);
    until("there is another storage service", || server.storage() != before);
    assert_value(&server, "loteria_storage_restarts_total", 1);
    assert_value(&server, "loteria_bets_stored_total", 7);
    assert_value(&server, "loteria_batches_stored_total", 0);
    assert_value(&server, "loteria_group_bets_count", 0);
}

#[test]
fn while_storage_does_not_answer_a_scrape_is_refused() {
    let server = setup().start();
    scrape(&server);
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    let response = request(&server, GET);
    processes::send(storage, Signal::SIGCONT);
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    scrape(&server);
}

#[test]
fn the_server_ends_in_time_whatever_its_metrics_process_does() {
    for stopped in [false, true] {
        let mut server = setup().start();
        scrape(&server);
        let begun = connect(&server);
        if stopped {
            processes::send(metrics_process(&server), Signal::SIGSTOP);
        }
        let (status, time) = server.stop(Signal::SIGTERM);
        assert_eq!(status.code(), Some(0));
        assert!(time < Duration::from_secs(1), "{time:?}");
        assert!(server.processes().is_empty());
        drop(begun);
    }
}

//! `loteria metrics`: the content of a scrape, broken scrapers, and missing servers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use common::tls::tls_setup;
use common::{
    A_WHILE, Log, PATIENCE, Running, RunningServer, Setup, await_within, bets, frame, free_port, kind,
    loteria, output, processes, records, text, until, winner,
};

/// A running `loteria metrics`.
struct Metrics {
    process: Running,
    folder: TempDir,
}

impl Metrics {
    /// Starts it on a free port and waits until it listens.
    fn of(address: &str) -> Self {
        Self::with(address, &[])
    }

    fn with(address: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = loteria(&["metrics", "--listen", "127.0.0.1:0", "--address", address]);
        let process =
            Running::start(command.args(more).stderr(File::create(folder.path().join("log")).unwrap()));
        let metrics = Self { process, folder };
        until("it listens", || metrics.log().value("metrics_listen", "port").is_some());
        metrics
    }

    fn log(&self) -> Log {
        let path: PathBuf = self.folder.path().join("log");
        Log(std::fs::read_to_string(path).unwrap())
    }

    fn connect(&self) -> TcpStream {
        let port: u16 = self.log().value("metrics_listen", "port").unwrap().parse().unwrap();
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn request(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        answer(stream)
    }

    /// The text of a scrape, whose HTTP response must be complete.
    fn scrape(&self) -> String {
        let response = self.request(GET);
        let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{response:?}"));
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{head}");
        body.to_owned()
    }

    #[track_caller]
    fn assert_value(&self, name: &str, expected: u32) {
        let text = self.scrape();
        let got = *samples(&text).get(name).unwrap_or_else(|| panic!("no {name} in {text}"));
        assert!((got - f64::from(expected)).abs() < f64::EPSILON, "{name} is {got}, not {expected}");
    }
}

const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n";

/// Reads until the end of the connection, which may be a reset.
fn answer(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8(bytes).unwrap(),
    }
}

/// The samples of a scrape, by name and labels.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name, value.parse().unwrap()))
        .collect()
}

fn with_metrics(setup: &Setup) -> (RunningServer, Metrics) {
    let server = setup.start();
    let metrics = Metrics::of(&server.address());
    (server, metrics)
}

#[test]
fn it_asks_over_tls_with_the_operators_certificate() {
    let setup = tls_setup(1);
    let server = setup.start();
    let address = format!("localhost:{}", server.port());
    let operator = setup.path("certs/operator").display().to_string();
    Metrics::with(&address, &["--tls-dir", &operator]).assert_value("loteria_up", 1);
    let line = "action: authenticate | result: success | ip: 127.0.0.1 | agency_id: operator";
    assert!(!server.log().lines_with(line).is_empty());
    // A certificate that is no client's.
    let other = setup.path("certs/server").display().to_string();
    Metrics::with(&address, &["--tls-dir", &other]).assert_value("loteria_up", 0);
}

fn check_with_promtool(text: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = match Running::try_start(&mut command) {
        Ok(promtool) => promtool,
        Err(error) => return eprintln!("skipped: promtool: {error}"),
    };
    promtool.stdin().write_all(text.as_bytes()).unwrap();
    let mut said = String::new();
    promtool.stdout().read_to_string(&mut said).unwrap();
    promtool.stderr().read_to_string(&mut said).unwrap();
    assert!(promtool.end().success() && said.is_empty(), "{said}\n{text}");
}

#[test]
fn a_scrape_reports_what_happened() {
    let (server, metrics) = with_metrics(&Setup::of(2).with("MAX_CLIENTS", 50));
    let (mut session, _) = server.session(1);
    session.store(0, &bets(1, 0..7));
    session.store(7, &bets(1, 7..10));
    server.connect().classic(kind::BET, &records(&[winner(2, "1")]), kind::BET_ACK, b"OK");
    server.wait_for_handlers(1);
    let text = metrics.scrape();
    let samples = samples(&text);
    for (name, expected) in [
        ("loteria_up", 1),
        ("loteria_bets_stored_total", 11),
        ("loteria_batches_stored_total", 3),
        ("loteria_connections_accepted_total", 3),
        ("loteria_status_requests_total", 1),
        ("loteria_handlers", 2),
        ("loteria_handlers_limit", 50),
        ("loteria_agencies", 2),
        ("loteria_agencies_ended", 0),
        ("loteria_draw_made", 0),
        ("loteria_storage_restarts_total", 0),
        ("loteria_group_bets_sum", 11),
        ("loteria_group_bets_count", 3),
        ("loteria_sync_duration_seconds_count", 3),
        ("loteria_agency_bets{agency=\"1\"}", 10),
        ("loteria_agency_bets{agency=\"2\"}", 1),
        ("loteria_agency_ended{agency=\"1\"}", 0),
    ] {
        assert!((samples[name] - f64::from(expected)).abs() < f64::EPSILON, "{name}, not {expected}\n{text}");
    }
    assert!(samples["loteria_sync_duration_seconds_sum"] > 0.0);
    session.end_agency();
    metrics.assert_value("loteria_agency_ended{agency=\"1\"}", 1);
    server.session(2).0.end_agency();
    metrics.assert_value("loteria_agencies_ended", 2);
    metrics.assert_value("loteria_draw_made", 1);
}

#[test]
fn refusals_are_counted_by_process_and_reason() {
    let (server, metrics) = with_metrics(&Setup::of(2));
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
    let text = metrics.scrape();
    for line in [
        r#"loteria_refusals_total{by="acceptor",reason="busy"} 0"#,
        r#"loteria_refusals_total{by="handler",reason="protocol"} 1"#,
        r#"loteria_refusals_total{by="handler",reason="bets"} 3"#,
        r#"loteria_refusals_total{by="handler",reason="agency"} 2"#,
        r#"loteria_refusals_total{by="storage",reason="gap"} 1"#,
        r#"loteria_refusals_total{by="storage",reason="agency_ended"} 1"#,
        r#"loteria_refusals_total{by="storage",reason="malformed"} 0"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn promtool_accepts_the_metrics_and_status_prints_the_same() {
    let (server, metrics) = with_metrics(&Setup::of(1));
    server.session(1).0.store(0, &bets(1, 0..2000));
    let scraped = metrics.scrape();
    check_with_promtool(&scraped);
    let asked = output(&mut loteria(&["status", "--prometheus", "--address", &server.address()]));
    let asked = text(&asked.stdout);
    check_with_promtool(&asked);
    assert!(samples(&asked).keys().eq(samples(&scraped).keys()), "{asked}");
}

#[test]
fn a_scrape_with_the_largest_number_of_agencies_is_complete() {
    let (_server, metrics) = with_metrics(&Setup::of(65_535));
    let text = metrics.scrape();
    assert_eq!(text.lines().filter(|line| line.starts_with("loteria_agency_")).count(), 2 * 65_535);
}

#[test]
fn only_get_requests_for_the_metrics_are_answered() {
    let metrics = Metrics::of("127.0.0.1:1");
    let long = [b"GET /metrics HTTP/1.1\r\nHost: here\r\nX: ", &[b'a'; 9000][..], b"\r\n\r\n"].concat();
    for (bytes, status) in [
        (&b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"[..], "404 "),
        (b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\n\r\nabc", "404 "),
        (b"POST /metrics HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\n\r\nabc", "405 "),
        (b"DELETE /metrics HTTP/1.1\r\nHost: here\r\n\r\n", "405 "),
        (b"\x16\x03\x01 not a request\r\n\r\n", "400 "),
        (&long, "400 "),
        (b"GET /metrics?x=1 HTTP/1.1\r\nHost: here\r\n\r\n", "200 "),
    ] {
        let response = metrics.request(bytes);
        assert!(response.starts_with(&format!("HTTP/1.1 {status}")), "{status} {response}");
    }
    metrics.scrape();
}

#[test]
fn broken_scrapers_delay_nobody() {
    let (server, metrics) = with_metrics(&Setup::of(1));
    let mut bad: Vec<TcpStream> = (0..100).map(|_| metrics.connect()).collect();
    for (number, stream) in bad.iter_mut().enumerate() {
        match number % 4 {
            0 => stream.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap(),
            1 => stream.write_all(GET).unwrap(),
            2 => stream.write_all(&frame(kind::STATUS_REQUEST, b"")).unwrap(),
            _ => {}
        }
    }
    let begun = Instant::now();
    metrics.assert_value("loteria_up", 1);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    server.session(1).0.store(0, &bets(1, 0..7));
    drop(bad);
    metrics.assert_value("loteria_bets_stored_total", 7);
}

#[test]
fn silent_scrapers_that_take_all_places_are_closed_after_five_seconds() {
    let metrics = Metrics::of("127.0.0.1:1");
    let silent: Vec<TcpStream> = (0..200).map(|_| metrics.connect()).collect();
    let begun = Instant::now();
    metrics.assert_value("loteria_up", 0);
    assert!((3..9).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    drop(silent);
}

#[test]
fn the_connections_of_scrapers_that_leave_early_are_closed() {
    let (_server, metrics) = with_metrics(&Setup::of(1));
    let folder = format!("/proc/{}/fd", metrics.process.pid());
    let open = || std::fs::read_dir(&folder).unwrap().count();
    let idle = open();
    for round in 0..200 {
        let mut stream = metrics.connect();
        if round % 2 == 0 {
            stream.write_all(GET).unwrap();
        }
    }
    metrics.scrape();
    until("all of them are closed", || open() <= idle);
}

#[test]
fn a_crowd_of_scrapers_takes_one_connection_of_the_server() {
    let (server, metrics) = with_metrics(&Setup::of(1));
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    let mut crowd: Vec<TcpStream> = (0..50).map(|_| metrics.connect()).collect();
    for stream in &mut crowd {
        stream.write_all(GET).unwrap();
    }
    server.wait_for_handlers(1);
    std::thread::sleep(common::A_WHILE);
    assert_eq!(server.handlers().len(), 1);
    processes::send(storage, Signal::SIGCONT);
    for stream in crowd {
        assert!(answer(stream).contains("\nloteria_up 1\n"));
    }
    let asked = server.log().lines_with("action: status_request").len();
    assert!(
        asked <= 3,
        "asked {asked} times: the first scraper, those that came meanwhile, and perhaps a late one"
    );
}

#[test]
fn a_missing_server_is_down_and_comes_up_again() {
    let port = free_port();
    let metrics = Metrics::of(&format!("127.0.0.1:{port}"));
    for _ in 0..3 {
        let text = metrics.scrape();
        assert!(text.lines().filter(|line| !line.starts_with('#')).eq(["loteria_up 0"]), "{text}");
    }
    let mut server = server_of_port(port);
    metrics.assert_value("loteria_up", 1);
    let before = server.storage();
    processes::send(before, Signal::SIGKILL);
    until("there is another storage service", || server.storage() != before);
    metrics.assert_value("loteria_storage_restarts_total", 1);
    server.terminate();
    metrics.assert_value("loteria_up", 0);
    let log = metrics.log();
    log.assert_well_formed();
    assert_eq!(
        (log.lines_with("action: status | result: fail").len(), log.lines_of("WARNING").len()),
        (2, 2)
    );
    assert_eq!(log.lines_with("action: status | result: success").len(), 1);
}

fn server_of_port(port: u16) -> RunningServer {
    Setup::of(1).with("SERVER_PORT", port).start()
}

#[test]
fn a_server_that_does_not_answer_is_down_after_two_seconds() {
    let (server, metrics) = with_metrics(&Setup::of(1));
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    let begun = Instant::now();
    metrics.assert_value("loteria_up", 0);
    assert!((1900..3500).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    processes::send(storage, Signal::SIGCONT);
    metrics.assert_value("loteria_up", 1);
}

#[test]
fn sigterm_and_sigint_end_the_metrics_at_once() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (server, mut metrics) = with_metrics(&Setup::of(1));
        let storage = server.storage();
        processes::send(storage, Signal::SIGSTOP);
        let mut scraper = metrics.connect();
        scraper.write_all(GET).unwrap();
        let _silent = metrics.connect();
        server.wait_for_handlers(1);
        let begun = Instant::now();
        metrics.process.signal(signal);
        assert_eq!(metrics.process.end().code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        processes::send(storage, Signal::SIGCONT);
    }
}

#[test]
fn an_address_in_use_ends_the_start_and_an_invalid_one_is_a_wrong_command_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = output(&mut loteria(&["metrics", "--listen", &address]));
    let log = Log(text(&ended.stderr));
    log.assert_well_formed();
    let failure =
        format!("action: metrics | result: fail | listen: {address} | error: Address already in use");
    assert_eq!((ended.status.code(), log.lines_with(&failure).len()), (Some(1), 1), "{}", log.0);
    for address in ["9464", ":9464", "here:99999", "here:"] {
        let ended = output(&mut loteria(&["metrics", "--listen", address]));
        assert_eq!(ended.status.code(), Some(2), "{address}");
    }
}

#[test]
fn a_signal_ends_it_while_it_reads_a_configuration_that_nobody_writes() {
    for arguments in [&["metrics", "--listen", "127.0.0.1:0"][..], &["status", "--watch"]] {
        let folder = tempfile::tempdir().unwrap();
        mkfifo(&folder.path().join("config.ini"), Mode::S_IRWXU).unwrap();
        let mut process = Running::start(loteria(arguments).current_dir(folder.path()));
        until("the program has begun", || processes::is_loteria(process.pid()));
        std::thread::sleep(A_WHILE);
        processes::send(process.pid(), Signal::SIGTERM);
        let ended = await_within(Duration::from_secs(1), || process.try_wait());
        assert_eq!(ended.and_then(|status| status.code()), Some(0), "{arguments:?}");
    }
}

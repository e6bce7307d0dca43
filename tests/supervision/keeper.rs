//! The keeper, the process that has the server's private key: where the key is, and what happens when the keeper dies or stops.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;
use std::thread::{Builder, scope};
use std::time::{Duration, Instant};

use common::agencies::Agency;
use common::tls::{agency_folder, complete, connect, exchange, move_file, relay, tls_setup};
use common::{Client, RunningServer, Setup, await_some, bets, frame, kind, output, processes, text, until};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rustls::ClientConnection;

/// The status, asked with the certificate of agency 1, if the server answers over TLS.
fn status(server: &RunningServer) -> bool {
    let answer =
        exchange(server.port(), &agency_folder(&server.setup(), 1), &frame(kind::STATUS_REQUEST, b""));
    answer.is_ok_and(|bytes| bytes.first() == Some(&kind::STATUS))
}

/// Gives the server of this setup a certificate with an Ed25519 key, made by openssl. Returns three forms of the secret: the
/// seed, the half of its hash that a signer keeps, and the text of the key's file.
fn use_ed25519(setup: &Setup) -> [Vec<u8>; 3] {
    let script = "openssl genpkey -algorithm ed25519 -out server/tls.key
        openssl req -new -key server/tls.key -subj /CN=server -out server.csr
        printf 'subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth' > extensions
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -days 9 -out server/tls.crt -extfile extensions
        openssl pkey -in server/tls.key -outform DER | tail -c 32";
    let made = output(Command::new("sh").args(["-ec", script]).current_dir(setup.path("certs")));
    assert!(made.status.success(), "{}", text(&made.stderr));
    let seed = made.stdout;
    let expanded = ring::digest::digest(&ring::digest::SHA512, &seed);
    let prefix = expanded.as_ref()[32..].to_vec();
    let file = fs::read_to_string(setup.path("certs/server/tls.key")).unwrap();
    [seed, prefix, file.lines().nth(1).unwrap().as_bytes().to_vec()]
}

/// The processes that have one of the secrets in their memory.
fn processes_with(secrets: &[Vec<u8>], among: &[i32]) -> Vec<i32> {
    let has_one = |pid: &&i32| secrets.iter().any(|secret| processes::has_in_memory(**pid, secret));
    among.iter().filter(has_one).copied().collect()
}

#[test]
fn the_private_key_is_in_no_process_but_the_keeper() {
    let setup = tls_setup(2);
    let old_key = use_ed25519(&setup);
    let server = setup.start();
    let folder = agency_folder(&setup, 1);
    let mut session = Client::connect(relay(server.port(), &folder));
    session.open_session(1);
    session.store(0, &bets(1, 0..10));
    let _silent = server.connect();
    let waiting = Handshake::begin(&server, Step::Signed);
    fs::write(setup.path("agency-2.csv"), "Ana,P,1,1990-01-01,7\n").unwrap();
    let own = agency_folder(&setup, 2).display().to_string();
    let mut agency =
        Agency::start(&setup.path(""), 2, &format!("localhost:{}", server.port()), &[("CLI_TLS_DIR", &own)]);
    server.wait_for_text("action: session_opened | result: success | agency_id: 2");
    let everyone = || [server.processes(), vec![agency.pid()]].concat();
    assert_eq!(everyone().len(), 8, "acceptor, storage, keeper, four handlers, and the agency");
    let old = server.keeper();
    assert_eq!(processes_with(&old_key, &everyone()), [old]);
    // The old keeper stays until its client has its answer.
    let new_key = use_ed25519(&setup);
    server.signal(Signal::SIGHUP);
    until("another keeper serves", || loaded(&server) == 2);
    assert_eq!(processes_with(&old_key, &everyone()), [old]);
    let [new] = processes_with(&new_key, &everyone())[..] else { panic!("one keeper has the new key") };
    drop(waiting);
    until("the old keeper has ended", || processes::state(old).is_none());
    assert_eq!(processes_with(&old_key, &everyone()), [0; 0]);
    assert_eq!(processes_with(&new_key, &everyone()), [new]);
    session.end_agency();
    agency.succeed();
}

/// How often a keeper has read its files.
fn loaded(server: &RunningServer) -> usize {
    server.log().lines_with("action: tls | result: success").len()
}

/// How far a handshake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connected,
    /// Half of the client's first message is sent.
    Begun,
    /// All of it, and the server's answer has not been awaited.
    Asked,
    /// The server has signed, and the client has not sent its certificate.
    Signed,
}

const STEPS: [Step; 4] = [Step::Connected, Step::Begun, Step::Asked, Step::Signed];

struct Handshake {
    socket: TcpStream,
    tls: ClientConnection,
    /// Bytes that the client has not sent.
    rest: Vec<u8>,
}

impl Handshake {
    /// Begins one as agency 1.
    fn begin(server: &RunningServer, step: Step) -> Self {
        let (mut socket, mut tls) = connect(server.port(), &agency_folder(&server.setup(), 1), true).unwrap();
        let mut rest = Vec::new();
        tls.write_tls(&mut rest).unwrap();
        let begun = match step {
            Step::Connected => 0,
            Step::Begun => rest.len() / 2,
            Step::Asked | Step::Signed => rest.len(),
        };
        socket.write_all(&rest[..begun]).unwrap();
        rest.drain(..begun);
        while step == Step::Signed && tls.is_handshaking() {
            tls.read_tls(&mut socket).unwrap();
            tls.process_new_packets().unwrap();
        }
        Self { socket, tls, rest }
    }

    /// Goes on. The server must close without an alert, for then the client comes back.
    #[track_caller]
    fn fails(mut self) {
        self.socket.write_all(&self.rest).unwrap();
        assert_eq!(complete(self.socket, self.tls, b""), Ok(Vec::new()));
    }
}

#[test]
fn a_killed_keeper_is_started_again_at_each_step_of_a_handshake_and_sessions_go_on() {
    let server = tls_setup(1).start();
    let mut session = Client::connect(relay(server.port(), &agency_folder(&server.setup(), 1)));
    session.open_session(1);
    for (round, step) in (0..).zip(STEPS) {
        let keeper = server.keeper();
        if step == Step::Asked {
            // So that it gives no answer.
            processes::send(keeper, Signal::SIGSTOP);
        }
        let handshake = Handshake::begin(&server, step);
        server.wait_for_handlers(2);
        processes::send(keeper, Signal::SIGKILL);
        let begun = Instant::now();
        handshake.fails();
        assert!(begun.elapsed() < Duration::from_secs(1), "{step:?}: {:?}", begun.elapsed());
        session.store((10 * round).into(), &bets(1, 10 * round..10 * round + 10));
        until("another keeper serves", || status(&server));
        assert_ne!(server.keeper(), keeper);
    }
    let line = "ERROR    action: keeper | result: fail | error: killed by SIGKILL";
    assert_eq!(server.log().lines_with(line).len(), STEPS.len());
}

#[test]
fn a_client_that_finds_no_keeper_is_told_to_come_back_in_plain_text() {
    let server = tls_setup(1).start();
    move_file(&server.setup().path("certs/server/tls.crt"), &server.setup().path("certs/server/away"));
    processes::send(server.keeper(), Signal::SIGKILL);
    server.wait_for_text("tls.crt: No such file or directory (os error 2); TLS_DIR must be a folder");
    let mut client = server.connect();
    client.send(b"\x16\x03\x01");
    assert!(client.expect_error().starts_with("busy: "));
    client.half_close();
    client.expect_closed();
    move_file(&server.setup().path("certs/server/away"), &server.setup().path("certs/server/tls.crt"));
    server.signal(Signal::SIGHUP);
    until("a keeper serves", || status(&server));
}

#[test]
fn a_keeper_that_is_stopped_costs_a_client_a_second_and_the_server_nothing() {
    scope(|scope| {
        for step in STEPS {
            Builder::new().spawn_scoped(scope, move || stop_keeper_at(step)).unwrap();
        }
    });
}

fn stop_keeper_at(step: Step) {
    let mut server = tls_setup(2).with("PLAIN_AGENCIES", "2").start();
    let mut session = Client::connect(relay(server.port(), &agency_folder(&server.setup(), 1)));
    session.open_session(1);
    let [first, second] = if step == Step::Asked {
        processes::send(server.keeper(), Signal::SIGSTOP);
        [step, step].map(|step| Handshake::begin(&server, step))
    } else {
        let begun = [step, step].map(|step| Handshake::begin(&server, step));
        server.wait_for_handlers(3);
        processes::send(server.keeper(), Signal::SIGSTOP);
        begun
    };
    let begun = Instant::now();
    first.fails();
    assert!(begun.elapsed() < Duration::from_secs(2), "{step:?}: {:?}", begun.elapsed());
    server.wait_for_text("result: fail | ip: 127.0.0.1 | reason: the keeper did not answer: timed out");
    // Others are served meanwhile.
    session.store(0, &bets(1, 0..10));
    server.connect().classic(kind::BET, &bets(2, 0..1)[0].record(), kind::BET_ACK, b"OK");
    // A handler that waits for the keeper, and one at this step.
    let _asked = Handshake::begin(&server, Step::Asked);
    until("a handler waits for the keeper", || server.handlers().len() >= 2);
    let (status, took) = server.stop(Signal::SIGTERM);
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(1), "{step:?}: {took:?}");
    drop(second);
}

/// The keepers that have not read their files.
fn loading(server: &RunningServer, others: &[i32]) -> Vec<i32> {
    let children = processes::children_of(server.pid()).into_iter();
    children.filter(|pid| !others.contains(pid)).collect()
}

#[test]
fn a_keeper_that_cannot_finish_reading_harms_nobody_and_a_reload_replaces_it() {
    let mut server = tls_setup(1).start();
    let list = server.setup().path("certs/server/ca.crl");
    let others = [server.storage(), server.keeper()];
    // Whoever opens it waits for a writer.
    mkfifo(&list, Mode::S_IRWXU).unwrap();
    server.signal(Signal::SIGHUP);
    let first = await_some("a keeper reads", || loading(&server, &others).pop());
    assert!(status(&server));
    processes::send(first, Signal::SIGKILL);
    let second =
        await_some("another keeper reads", || loading(&server, &others).pop().filter(|pid| *pid != first));
    assert!(status(&server));
    // Nobody serves.
    processes::send(others[1], Signal::SIGKILL);
    until("the keeper has ended", || processes::state(others[1]).is_none());
    let mut client = server.connect();
    client.send(b"\x16\x03\x01");
    assert!(client.expect_error().starts_with("busy: "));
    fs::remove_file(&list).unwrap();
    server.signal(Signal::SIGHUP);
    until("a keeper serves", || status(&server));
    until("the one before has ended", || processes::state(second).is_none());
    // The server ends at once although one reads.
    let others = [server.storage(), server.keeper()];
    mkfifo(&list, Mode::S_IRWXU).unwrap();
    server.signal(Signal::SIGHUP);
    until("a keeper reads", || !loading(&server, &others).is_empty());
    let (status, took) = server.stop(Signal::SIGTERM);
    assert!(status.success() && took < Duration::from_secs(1), "{status} after {took:?}");
}

#[test]
fn a_reload_in_the_middle_of_a_handshake_lets_it_end() {
    let server = tls_setup(1).start();
    let old = server.keeper();
    // Its handler has a socket to the old keeper.
    let waiting = server.connect();
    server.wait_for_handlers(1);
    server.signal(Signal::SIGHUP);
    until("another keeper serves", || loaded(&server) == 2);
    assert!(processes::state(old).is_some(), "it has a client");
    drop(waiting);
    until("the old keeper has ended", || processes::state(old).is_none());
    assert!(status(&server));
}

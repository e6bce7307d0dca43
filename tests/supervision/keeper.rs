//! The keeper, the process that has the server's private key: where the key is, and what happens when the keeper dies or stops.

use std::process::Command;
use std::time::{Duration, Instant};

use common::tls::{agency_folder, exchange, move_file, relay, tls_setup};
use common::{A_WHILE, Client, RunningServer, Setup, bets, frame, kind, output, processes, text, until};
use nix::sys::signal::Signal;

/// The status, asked with the certificate of agency 1, if the server answers over TLS.
fn status(server: &RunningServer) -> bool {
    let answer =
        exchange(server.port(), &agency_folder(&server.setup(), 1), &frame(kind::STATUS_REQUEST, b""));
    answer.is_ok_and(|bytes| bytes.first() == Some(&kind::STATUS))
}

/// Gives the server of this setup a certificate with an Ed25519 key, made by openssl. Returns the secrets: the seed, and what
/// a signer keeps of it.
fn use_ed25519(setup: &Setup) -> [Vec<u8>; 2] {
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
    [seed, prefix]
}

#[test]
fn the_private_key_is_in_no_process_but_the_keeper() {
    let setup = tls_setup(1);
    let secrets = use_ed25519(&setup);
    let server = setup.start();
    let port = relay(server.port(), &agency_folder(&setup, 1));
    let mut session = Client::connect(port);
    session.open_session(1);
    session.store(0, &bets(1, 0..10));
    let keeper = server.keeper();
    let all = server.processes();
    assert_eq!(all.len(), 4, "acceptor, storage, keeper, handler");
    for pid in all {
        let found = secrets.iter().any(|secret| processes::has_in_memory(pid, secret));
        assert_eq!(found, pid == keeper, "process {pid}");
    }
}

#[test]
fn a_killed_keeper_is_started_again_and_sessions_go_on() {
    let server = tls_setup(1).start();
    let port = relay(server.port(), &agency_folder(&server.setup(), 1));
    let mut session = Client::connect(port);
    session.open_session(1);
    for round in 0..3_u32 {
        let keeper = server.keeper();
        processes::send(keeper, Signal::SIGKILL);
        until("the keeper has ended", || processes::state(keeper).is_none());
        session.store((10 * round).into(), &bets(1, 10 * round..10 * round + 10));
        until("another keeper serves", || status(&server));
        assert_ne!(server.keeper(), keeper);
    }
    assert_eq!(
        server.log().lines_with("ERROR    action: keeper | result: fail | error: killed by SIGKILL").len(),
        3
    );
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
    let mut server = tls_setup(2).with("PLAIN_AGENCIES", "2").start();
    let port = relay(server.port(), &agency_folder(&server.setup(), 1));
    let mut session = Client::connect(port);
    session.open_session(1);
    let keeper = server.keeper();
    processes::send(keeper, Signal::SIGSTOP);
    let begun = Instant::now();
    assert!(!status(&server));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    server.wait_for_text("result: fail | ip: 127.0.0.1 | reason: the keeper did not answer: timed out");
    // Others are served meanwhile.
    session.store(0, &bets(1, 0..10));
    server.connect().classic(kind::BET, &bets(2, 0..1)[0].record(), kind::BET_ACK, b"OK");
    let mut waiting = server.connect();
    waiting.send(b"\x16\x03\x01\x00");
    std::thread::sleep(A_WHILE);
    let (status, took) = server.stop(Signal::SIGTERM);
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_reload_in_the_middle_of_a_handshake_lets_it_end() {
    let server = tls_setup(1).start();
    let old = server.keeper();
    // Its handler has a socket to the old keeper.
    let waiting = server.connect();
    server.wait_for_handlers(1);
    server.signal(Signal::SIGHUP);
    until("another keeper serves", || server.log().lines_with("action: tls | result: success").len() == 2);
    assert!(processes::state(old).is_some(), "it has a client");
    drop(waiting);
    until("the old keeper has ended", || processes::state(old).is_none());
    assert!(status(&server));
}

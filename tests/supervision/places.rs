//! All places are taken by clients that send no message. They make room for those that wait.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use common::{Bet, Client, Setup, kind};

const LIMIT: Duration = Duration::from_secs(8);

/// Stores a bet over a connection of its own.
fn store(port: u16, agency: u32, number: u32) {
    let mut client = Client::connect(port);
    client.send_frame(kind::BET, &Bet::made_up(agency, number).record());
    client.expect(kind::BET_ACK, b"OK");
}

#[test]
fn silent_connections_that_come_back_at_once_let_honest_clients_through() {
    let server = Setup::new().with("MAX_CLIENTS", 50).with("SERVER_LISTEN_BACKLOG", 512).start();
    let port = server.port();
    let is_over = AtomicBool::new(false);
    scope(|scope| {
        for _ in 0..200 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let Ok(silent) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                    silent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                    while matches!(std::io::Read::read(&mut &silent, &mut [0; 128]), Ok(1..)) {}
                }
            });
        }
        server.wait_for_handlers(50);
        // Clients that came later are behind all others.
        sleep(Duration::from_millis(500));
        let begun = Instant::now();
        let honest: Vec<_> = (1..=5).map(|agency| scope.spawn(move || store(port, agency, 0))).collect();
        let all_served = honest.into_iter().all(|client| client.join().is_ok());
        let took = begun.elapsed();
        is_over.store(true, Ordering::Relaxed);
        assert!(all_served && took < LIMIT, "{took:?}");
    });
}

#[test]
fn a_client_without_a_message_makes_room_after_a_second_if_another_waits() {
    let server = Setup::new().with("MAX_CLIENTS", 1).start();
    for begun_message in [&b""[..], &[kind::BET, 0, 0]] {
        // Nobody waits for its place.
        let mut slow = server.connect();
        server.wait_for_handlers(1);
        sleep(Duration::from_millis(1500));
        slow.send_frame(kind::BET, &Bet::made_up(1, 0).record());
        slow.expect(kind::BET_ACK, b"OK");
        drop(slow);
        server.wait_for_handlers(0);
        let mut slow = server.connect();
        slow.send(begun_message);
        server.wait_for_handlers(1);
        let begun = Instant::now();
        store(server.port(), 2, 0);
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        let reason = slow.expect_error();
        assert!(reason.starts_with("busy"), "{reason}");
        slow.expect_closed();
        server.wait_for_handlers(0);
    }
    // A session keeps its place.
    let (mut session, _) = server.session(1);
    let mut waiting = server.connect();
    waiting.send_frame(kind::BET, &Bet::made_up(2, 1).record());
    sleep(Duration::from_millis(1500));
    session.store(2, &[Bet::made_up(1, 1)]);
    drop(session);
    waiting.expect(kind::BET_ACK, b"OK");
    let lines = server.log();
    assert_eq!(lines.lines_with("others wait for its place").len(), 2, "{}", lines.0);
}

//! What holds when a process of the server is killed: every bet that was acknowledged is stored, once, in order.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::bets::{of_agency, parse_rows};
use common::client::bets_frame;
use common::{Bet, RunningServer, Setup, bets, kind, processes, rows, status, until, upload, winner};
use nix::sys::signal::Signal;

fn agencies(amount: u32) -> Setup {
    Setup::new().with("CLIENTS_AMOUNT", amount)
}

#[test]
fn a_server_that_was_killed_starts_again_with_all_it_knew() {
    let mut server = agencies(3).start();
    server.session(1).0.store(0, &[winner(1, "1"), Bet::made_up(1, 1), winner(1, "3")]);
    server.session(2).0.store(0, &bets(2, 0..4));
    server.connect().classic_end(2);
    server.kill9();
    let file = server.bets_file();
    // At once, on the same port.
    let mut again = server.setup().with("SERVER_PORT", server.port()).start();
    assert_eq!(again.bets_file(), file);
    assert_eq!((again.session(1).1.stored, again.session(1).1.state), (3, 0));
    assert_eq!((again.session(2).1.stored, again.session(2).1.state), (4, 1));
    again.connect().classic_end(1);
    again.connect().classic_end(3);
    again.kill9();
    let last = server.setup().start();
    last.connect().classic(kind::RESULT_REQUEST, &[1], kind::RESULT, b"1\x1e3");
    last.connect().classic(kind::RESULT_REQUEST, &[2], kind::RESULT, b"");
    assert_eq!(last.session(3).1.state, 2);
}

#[test]
fn a_server_starts_at_once_after_the_one_before_was_killed() {
    let mut server = agencies(2).start();
    for stored in 0..3 {
        server.session(1).0.store(stored, &[Bet::made_up(1, u32::try_from(stored).unwrap())]);
        // Its storage service may still hold the file for a moment.
        server.signal(Signal::SIGKILL);
        server.wait(common::PATIENCE);
        let again = server.setup().start();
        server = again;
    }
    assert_eq!(server.bets_file(), rows(&bets(1, 0..3)));
}

#[test]
fn a_server_that_is_killed_under_load_has_stored_all_that_it_acknowledged() {
    let mut server = agencies(3).start();
    let setup = server.setup().with("SERVER_PORT", server.port());
    let all: Vec<Vec<Bet>> = (1..=3).map(|agency| bets(agency, 0..4000)).collect();
    let acknowledged: Vec<AtomicU64> = (1..=3).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for (agency, (all, acknowledged)) in (1..=3).zip(all.iter().zip(&acknowledged)) {
            let port = server.port();
            scope.spawn(move || upload(port, agency, all, 20, acknowledged));
        }
        for share in [800, 2000] {
            until("some bets are acknowledged", || acknowledged[0].load(Ordering::SeqCst) >= share);
            server.kill9();
            let rows = parse_rows(&whole_rows(server.bets_file()));
            for (agency, acknowledged) in (1..=3).zip(&acknowledged) {
                let stored = of_agency(&rows, agency).len() as u64;
                // Nothing more is acknowledged before the next server has started.
                assert!(stored >= acknowledged.load(Ordering::SeqCst), "agency {agency}: {stored}");
            }
            server = setup.start();
        }
    });
    let stored = parse_rows(&server.bets_file());
    for (agency, all) in (1..=3).zip(&all) {
        assert!(of_agency(&stored, agency) == *all, "agency {agency}: each bet once, in order");
    }
    assert_eq!(stored.len(), 12_000);
}

/// The file without a torn last row.
fn whole_rows(mut file: Vec<u8>) -> Vec<u8> {
    let end = file.windows(2).rposition(|pair| pair == b"\r\n").map_or(0, |at| at + 2);
    file.truncate(end);
    file
}

#[test]
fn all_children_of_an_acceptor_that_is_killed_are_gone_within_a_second() {
    let mut server = agencies(2).start();
    let mut clients: Vec<_> = (0..10).map(|_| server.session(1).0).collect();
    clients[0].send_frame(kind::AWAIT_RESULT, b"");
    let silent = server.connect();
    server.wait_for_handlers(11);
    let start = Instant::now();
    server.signal(Signal::SIGKILL);
    until("no process is left", || server.processes().is_empty());
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    server.wait(common::PATIENCE);
    drop(silent);
}

#[test]
fn a_storage_service_that_is_killed_is_replaced_and_no_bet_is_lost_or_doubled() {
    let server = agencies(3).start();
    let all: Vec<Vec<Bet>> = (1..=3).map(|agency| bets(agency, 0..4000)).collect();
    let acknowledged: Vec<AtomicU64> = (1..=3).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for (agency, (all, acknowledged)) in (1..=3).zip(all.iter().zip(&acknowledged)) {
            let port = server.port();
            scope.spawn(move || upload(port, agency, all, 20, acknowledged));
        }
        for share in [500, 1500, 2500] {
            until("some bets are acknowledged", || acknowledged[0].load(Ordering::SeqCst) >= share);
            kill_storage(&server);
        }
    });
    let stored = parse_rows(&server.bets_file());
    for (agency, all) in (1..=3).zip(&all) {
        assert!(of_agency(&stored, agency) == *all, "agency {agency}: each bet once, in order");
    }
    assert_eq!(status(server.port())["storage_restarts"], 3);
}

/// Kills the storage service, and waits for the next one.
fn kill_storage(server: &RunningServer) {
    let storage = server.storage();
    processes::send(storage, Signal::SIGKILL);
    until("a new storage service lives", || {
        !server.processes().contains(&storage) && server.storage() != storage
    });
}

#[test]
fn ends_and_counts_survive_the_storage_service() {
    let server = agencies(2).start();
    server.session(1).0.store(0, &[winner(1, "1"), winner(1, "2")]);
    server.connect().classic_end(1);
    kill_storage(&server);
    let (mut client, opened) = server.session(1);
    assert_eq!((opened.stored, opened.state), (2, 1));
    client.send_bets(2, &bets(1, 2..3));
    client.expect_error();
    server.connect().classic_end(2);
    kill_storage(&server);
    server.connect().classic(kind::RESULT_REQUEST, &[1], kind::RESULT, b"1\x1e2");
    assert_eq!(server.log().lines_with("action: sorteo | result: success").len(), 1);
}

#[test]
fn a_client_with_a_request_in_hand_is_closed_without_a_reply_when_storage_dies() {
    let server = agencies(2).start();
    let (mut awaiting, _) = server.session(2);
    awaiting.send_frame(kind::AWAIT_RESULT, b"");
    let (mut in_session, _) = server.session(1);
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    in_session.send_bets(0, &bets(1, 0..3));
    let mut classic = server.connect();
    classic.send_frame(kind::BET, &Bet::made_up(1, 0).record());
    in_session.expect_silence(Duration::from_millis(200));
    processes::send(storage, Signal::SIGKILL);
    for client in [&mut in_session, &mut classic, &mut awaiting] {
        client.expect_closed();
    }
    // The requests of old clients that were still in the queue are not taken up.
    let (mut client, opened) = server.session(1);
    assert_eq!(opened.stored, 0);
    client.store(0, &bets(1, 0..3));
    assert_eq!(server.bets_file(), rows(&bets(1, 0..3)));
}

#[test]
fn a_storage_service_that_keeps_dying_ends_the_server() {
    let mut server = agencies(2).start();
    for _ in 0..5 {
        kill_storage(&server);
    }
    assert_eq!(status(server.port())["storage_restarts"], 5);
    processes::send(server.storage(), Signal::SIGKILL);
    let status = server.wait(common::PATIENCE).expect("an end");
    assert_eq!(status.code(), Some(1));
    assert_eq!(server.log().lines_of("CRITICAL").len(), 1, "one line says why");
}

#[test]
fn a_handler_that_is_killed_harms_nobody_else() {
    let server = agencies(2).start();
    let (mut victim, _) = server.session(1);
    victim.store(0, &bets(1, 0..3));
    let [handler] = server.handlers()[..] else { panic!("one handler") };
    let (mut other, _) = server.session(2);
    processes::send(handler, Signal::SIGKILL);
    victim.expect_closed();
    other.store(0, &bets(2, 0..3));
    let (mut back, opened) = server.session(1);
    assert_eq!(opened.stored, 3);
    back.store(3, &bets(1, 3..5));
    assert_eq!(status(server.port())["storage_restarts"], 0);
}

#[test]
fn of_a_request_whose_handler_dies_between_two_parts_nothing_is_stored() {
    let server = agencies(2).start();
    let (mut victim, _) = server.session(1);
    let [handler] = server.handlers()[..] else { panic!("one handler") };
    let (mut other, _) = server.session(2);
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    // Far more than the queue holds, which are ten messages of 8 kB.
    victim.send(&bets_frame(0, &bets(1, 0..8000)));
    victim.expect_silence(Duration::from_millis(300));
    processes::send(handler, Signal::SIGKILL);
    victim.expect_closed();
    processes::send(storage, Signal::SIGCONT);
    other.store(0, &bets(2, 0..3));
    assert_eq!(server.session(1).1.stored, 0);
    assert_eq!(server.bets_file(), rows(&bets(2, 0..3)));
}

#[test]
fn what_a_handler_had_sent_whole_when_it_was_killed_is_stored() {
    let server = agencies(2).start();
    let (mut victim, _) = server.session(1);
    let [handler] = server.handlers()[..] else { panic!("one handler") };
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    victim.send(&[bets_frame(0, &bets(1, 0..5)), bets_frame(5, &bets(1, 5..9))].concat());
    victim.send_frame(kind::END, b"");
    victim.expect_silence(Duration::from_millis(300));
    processes::send(handler, Signal::SIGKILL);
    victim.expect_closed();
    processes::send(storage, Signal::SIGCONT);
    until("all of it is stored", || server.bets_file() == rows(&bets(1, 0..9)));
    let (mut back, opened) = server.session(1);
    assert_eq!((opened.stored, opened.state), (9, 1));
    back.send_bets(9, &bets(1, 9..10));
    back.expect_error();
}

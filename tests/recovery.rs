//! What holds after a kill, a crash or a restart: every bet that was acknowledged is stored, once, in order.
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

/// A row in which all that can be quoted is.
fn quoted() -> Bet {
    Bet {
        first_name: "a\r\nb".to_owned(),
        last_name: "c,\"d\"\n".to_owned(),
        document: "\r".to_owned(),
        ..Bet::made_up(1, 3)
    }
}

#[test]
fn a_file_that_the_original_wrote_is_taken_up_as_it_is() {
    let file = "1,Santiago Lionel,Lorca,30904465,1999-03-17,7574\r\n\
        2,\"Pérez, hija\",\"O\"\"Neil\",30,1980-01-01,7574\r\n\
        1,Ana,Paz,5,2000-02-29,1\r\n\
        1,Eva,Gil,6,2000-02-29,7574\r\n";
    let server = agencies(2).write("bets.csv", file).start();
    assert_eq!(server.session(1).1.stored, 3);
    let (mut client, opened) = server.session(2);
    assert_eq!((opened.stored, opened.state), (1, 0));
    client.store(1, &[winner(2, "31")]);
    assert_eq!(server.bets_file(), [file.as_bytes(), &rows(&[winner(2, "31")])].concat());
    server.connect().classic_end(1);
    server.connect().classic_end(2);
    server.connect().classic(kind::RESULT_REQUEST, &[1], kind::RESULT, b"30904465\x1e6");
    server.connect().classic(kind::RESULT_REQUEST, &[2], kind::RESULT, b"30\x1e31");
}

#[test]
fn an_empty_file_is_an_empty_contest() {
    let server = agencies(2).write("bets.csv", "").start();
    assert_eq!(server.session(1).1.stored, 0);
}

#[test]
fn a_torn_last_row_is_cut_wherever_it_was_torn() {
    let whole = rows(&bets(1, 0..3));
    let last = rows(&[quoted()]);
    let line_break_in_quotes = 5 + last.windows(2).position(|pair| pair == b"\r\n").unwrap() - 3;
    for cut in
        [1, 2, 3, 6, line_break_in_quotes, 15, last.len() / 2, last.len() - 5, last.len() - 2, last.len() - 1]
    {
        let file = [&whole, &last[..cut]].concat();
        let server = agencies(2).write("bets.csv", &file).start();
        assert_eq!(server.bets_file(), whole, "cut after {cut} bytes");
        let (mut client, opened) = server.session(1);
        assert_eq!(opened.stored, 3, "cut after {cut} bytes");
        client.store(3, &[quoted()]);
        assert_eq!(server.bets_file(), [&whole[..], &last].concat());
    }
}

#[test]
fn a_torn_only_row_is_cut() {
    let server = agencies(2).write("bets.csv", "1,Ana,\"Paz\r\n").start();
    assert_eq!(server.bets_file(), b"");
    assert_eq!(server.session(1).1.stored, 0);
}

#[test]
fn a_damaged_row_in_the_middle_is_refused_and_the_file_left_as_it_is() {
    let [good, other] = [rows(&bets(1, 0..2)), rows(&bets(2, 0..2))];
    for damaged in [
        &b"1,a,b,c,2000-01-01\r\n"[..],
        b"1,a,b,c,2000-01-01,7,8\r\n",
        b"1,a,b,c,2000-01-01,7\n",
        b"1,a,b,c,2000-13-01,7\r\n",
        b"x,a,b,c,2000-01-01,7\r\n",
        b"1,a,b,c,2000-01-01,\r\n",
        b"1,a,b\"c,d,2000-01-01,7\r\n",
        b"1,\xff,b,c,2000-01-01,7\r\n",
        b"1,a\0\0\r\n",
        b"\r\n",
    ] {
        let file = [&good, damaged, &other].concat();
        let setup = agencies(2).write("bets.csv", &file);
        let ended = setup.run();
        assert_eq!(ended.code, Some(1), "{}", String::from_utf8_lossy(damaged));
        let line = ended.failure();
        assert!(line.contains(" | line: 3"), "{line}");
        ended.log.assert_well_formed();
        assert!(setup.bets_file() == file);
    }
}

#[test]
fn a_quote_that_is_never_closed_does_not_swallow_the_rows_behind_it() {
    let plain = "1,Ana,Paz,5,2000-02-29,1\r\n";
    let file = [plain, "1,\"Eva,Gil,6,2000-02-29,2\r\n", plain, plain].concat();
    let setup = agencies(2).write("bets.csv", &file);
    let ended = setup.run();
    assert_eq!(ended.code, Some(1));
    assert!(ended.failure().contains(" | line: 2"), "{}", ended.log.0);
    assert_eq!(setup.bets_file(), file.as_bytes());
}

#[test]
fn a_state_file_that_is_none_is_refused_and_left_as_it_is() {
    let mut server = agencies(2).start();
    server.connect().classic_end(1);
    server.terminate();
    for damaged in ["", "{", "[]", "{\"version\": 999}"] {
        let setup = server.setup().write("bets.csv.state", damaged);
        let ended = setup.run();
        assert_eq!(ended.code, Some(1), "{damaged:?}");
        assert!(ended.failure().contains("bets.csv.state"));
        assert_eq!(std::fs::read_to_string(setup.path("bets.csv.state")).unwrap(), damaged);
    }
}

#[test]
fn a_second_server_on_the_same_file_is_refused_and_names_the_holder() {
    let server = agencies(2).start();
    server.session(1).0.store(0, &bets(1, 0..3));
    let holder = server.storage();
    let ended = server.setup().run();
    assert_eq!(ended.code, Some(1));
    let line = ended.failure();
    assert!(line.contains(&holder.to_string()), "{holder} is the holder: {line}");
    ended.log.assert_well_formed();
    server.session(1).0.store(3, &bets(1, 3..4));
    assert_eq!(server.bets_file(), rows(&bets(1, 0..4)));
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
fn a_handler_that_is_stopped_stops_nobody_else() {
    let server = agencies(2).start();
    let (_stopped, _) = server.session(1);
    let [handler] = server.handlers()[..] else { panic!("one handler") };
    processes::send(handler, Signal::SIGSTOP);
    let (mut other, _) = server.session(2);
    other.store(0, &bets(2, 0..3));
    other.end_agency();
    server.connect().classic_end(1);
    other.send_frame(kind::AWAIT_RESULT, b"");
    other.expect(kind::RESULT, b"");
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

/// The text is chosen so that its torn remains look like a stray quote before whole rows.
#[test]
fn a_torn_row_whose_text_looks_like_rows_is_cut_where_it_was_being_written_and_only_there() {
    let mut server = agencies(1).start();
    let deceptive =
        Bet { first_name: "x\r\n1,Ana,Paz,5,2000-02-29,1\r\n".to_owned(), ..bets(1, 1..2)[0].clone() };
    let all = [bets(1, 0..1), vec![deceptive]].concat();
    let (mut client, _) = server.session(1);
    client.store(0, &all[..1]);
    client.store(1, &all[1..]);
    server.terminate();
    let (whole, first) = (server.bets_file(), rows(&all[..1]));
    let state = server.setup().state();
    assert!(state.get("writing").is_none(), "what was written whole is not noted any more: {state}");
    for cut in [first.len() + 3, whole.len() - 25, whole.len() - 1] {
        // As a kill in the middle of the write leaves it.
        let mut noted = state.clone();
        noted["writing"] = serde_json::json!({"from": first.len(), "to": whole.len()});
        let setup =
            server.setup().write("bets.csv", &whole[..cut]).write("bets.csv.state", noted.to_string());
        let mut again = setup.start();
        assert_eq!(again.session(1).1.stored, 1, "{cut}");
        assert_eq!(setup.bets_file(), first);
        again.terminate();
        assert!(setup.state().get("writing").is_none());
    }
    let damaged = &whole[..whole.len() - 25];
    let setup = server.setup().write("bets.csv", damaged).write("bets.csv.state", state.to_string());
    let ended = setup.run();
    assert_eq!((ended.code, setup.bets_file()), (Some(1), damaged.to_vec()));
    assert!(ended.failure().contains(" | line: 2"), "{}", ended.log.0);
}

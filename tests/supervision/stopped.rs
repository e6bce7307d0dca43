//! A process stops for a while, as under a debugger or on an overloaded machine.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::bets::{of_agency, parse_rows};
use common::processes::are_idle;
use common::{Bet, Setup, assert_at_once, bets, frame, kind, processes, status, until, upload, winner};
use nix::sys::signal::Signal;

#[test]
fn requests_that_came_while_storage_was_stopped_are_stored_with_one_sync() {
    let server = Setup::new().start();
    let storage = server.storage();
    let mut sessions: Vec<_> = (1..=5).map(|agency| (agency, server.session(agency).0)).collect();
    processes::send(storage, Signal::SIGSTOP);
    for (agency, session) in &mut sessions {
        session.send_bets(0, &bets(*agency, 0..3));
    }
    sessions[0].1.expect_silence();
    until("the handlers have sent all", || are_idle(&server.handlers()));
    processes::send(storage, Signal::SIGCONT);
    for (_, session) in &mut sessions {
        session.expect_stored(3);
    }
    let told = status(server.port());
    let counted = (&told["sync_seconds"]["count"], &told["batches"], &told["group_bets"]["sum"]);
    assert_eq!(counted, (&1.into(), &5.into(), &15.0.into()));
}

#[test]
fn a_handler_that_is_stopped_within_a_large_result_delays_nobody_and_then_sends_all_of_it() {
    let server = Setup::of(2).with("MAX_PAYLOAD", 1 << 20).start();
    let (mut reader, _) = server.session(1);
    reader.store(0, &vec![winner(1, &"7".repeat(200)); 4000]);
    reader.end_agency();
    let [handler] = server.handlers()[..] else { panic!("one handler") };
    let (mut other, _) = server.session(2);
    other.store(0, &[winner(2, "22")]);
    other.end_agency();
    reader.send(&frame(kind::RESULT_REQUEST, b"").repeat(20));
    processes::send(handler, Signal::SIGSTOP);
    assert_at_once(|| {
        other.send_frame(kind::RESULT_REQUEST, b"");
        other.expect(kind::RESULT, b"22");
        server.connect().classic(kind::RESULT_REQUEST, &[2], kind::RESULT, b"22");
        status(server.port());
    });
    processes::send(handler, Signal::SIGCONT);
    until("the socket is full", || are_idle(&server.processes()));
    let expected = vec!["7".repeat(200); 4000].join("\x1e");
    for _ in 0..20 {
        reader.expect(kind::RESULT, expected.as_bytes());
    }
}

#[test]
fn while_storage_is_stopped_for_a_second_all_clients_wait_and_none_gets_an_error() {
    const BETS: u32 = 4000;
    let server = Setup::new().start();
    let storage = server.storage();
    let acknowledged: Vec<AtomicU64> = (0..3).map(|_| AtomicU64::new(0)).collect();
    let goes_on = AtomicBool::new(true);
    let classic = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for (agency, acknowledged) in (1..).zip(&acknowledged) {
            let port = server.port();
            scope.spawn(move || {
                upload(port, agency, &bets(agency, 0..BETS), 10, acknowledged).expect("no error");
            });
        }
        scope.spawn(|| {
            for index in 0.. {
                let bet = Bet::made_up(4, index);
                server.connect().classic(kind::BET, &bet.record(), kind::BET_ACK, b"OK");
                classic.fetch_add(1, Ordering::SeqCst);
                if !goes_on.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        until("all are under way", || {
            acknowledged.iter().all(|count| count.load(Ordering::SeqCst) > 100)
                && classic.load(Ordering::SeqCst) > 2
        });
        processes::send(storage, Signal::SIGSTOP);
        std::thread::sleep(Duration::from_secs(1));
        let stored: u64 = acknowledged.iter().map(|count| count.load(Ordering::SeqCst)).sum();
        assert!(stored < 3 * u64::from(BETS), "it was not stopped under load");
        processes::send(storage, Signal::SIGCONT);
        goes_on.store(false, Ordering::SeqCst);
    });
    let stored = parse_rows(&server.bets_file());
    for agency in 1..=3 {
        assert!(of_agency(&stored, agency) == bets(agency, 0..BETS), "agency {agency}");
    }
    let classic = u32::try_from(classic.load(Ordering::SeqCst)).unwrap();
    assert!(of_agency(&stored, 4) == bets(4, 0..classic));
    assert_eq!(server.log().lines_with("result: fail"), Vec::<&str>::new());
    assert_eq!(status(server.port())["storage_restarts"], 0);
}

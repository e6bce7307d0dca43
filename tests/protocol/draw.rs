//! The draw: it is made once, when all agencies have ended, and never changes.

use common::{Bet, RunningServer, Setup, bets, kind, processes, server_of, status, winner};
use nix::sys::signal::Signal;

#[track_caller]
fn expect_result(server: &RunningServer, agency: u8, documents: &str) {
    server.connect().classic(kind::RESULT_REQUEST, &[agency], kind::RESULT, documents.as_bytes());
}

/// A server of two agencies that has made its draw.
fn drawn() -> RunningServer {
    let server = server_of(2);
    server
        .session(1)
        .0
        .store(0, &[winner(1, "11"), Bet { number: 1, ..Bet::made_up(1, 1) }, winner(1, "12")]);
    server.session(2).0.store(0, &bets(2, 0..3));
    server.connect().classic_end(1);
    server.connect().classic_end(2);
    server
}

#[test]
fn the_draw_is_made_when_the_last_agency_ends_and_logged_once() {
    let server = server_of(3);
    for agency in [2, 1, 2, 1] {
        server.connect().classic_end(agency);
        server.connect().classic(kind::RESULT_REQUEST, &[agency], kind::IN_PROGRESS, b"");
    }
    assert!(server.log().lines_with("sorteo").is_empty());
    server.connect().classic_end(3);
    assert_eq!(server.log().draws(), 1);
    for agency in [3, 1, 2] {
        server.connect().classic_end(agency);
        expect_result(&server, agency, "");
    }
    assert_eq!(server.log().lines_with("action: sorteo").len(), 1);
}

#[test]
fn the_configured_number_wins() {
    let server = Setup::of(1).with("LOTTERY_WINNER_NUMBER", 0).start();
    let zero = Bet { number: 0, ..Bet::made_up(1, 5) };
    let (mut client, _) = server.session(1);
    client.store(0, &[winner(1, "1"), zero.clone()]);
    client.end_agency();
    expect_result(&server, 1, &zero.document);
}

#[test]
fn the_draw_survives_a_restart_and_is_not_logged_again() {
    let mut server = drawn();
    let line = "action: sorteo | result: success | numero: 7574 | bets: 6 | winners: 2 | bytes: ";
    assert_eq!(server.log().lines_with(line).len(), 1, "{}", server.log().0);
    server.terminate();
    let file = server.bets_file();
    let again = server.setup().start();
    expect_result(&again, 1, "11\x1e12");
    expect_result(&again, 2, "");
    assert_eq!(again.session(1).1.state, 2);
    again.connect().refused(kind::BET, &Bet::made_up(1, 9).record());
    again.connect().classic_end(1);
    assert!(again.log().lines_with("sorteo").is_empty());
    assert!(again.log().lines_of("WARNING").is_empty());
    assert_eq!(again.bets_file(), file);
}

#[test]
fn after_the_draw_its_amount_and_number_override_the_configuration_with_one_warning() {
    let mut server = drawn();
    server.terminate();
    for changed in [
        server.setup().with("LOTTERY_WINNER_NUMBER", 1),
        server.setup().with("CLIENTS_AMOUNT", 5),
        server.setup().with("CLIENTS_AMOUNT", 1),
        server.setup().with("LOTTERY_WINNER_NUMBER", 1).with("CLIENTS_AMOUNT", 5),
    ] {
        let again = changed.start();
        expect_result(&again, 1, "11\x1e12");
        expect_result(&again, 2, "");
        again.connect().refused(kind::RESULT_REQUEST, &[3]);
        assert_eq!(status(again.port())["agencies"], 2);
        let log = again.log();
        assert_eq!(log.lines_of("WARNING").len(), 1, "{:?}", log.lines_of("WARNING"));
        assert!(log.lines_with("sorteo | result: success").is_empty());
    }
}

#[test]
fn before_the_draw_another_number_may_be_configured() {
    let mut server = server_of(1);
    server.session(1).0.store(0, &[winner(1, "1"), Bet { number: 5, ..Bet::made_up(1, 1) }]);
    server.terminate();
    let again = server.setup().with("LOTTERY_WINNER_NUMBER", 5).start();
    again.connect().classic_end(1);
    expect_result(&again, 1, &Bet::made_up(1, 1).document);
    assert!(again.log().lines_of("WARNING").is_empty());
}

#[test]
fn before_the_draw_more_agencies_may_be_configured() {
    let mut server = server_of(2);
    server.connect().classic_end(1);
    server.terminate();
    let again = server.setup().with("CLIENTS_AMOUNT", 3).start();
    again.connect().classic_end(2);
    again.connect().classic(kind::RESULT_REQUEST, &[1], kind::IN_PROGRESS, b"");
    again.connect().classic_end(3);
    expect_result(&again, 3, "");
}

#[test]
fn if_all_agencies_have_ended_the_draw_is_made_at_the_start() {
    let mut server = server_of(3);
    server.session(1).0.store(0, &[winner(1, "1")]);
    server.connect().classic_end(1);
    server.connect().classic_end(2);
    server.terminate();
    let again = server.setup().with("CLIENTS_AMOUNT", 2).start();
    expect_result(&again, 1, "1");
    assert_eq!(again.log().draws(), 1);
    assert_eq!(status(again.port())["drawn"], true);
}

#[test]
fn an_amount_that_excludes_an_agency_with_bets_or_an_end_is_refused() {
    for with_bets in [true, false] {
        let mut server = server_of(3);
        if with_bets {
            server.session(3).0.store(0, &bets(3, 0..2));
        } else {
            server.connect().classic_end(3);
        }
        server.terminate();
        let file = server.bets_file();
        let ended = server.setup().with("CLIENTS_AMOUNT", 2).run();
        assert_eq!(ended.code, Some(1));
        let line = ended.failure();
        assert!(line.contains("CLIENTS_AMOUNT") || line.contains("agency"), "{line}");
        assert_eq!(server.bets_file(), file);
        // With the old amount the server starts again.
        let again = server.setup().start();
        assert_eq!(again.session(3).1.state, u8::from(!with_bets));
    }
}

#[test]
fn ends_that_come_at_the_same_time_make_one_draw() {
    let server = server_of(20);
    std::thread::scope(|scope| {
        for agency in 1..=20 {
            let server = &server;
            scope.spawn(move || {
                let (mut client, _) = server.session(agency);
                client.store(0, &[winner(agency, &agency.to_string())]);
                client.send_frame(kind::END, b"");
                client.expect(kind::BET_ACK, b"OK");
                client.send_frame(kind::AWAIT_RESULT, b"");
                client.expect(kind::RESULT, agency.to_string().as_bytes());
            });
        }
    });
    assert_eq!(server.log().draws(), 1);
}

#[cfg(debug_assertions)]
#[test]
fn ends_that_come_together_and_the_draw_are_written_in_one_state_file() {
    // The first rename is that of the start; a third one would fail.
    let server = Setup::of(4).with("FAILPOINTS", "disk_rename_state=2*off->return").start();
    let mut sessions: Vec<_> = (1..=4).map(|agency| server.session(agency).0).collect();
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    for session in &mut sessions {
        session.send_frame(kind::END, b"");
    }
    sessions[0].expect_silence();
    processes::send(storage, Signal::SIGCONT);
    for session in &mut sessions {
        session.expect(kind::BET_ACK, b"OK");
    }
    expect_result(&server, 4, "");
    assert!(server.log().lines_with("action: state_write").is_empty());
    assert!(server.setup().state()["draw"].is_object());
}

//! END and `RESULT_REQUEST` as classic messages.

use common::bets::WINNING;
use common::client::store_each;
use common::{Bet, Setup, bets, kind, records, rows, server_of, status, winner};

const OK: &[u8] = b"OK";

#[test]
fn an_end_is_logged_but_not_answered_and_may_be_repeated() {
    let server = Setup::new().start();
    for repeated in 0..2 {
        server.connect().classic_end(4);
        let event = "end_message | result: success | agency_id: 4";
        assert_eq!(["INFO", "DEBUG"].map(|level| server.log().count(level, event)), [1, repeated]);
    }
    assert_eq!(status(server.port())["ended"], 1);
}

#[test]
fn an_end_of_an_agency_that_does_not_exist_changes_nothing() {
    let server = server_of(2);
    for agency in [0, 3, 255] {
        server.connect().classic_end(agency);
    }
    server.connect().classic_end(1);
    assert_eq!(status(server.port())["ended"], 1);
    assert!(server.log().lines_with("agency_id: 0").iter().all(|line| !line.contains("result: success")));
    server.connect().classic(kind::RESULT_REQUEST, &[1], kind::IN_PROGRESS, b"");
    store_each(server.port(), &bets(2, 0..1));
}

#[test]
fn an_end_of_a_wrong_length_changes_nothing() {
    let server = server_of(1);
    for payload in [&b""[..], b"\x01\x01", b"\0\0\0\x01"] {
        let mut client = server.connect();
        client.send_frame(kind::END, payload);
        client.expect_error();
        client.expect_eof();
    }
    assert_eq!(status(server.port())["ended"], 0);
}

#[test]
fn a_bet_after_its_agencys_end_is_refused() {
    let server = server_of(2);
    store_each(server.port(), &bets(1, 0..1));
    server.connect().classic_end(1);
    server.connect().refused(kind::BET, &bets(1, 1..2)[0].record());
    let mixed = records(&[bets(2, 0..1), bets(1, 1..2)].concat());
    server.connect().refused(kind::MULTIPLE_BETS, &mixed);
    assert_eq!(server.bets_file(), rows(&bets(1, 0..1)));
    store_each(server.port(), &bets(2, 0..1));
}

#[test]
fn a_bet_after_the_draw_is_refused() {
    let server = server_of(1);
    server.connect().classic_end(1);
    assert_eq!(server.log().draws(), 1);
    server.connect().refused(kind::BET, &bets(1, 0..1)[0].record());
    server.connect().refused(kind::MULTIPLE_BETS, &records(&bets(1, 0..2)));
    assert_eq!(server.bets_file(), b"");
}

#[test]
fn a_result_lists_the_winners_in_stored_order_and_a_double_winner_twice() {
    let server = server_of(3);
    let stored = [
        winner(1, "30"),
        Bet::made_up(1, 1),
        winner(2, "x,\"y\""),
        winner(1, "4"),
        winner(1, "30"),
        Bet { number: WINNING + 1, ..winner(3, "5") },
    ];
    store_each(server.port(), &stored[..2]);
    server.connect().classic(kind::MULTIPLE_BETS, &records(&stored[2..]), kind::BET_ACK, OK);
    server.connect().classic(kind::RESULT_REQUEST, &[3], kind::IN_PROGRESS, b"");
    assert!(server.log().has("result_request | result: in_progress | agency_id: 3"));
    for agency in 1..=3 {
        server.connect().classic_end(agency);
    }
    for (agency, documents) in [(1, &b"30\x1e4\x1e30"[..]), (2, b"x,\"y\""), (3, b"")] {
        let mut client = server.connect();
        client.send_frame(kind::RESULT_REQUEST, &[agency]);
        client.expect(kind::RESULT, documents);
        assert!(server.log().has(&format!("result_request | result: success | agency_id: {agency}")));
        client.expect_eof();
    }
}

#[test]
fn the_result_of_an_agency_that_does_not_exist_is_refused() {
    let server = server_of(1);
    for _ in 0..2 {
        for agency in [0, 2, 255] {
            server.connect().refused(kind::RESULT_REQUEST, &[agency]);
        }
        for payload in [&b""[..], b"\x01\x01"] {
            server.connect().refused(kind::RESULT_REQUEST, payload);
        }
        // The second round is after the draw.
        server.connect().classic_end(1);
    }
}

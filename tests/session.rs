//! Session messages: one connection per agency, bets with an index, many batches in flight.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

mod common;

use std::time::Duration;

use common::client::{bets_frame, open_frame};
use common::{Bet, Client, Opened, RunningServer, Setup, bets, frame, kind, records, rows, until, winner};

/// Long enough that an answer would have come, had one been sent.
const A_WHILE: Duration = Duration::from_millis(200);

fn server_of(agencies: u32) -> RunningServer {
    Setup::new().with("CLIENTS_AMOUNT", agencies).start()
}

#[test]
fn a_session_opens_with_what_the_server_knows() {
    let server = Setup::new().with("MAX_PAYLOAD", 70_000).start();
    let (_client, opened) = server.session(5);
    assert_eq!(opened, Opened { agency: 5, stored: 0, state: 0, max_payload: 70_000 });
}

#[test]
fn a_session_that_can_not_open_is_refused_and_closed() {
    let server = server_of(5);
    for bad in [
        open_frame(0, 1),
        open_frame(2, 1),
        open_frame(1, 0),
        open_frame(1, 6),
        open_frame(1, 65_537),
        open_frame(1, u32::MAX),
        frame(kind::OPEN_SESSION, b""),
        frame(kind::OPEN_SESSION, b"\x01\0\0\x01"),
        frame(kind::OPEN_SESSION, b"\x01\0\0\0\x01\0"),
    ] {
        let mut client = server.connect();
        client.send(&bad);
        client.expect_error();
        client.expect_eof();
    }
}

#[test]
fn batches_in_flight_are_answered_in_order_and_stored_in_order() {
    let server = server_of(5);
    let all = bets(2, 0..1000);
    let (mut client, _) = server.session(2);
    let frames: Vec<u8> =
        all.chunks(10).enumerate().flat_map(|(index, batch)| bets_frame(10 * index as u64, batch)).collect();
    client.send(&frames);
    let mut last = 0;
    for end in (10..=1000).step_by(10) {
        let (got, payload) = client.read_frame();
        assert_eq!(got, kind::SESSION_STORED);
        let stored = u64::from_be_bytes(payload.try_into().unwrap());
        assert!(stored >= end && stored >= last && stored <= 1000, "{stored} after {end}");
        last = stored;
    }
    assert_eq!(last, 1000);
    assert!(server.bets_file() == rows(&all));
}

#[test]
fn a_session_takes_its_first_bets_together_with_its_opening() {
    let server = server_of(5);
    let mut client = server.connect();
    client.send(&[open_frame(1, 1), bets_frame(0, &bets(1, 0..3))].concat());
    assert_eq!(client.read_frame().0, kind::SESSION_OPENED);
    client.expect_stored(3);
}

#[test]
fn what_is_stored_already_is_skipped_however_it_is_cut() {
    let server = server_of(5);
    let all = bets(1, 0..20);
    let (mut client, _) = server.session(1);
    client.store(0, &all[..5]);
    // The same again, a part of it, and parts that go further.
    for (range, stored) in
        [(0..5, 5), (1..4, 5), (4..7, 7), (0..10, 10), (9..10, 10), (10..20, 20), (0..20, 20)]
    {
        client.send_bets(range.start as u64, &all[range]);
        client.expect_stored(stored);
    }
    assert_eq!(server.bets_file(), rows(&all));
}

#[test]
fn skipped_bets_must_still_be_bets_of_the_agency() {
    let server = server_of(5);
    let (mut client, _) = server.session(1);
    client.store(0, &bets(1, 0..5));
    client.send_bets(0, &[bets(2, 0..1), bets(1, 1..6)].concat());
    client.expect_error();
    client.store(5, &bets(1, 5..6));
    assert_eq!(server.bets_file(), rows(&bets(1, 0..6)));
}

#[test]
fn a_gap_is_refused_and_so_is_what_was_in_flight_behind_it() {
    let server = server_of(5);
    let all = bets(1, 0..12);
    let (mut client, _) = server.session(1);
    client.store(0, &all[..2]);
    client.send(&[bets_frame(4, &all[4..8]), bets_frame(8, &all[8..12])].concat());
    client.expect_error();
    client.expect_error();
    client.store(2, &all[2..12]);
    for first in [13, u64::MAX, 1 << 63] {
        client.send_bets(first, &all[..1]);
        client.expect_error();
    }
    assert_eq!(server.bets_file(), rows(&all));
}

#[test]
fn a_batch_with_a_bad_bet_is_refused_whole_and_the_session_stays_open() {
    let server = server_of(5);
    let good = bets(1, 0..6);
    let (mut client, _) = server.session(1);
    let bad_date = Bet { birthdate: "2001-02-29".to_owned(), ..good[1].clone() };
    let bad = [
        bets_frame(0, &[good[0].clone(), Bet::made_up(2, 0)]),
        bets_frame(0, &[good[0].clone(), bad_date]),
        bets_frame(0, &[]),
        frame(kind::SESSION_BETS, &[&[0; 8][..], b"1\x1fa"].concat()),
        frame(kind::SESSION_BETS, &[&[0; 8][..], &records(&good), b"\x1e"].concat()),
    ];
    for bad in bad {
        // In flight behind it: a batch that would leave a gap, and then one that is good.
        client.send(&[bad, bets_frame(2, &good[2..4])].concat());
        client.expect_error();
        client.expect_error();
    }
    client.store(0, &good);
    assert_eq!(server.bets_file(), rows(&good));
}

#[test]
fn a_bets_frame_too_short_for_its_index_is_refused() {
    let server = server_of(5);
    let (mut client, _) = server.session(1);
    client.send_frame(kind::SESSION_BETS, b"\0\0\0");
    client.expect_error();
    assert_eq!(server.bets_file(), b"");
}

#[test]
fn a_batch_of_several_hundred_kilobytes_is_stored_whole() {
    let server = server_of(5);
    let all = bets(1, 0..14_000);
    let (mut client, _) = server.session(1);
    client.store(0, &all);
    assert!(server.bets_file() == rows(&all));
}

#[test]
fn sessions_of_all_agencies_at_a_time_keep_each_agencys_order() {
    let server = server_of(5);
    std::thread::scope(|scope| {
        for agency in 1..=5 {
            let (mut client, _) = server.session(agency);
            scope.spawn(move || {
                let all = bets(agency, 0..600);
                for (index, batch) in all.chunks(100).enumerate() {
                    client.store(100 * index as u64, batch);
                }
            });
        }
    });
    let stored = common::bets::parse_rows(&server.bets_file());
    assert_eq!(stored.len(), 3000);
    for agency in 1..=5 {
        assert!(common::bets::of_agency(&stored, agency) == bets(agency, 0..600));
    }
}

#[test]
fn end_and_result_name_no_agency_or_the_sessions_own() {
    let server = server_of(2);
    let (mut client, _) = server.session(1);
    for (own, kind, reply, payload) in [
        (&b""[..], kind::RESULT_REQUEST, kind::IN_PROGRESS, &b""[..]),
        (b"\x01", kind::RESULT_REQUEST, kind::IN_PROGRESS, b""),
        (b"", kind::END, kind::BET_ACK, b"OK"),
        (b"\x01", kind::END, kind::BET_ACK, b"OK"),
    ] {
        for other in [&b"\x02"[..], b"\0", b"\x03", b"\xff"] {
            client.send_frame(kind, other);
            client.expect_error();
        }
        client.send_frame(kind, own);
        client.expect(reply, payload);
    }
    assert_eq!(common::status(server.port())["ended"], 1);
}

#[test]
fn after_end_only_bets_that_are_stored_already_are_acknowledged() {
    let server = server_of(2);
    let (mut client, _) = server.session(1);
    client.store(0, &bets(1, 0..5));
    client.end_agency();
    client.send_bets(5, &bets(1, 5..6));
    client.expect_error();
    client.send_bets(3, &bets(1, 3..6));
    client.expect_error();
    client.send_bets(1, &bets(1, 1..5));
    client.expect_stored(5);
    // Nor is it different after the draw.
    server.connect().classic_end(2);
    client.send_bets(5, &bets(1, 5..6));
    client.expect_error();
    client.send_bets(0, &bets(1, 0..5));
    client.expect_stored(5);
    assert_eq!(server.bets_file(), rows(&bets(1, 0..5)));
}

#[test]
fn the_state_says_open_ended_drawn() {
    let server = server_of(2);
    let (mut first, opened) = server.session(1);
    assert_eq!(opened.state, 0);
    first.store(0, &bets(1, 0..2));
    first.end_agency();
    assert_eq!(server.session(1).1, Opened { agency: 1, stored: 2, state: 1, max_payload: 1 << 20 });
    assert_eq!(server.session(2).1.state, 0);
    server.session(2).0.end_agency();
    assert_eq!(server.session(1).1.state, 2);
    assert_eq!(server.session(2).1.state, 2);
}

#[test]
fn a_result_is_answered_at_once_before_and_after_the_draw() {
    let server = server_of(2);
    let (mut client, _) = server.session(2);
    client.store(0, &[winner(2, "7"), winner(2, "7"), Bet::made_up(2, 2)]);
    client.send_frame(kind::RESULT_REQUEST, b"");
    client.expect(kind::IN_PROGRESS, b"");
    client.end_agency();
    client.send_frame(kind::RESULT_REQUEST, b"\x02");
    client.expect(kind::IN_PROGRESS, b"");
    server.connect().classic_end(1);
    for payload in [&b""[..], b"\x02"] {
        client.send_frame(kind::RESULT_REQUEST, payload);
        client.expect(kind::RESULT, b"7\x1e7");
    }
    client.send_frame(kind::AWAIT_RESULT, b"");
    client.expect(kind::RESULT, b"7\x1e7");
}

#[test]
fn whoever_awaits_is_answered_as_soon_as_the_last_agency_ends() {
    let server = server_of(3);
    let mut waiting: Vec<Client> = Vec::new();
    for agency in [1, 2, 3, 1] {
        let (mut client, opened) = server.session(agency);
        client.store(opened.stored, &[winner(agency, &format!("{agency}{}", opened.stored))]);
        client.send_frame(kind::AWAIT_RESULT, b"");
        waiting.push(client);
    }
    for agency in 1..=2 {
        server.session(agency).0.end_agency();
    }
    waiting[2].expect_silence(A_WHILE);
    server.connect().classic_end(3);
    for (client, documents) in waiting.iter_mut().zip(["10\x1e11", "20", "30", "10\x1e11"]) {
        client.expect(kind::RESULT, documents.as_bytes());
    }
    // And the sessions go on.
    for client in &mut waiting {
        client.send_frame(kind::END, b"");
        client.expect(kind::BET_ACK, b"OK");
    }
}

#[test]
fn frames_behind_an_await_are_not_read_until_it_is_answered() {
    let server = server_of(2);
    let (mut client, _) = server.session(1);
    client.end_agency();
    client.send(&[frame(kind::AWAIT_RESULT, b""), frame(kind::RESULT_REQUEST, b"")].concat());
    client.expect_silence(A_WHILE);
    client.send_frame(kind::RESULT_REQUEST, b"");
    client.expect_silence(A_WHILE);
    server.connect().classic_end(2);
    for _ in 0..3 {
        client.expect(kind::RESULT, b"");
    }
}

#[test]
fn an_end_behind_an_await_can_not_make_the_draw() {
    let server = server_of(1);
    let (mut client, _) = server.session(1);
    client.send(&[frame(kind::AWAIT_RESULT, b""), frame(kind::END, b"")].concat());
    client.expect_silence(A_WHILE);
    server.session(1).0.end_agency();
    client.expect(kind::RESULT, b"");
    client.expect(kind::BET_ACK, b"OK");
}

#[test]
fn closing_or_half_closing_while_awaiting_ends_the_handler() {
    let server = server_of(2);
    let (mut closing, _) = server.session(1);
    let (mut half_closing, _) = server.session(1);
    for client in [&mut closing, &mut half_closing] {
        client.send_frame(kind::AWAIT_RESULT, b"");
    }
    server.wait_for_handlers(2);
    drop(closing);
    server.wait_for_handlers(1);
    half_closing.half_close();
    half_closing.expect_eof();
    server.wait_for_handlers(0);
}

#[test]
fn who_half_closes_after_the_draw_still_gets_the_result() {
    let server = server_of(1);
    server.session(1).0.end_agency();
    let mut client = server.connect();
    client.send(&[open_frame(1, 1), frame(kind::AWAIT_RESULT, b""), frame(kind::AWAIT_RESULT, b"")].concat());
    client.half_close();
    assert_eq!(client.read_frame().0, kind::SESSION_OPENED);
    client.expect(kind::RESULT, b"");
    client.expect(kind::RESULT, b"");
    client.expect_eof();
}

#[test]
fn what_a_session_does_is_logged_before_it_is_answered() {
    let server = server_of(2);
    let (mut client, _) = server.session(1);
    client.store(0, &bets(1, 0..3));
    assert_eq!(server.log().count("DEBUG", "apuesta_recibida | result: success | cantidad: 3"), 1);
    client.send_bets(9, &bets(1, 0..2));
    client.expect_error();
    let log = server.log();
    let refused = log.lines_with("DEBUG    action: apuesta_recibida | result: fail | cantidad: 2 | ");
    assert_eq!(refused.len(), 1, "{}", log.0);
    client.end_agency();
    assert!(server.log().has("end_message | result: success | agency_id: 1"));
    client.send_frame(kind::RESULT_REQUEST, b"");
    client.expect(kind::IN_PROGRESS, b"");
    assert_eq!(server.log().count("DEBUG", "result_request | result: in_progress | agency_id: 1"), 1);
}

#[test]
fn two_hundred_that_await_are_all_answered() {
    let server = server_of(2);
    server.session(1).0.store(0, &[winner(1, "11")]);
    let mut waiting: Vec<Client> = (0..200).map(|_| server.session(1).0).collect();
    for client in &mut waiting {
        client.send_frame(kind::AWAIT_RESULT, b"");
    }
    server.session(1).0.end_agency();
    server.session(2).0.end_agency();
    for client in &mut waiting {
        client.expect(kind::RESULT, b"11");
    }
}

#[test]
fn closing_an_idle_session_ends_its_handler() {
    let server = server_of(2);
    let (client, _) = server.session(1);
    server.wait_for_handlers(1);
    drop(client);
    server.wait_for_handlers(0);
}

#[test]
fn whole_frames_before_a_half_close_are_answered() {
    let server = server_of(2);
    let all = bets(1, 0..400);
    let (mut client, _) = server.session(1);
    for (index, batch) in all.chunks(100).enumerate() {
        client.send_bets(100 * index as u64, batch);
    }
    client.half_close();
    for _ in 0..4 {
        assert_eq!(client.read_frame().0, kind::SESSION_STORED);
    }
    client.expect_eof();
    assert!(server.bets_file() == rows(&all));
}

#[test]
fn what_has_no_place_in_a_session_is_refused_and_ends_it() {
    let server = server_of(2);
    let bet = bets(1, 0..1)[0].record();
    let too_long = [&[kind::SESSION_BETS], &((1_u32 << 20) + 1).to_be_bytes()[..]].concat();
    for bad in [
        open_frame(1, 1),
        frame(kind::BET, &bet),
        frame(kind::MULTIPLE_BETS, &bet),
        frame(kind::SESSION_STORED, &[0; 8]),
        frame(0x10, b""),
        frame(0xFF, b""),
        too_long,
    ] {
        let (mut client, _) = server.session(1);
        client.send(&bad);
        client.expect_error();
        client.expect_closed();
    }
    assert_eq!(server.bets_file(), b"");
}

#[test]
fn frames_before_one_that_ends_the_session_are_answered() {
    let server = server_of(2);
    let (mut client, _) = server.session(1);
    client.send(&[bets_frame(0, &bets(1, 0..3)), frame(0x55, b"")].concat());
    client.expect_stored(3);
    client.expect_error();
    client.expect_eof();
}

#[test]
fn two_sessions_of_one_agency_store_nothing_twice() {
    let server = server_of(2);
    let all = bets(1, 0..2000);
    std::thread::scope(|scope| {
        // Cut differently, so that they overlap.
        for batch in [70, 90] {
            let (all, port) = (&all, server.port());
            scope.spawn(move || common::upload(port, 1, all, batch, &0.into()));
        }
    });
    assert!(server.bets_file() == rows(&all));
}

#[test]
fn a_client_that_comes_back_goes_on_from_stored() {
    let server = server_of(2);
    let all = bets(1, 0..30);
    for first in [0, 10, 20] {
        let (mut client, opened) = server.session(1);
        assert_eq!(opened.stored, first);
        let first = usize::try_from(first).unwrap();
        client.store(opened.stored, &all[first..first + 10]);
    }
    assert_eq!(server.bets_file(), rows(&all));
}

#[test]
fn bets_of_classic_messages_count_in_the_agencys_stream() {
    let server = server_of(2);
    let all = bets(1, 0..4);
    server.connect().classic(kind::MULTIPLE_BETS, &records(&all[..2]), kind::BET_ACK, b"OK");
    let (mut client, opened) = server.session(1);
    assert_eq!(opened.stored, 2);
    client.send_bets(0, &all);
    client.expect_stored(4);
    assert_eq!(server.bets_file(), rows(&all));
}

#[test]
fn a_session_in_mid_frame_that_closes_stores_nothing_of_it() {
    let server = server_of(2);
    let (mut client, _) = server.session(1);
    client.store(0, &bets(1, 0..2));
    let whole = bets_frame(2, &bets(1, 2..2000));
    client.send(&whole[..whole.len() - 1]);
    drop(client);
    server.wait_for_handlers(0);
    assert_eq!(server.bets_file(), rows(&bets(1, 0..2)));
}

#[test]
fn idle_and_awaiting_sessions_stay_open_beyond_the_client_timeout() {
    let server = Setup::new().with("CLIENTS_AMOUNT", 2).with("CLIENT_TIMEOUT", 0.3).start();
    let (mut idle, _) = server.session(1);
    let (mut awaiting, _) = server.session(2);
    awaiting.send_frame(kind::AWAIT_RESULT, b"");
    awaiting.expect_silence(Duration::from_secs(1));
    idle.store(0, &[winner(1, "1")]);
    idle.end_agency();
    server.connect().classic_end(2);
    awaiting.expect(kind::RESULT, b"");
}

#[test]
fn a_result_of_many_pages_is_exact() {
    let server = server_of(2);
    let documents: Vec<String> = (0..3000).map(|index| format!("{}", 10_000_000 + index * 7)).collect();
    let all: Vec<Bet> = documents.iter().map(|document| winner(1, document)).collect();
    let (mut client, _) = server.session(1);
    for (index, batch) in all.chunks(500).enumerate() {
        client.store(500 * index as u64, batch);
    }
    client.end_agency();
    let (mut awaiting, _) = server.session(1);
    awaiting.send_frame(kind::AWAIT_RESULT, b"");
    server.connect().classic_end(2);
    let expected = documents.join("\x1e").into_bytes();
    client.send(&frame(kind::RESULT_REQUEST, b"").repeat(5));
    for _ in 0..5 {
        client.expect(kind::RESULT, &expected);
    }
    awaiting.expect(kind::RESULT, &expected);
    server.connect().classic(kind::RESULT_REQUEST, &[1], kind::RESULT, &expected);
}

#[test]
fn a_result_of_hundreds_of_kilobytes_is_exact() {
    let server = server_of(1);
    let documents: Vec<String> = (0..40_000).map(|index| format!("{}", 10_000_000 + index * 7)).collect();
    let all: Vec<Bet> = documents.iter().map(|document| winner(1, document)).collect();
    let (mut client, _) = server.session(1);
    for (index, batch) in all.chunks(10_000).enumerate() {
        client.store(10_000 * index as u64, batch);
    }
    client.end_agency();
    let expected = documents.join("\x1e").into_bytes();
    client.send_frame(kind::AWAIT_RESULT, b"");
    client.expect(kind::RESULT, &expected);
    server.connect().classic(kind::RESULT_REQUEST, &[1], kind::RESULT, &expected);
}

#[test]
fn results_and_bets_in_flight_are_answered_in_the_order_in_which_they_came() {
    let server = server_of(2);
    let (mut client, _) = server.session(1);
    let result = frame(kind::RESULT_REQUEST, b"");
    client.send(&result.repeat(50));
    for _ in 0..50 {
        client.expect(kind::IN_PROGRESS, b"");
    }
    let mut frames = Vec::new();
    for index in 0..50 {
        let bet = bets_frame(u64::from(index), &bets(1, index..index + 1));
        frames.extend([&bet[..], &result, &result].concat());
    }
    client.send(&frames);
    for _ in 0..50 {
        assert_eq!(client.read_frame().0, kind::SESSION_STORED);
        client.expect(kind::IN_PROGRESS, b"");
        client.expect(kind::IN_PROGRESS, b"");
    }
    assert_eq!(server.bets_file(), rows(&bets(1, 0..50)));
}

#[test]
fn an_empty_document_wins_as_any_other() {
    let server = server_of(1);
    let (mut client, _) = server.session(1);
    client.store(0, &["", "", "x", ""].map(|document| winner(1, document)));
    client.end_agency();
    client.send_frame(kind::RESULT_REQUEST, b"");
    client.expect(kind::RESULT, b"\x1e\x1ex\x1e");
}

#[test]
fn a_document_longer_than_a_page_wins_too() {
    let server = server_of(1);
    let documents = ["9".repeat(50_000), String::new(), "8".repeat(4096), "ñ".repeat(2047)];
    let (mut client, _) = server.session(1);
    client.store(0, &documents.each_ref().map(|document| winner(1, document)));
    client.end_agency();
    client.send_frame(kind::AWAIT_RESULT, b"");
    client.expect(kind::RESULT, documents.join("\x1e").as_bytes());
}

#[test]
fn agencies_above_255_take_part() {
    let server = server_of(300);
    let (mut client, opened) = server.session(300);
    assert_eq!(opened.agency, 300);
    client.store(0, &[winner(300, "9")]);
    // 300 in one byte is another agency.
    client.send_frame(kind::END, &[44]);
    client.expect_error();
    client.end_agency();
    client.send_frame(kind::AWAIT_RESULT, b"");
    for agency in 1..300 {
        let mut other = server.connect();
        other.send(&[open_frame(1, agency), frame(kind::END, b"")].concat());
        assert_eq!(other.read_frame().0, kind::SESSION_OPENED);
        other.expect(kind::BET_ACK, b"OK");
    }
    client.expect(kind::RESULT, b"9");
    server.connect().classic(kind::RESULT_REQUEST, &[44], kind::RESULT, b"");
}

#[test]
fn at_level_info_a_session_does_not_log_each_batch() {
    let server = Setup::new().with("LOGGING_LEVEL", "INFO").with("CLIENTS_AMOUNT", 2).start();
    let (mut client, _) = server.session(1);
    let all = bets(1, 0..200);
    for (index, bet) in all.chunks(1).enumerate() {
        client.store(index as u64, bet);
    }
    client.end_agency();
    drop(client);
    server.wait_for_handlers(0);
    until("few lines tell of the session", || {
        let lines = server.log().lines().count();
        (3..30).contains(&lines)
    });
    assert!(server.log().lines_of("DEBUG").is_empty());
}

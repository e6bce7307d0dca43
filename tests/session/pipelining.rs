//! Many messages in flight in one session: each is answered, in order, even if those before it are refused.

use common::client::bets_frame;
use common::{Bet, bets, frame, kind, records, rows, server_of};

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
fn a_gap_is_refused_and_so_are_the_batches_in_flight_behind_it() {
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
        frame(kind::SESSION_BETS, b"\0\0\0"),
        frame(kind::SESSION_BETS, &[&[0; 8][..], b"1\x1fa"].concat()),
        frame(kind::SESSION_BETS, &[&[0; 8][..], &records(&good), b"\x1e"].concat()),
    ];
    for bad in bad {
        // The batch behind it would leave a gap.
        client.send(&[bad, bets_frame(2, &good[2..4])].concat());
        client.expect_error();
        client.expect_error();
    }
    client.store(0, &good);
    assert_eq!(server.bets_file(), rows(&good));
}

#[test]
fn results_and_bets_in_flight_are_answered_in_order() {
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
fn no_frame_behind_an_await_is_read_before_the_draw_not_even_the_end_that_the_draw_needs() {
    let server = server_of(1);
    let (mut client, _) = server.session(1);
    client.send(&[frame(kind::AWAIT_RESULT, b""), frame(kind::END, b"")].concat());
    client.expect_silence();
    client.send_frame(kind::RESULT_REQUEST, b"");
    client.expect_silence();
    server.session(1).0.end_agency();
    client.expect(kind::RESULT, b"");
    client.expect(kind::BET_ACK, b"OK");
    client.expect(kind::RESULT, b"");
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
    let mut classic = server.connect();
    classic.send_frame(kind::BET, &all[0].record());
    classic.half_close();
    classic.expect(kind::BET_ACK, b"OK");
    classic.expect_eof();
    assert!(server.bets_file() == rows(&[&all[..], &all[..1]].concat()));
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

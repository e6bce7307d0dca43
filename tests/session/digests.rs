//! Digests: what the server says of the bets that are stored.

use common::{Bet, Opened, Setup, bets, digest_after, digest_of, kind, records, server_of};
use loteria::lottery::Digest;

const PROTOCOL_PAGE: &str = include_str!("../../docs/protocol.md");

/// The lines of the page's test vectors, and the digest that each leads to. They were made with Python's `xxhash`.
fn vectors() -> Vec<(Vec<u8>, u64)> {
    let (_, table) = PROTOCOL_PAGE.split_once("bytes  digest so far     line\n").unwrap();
    let lines = table.lines().take_while(|line| !line.starts_with("```"));
    let vector = |line: &str| {
        let [bytes, digest, text]: [&str; 3] =
            line.trim_start().splitn(3, "  ").map(str::trim).collect::<Vec<_>>().try_into().unwrap();
        let bytes: usize = bytes.parse().unwrap();
        let text = if text == "x…" { "x".repeat(bytes - 2) } else { text.to_owned() };
        let row = (text + "\r\n").into_bytes();
        assert_eq!(row.len(), bytes);
        (row, u64::from_str_radix(digest, 16).unwrap())
    };
    lines.map(vector).collect()
}

#[test]
fn the_digests_of_the_protocol_page_are_those_of_two_implementations() {
    let vectors = vectors();
    let lengths: Vec<usize> = vectors.iter().map(|(row, _)| row.len()).collect();
    assert!(lengths.ends_with(&[16, 17, 128, 129, 240, 241, 1000]), "{lengths:?}");
    let (mut own, mut other) = (Digest::default(), 0);
    for (row, digest) in vectors {
        own = own.with_row(&row);
        other = digest_after(other, &row);
        assert_eq!((own.0, other), (digest.to_be_bytes(), digest), "{} bytes", row.len());
    }
}

#[test]
fn version_2_tells_the_digest_of_the_bets_at_opening_and_with_each_acknowledgement() {
    let setup = Setup::of(2);
    let server = setup.start();
    let mut client = server.connect();
    let opened = Opened { agency: 1, stored: 0, state: 0, max_payload: 1 << 16 };
    assert_eq!(client.open_session_2(1), (opened, 0));
    let all = bets(1, 0..20);
    client.send_bets(0, &all[..5]);
    client.expect_bets(&all[..5]);
    // Bets that are stored already, in part or all.
    client.send_bets(3, &all[3..12]);
    client.expect_bets(&all[..12]);
    client.send_bets(0, &all[..2]);
    client.expect_bets(&all[..12]);
    // Bets that are refused.
    client.send_bets(12, &[all[12].clone(), Bet::made_up(2, 0)]);
    client.expect_error();
    client.send_bets(12, &all[12..13]);
    client.expect_bets(&all[..13]);
    drop(client);
    drop(server);
    let server = setup.start();
    let (opened, digest) = server.connect().open_session_2(1);
    assert_eq!((opened.stored, digest), (13, digest_of(&all[..13])));
}

#[test]
fn each_acknowledgement_is_of_the_moment_when_its_frame_was_decided() {
    let server = server_of(1);
    let (mut client, mut other) = (server.connect(), server.connect());
    client.open_session_2(1);
    other.open_session_2(1);
    let all = bets(1, 0..500);
    // Decided together, and yet each has the digest of its own end.
    let frames = (0..).zip(all.chunks(20)).map(|(place, bets)| common::client::bets_frame(20 * place, bets));
    client.send(&frames.flatten().collect::<Vec<_>>());
    for end in (20..=500).step_by(20) {
        client.expect_bets(&all[..end]);
    }
    other.send_bets(0, &all[..1]);
    other.expect_bets(&all);
}

#[test]
fn the_bets_of_one_message_count_for_each_of_its_agencies() {
    let server = server_of(3);
    let (mine, other) = (bets(1, 0..6), bets(3, 0..3));
    let mixed = [&mine[..2], &other[..1], &mine[2..3], &other[1..], &mine[3..]].concat();
    server.connect().classic(kind::MULTIPLE_BETS, &records(&mixed), kind::BET_ACK, b"OK");
    for (agency, bets) in [(1, &mine[..]), (2, &[]), (3, &other)] {
        let (opened, digest) = server.connect().open_session_2(agency);
        assert_eq!((opened.stored, digest), (bets.len() as u64, digest_of(bets)));
    }
}

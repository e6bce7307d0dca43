//! Session messages, one by one.
use std::process::Command;

use common::client::{bets_frame, open_frame};
use common::{Opened, Setup, bets, frame, kind, records, rows, server_of, text, until, winner};

#[test]
fn session_opened_has_the_agency_the_state_and_the_longest_payload() {
    let server = Setup::new().with("MAX_PAYLOAD", 7000).start();
    let (_client, opened) = server.session(5);
    assert_eq!(opened, Opened { agency: 5, stored: 0, state: 0, max_payload: 7000 });
}

#[test]
fn a_session_that_cannot_open_is_refused_and_closed() {
    let server = server_of(5);
    for bad in [
        open_frame(0, 1),
        open_frame(3, 1),
        open_frame(1, 0),
        open_frame(2, 6),
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
fn bets_that_are_stored_already_are_skipped_in_batches_of_any_size() {
    let server = server_of(5);
    let all = bets(1, 0..20);
    let (mut client, _) = server.session(1);
    client.store(0, &all[..5]);
    // The same bets again, a part of them, and batches that overlap with them.
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
fn a_batch_of_several_hundred_kilobytes_is_stored_whole() {
    let server = Setup::of(5).with("MAX_PAYLOAD", 1 << 20).start();
    let all = bets(1, 0..14_000);
    let (mut client, _) = server.session(1);
    client.send_bets(0, &all);
    client.expect_stored(14_000);
    assert!(server.bets_file() == rows(&all));
}

#[test]
fn end_and_result_request_name_no_agency_or_the_sessions_own() {
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
fn after_its_end_only_bets_that_are_stored_already_are_acknowledged() {
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
    // The same holds after the draw.
    server.connect().classic_end(2);
    client.send_bets(5, &bets(1, 5..6));
    client.expect_error();
    client.send_bets(0, &bets(1, 0..5));
    client.expect_stored(5);
    assert_eq!(server.bets_file(), rows(&bets(1, 0..5)));
}

#[test]
fn the_state_of_an_agency_is_open_then_ended_then_drawn() {
    let server = server_of(2);
    let (mut first, opened) = server.session(1);
    assert_eq!(opened.state, 0);
    first.store(0, &bets(1, 0..2));
    first.end_agency();
    assert_eq!(server.session(1).1, Opened { agency: 1, stored: 2, state: 1, max_payload: 1 << 16 });
    assert_eq!(server.session(2).1.state, 0);
    server.session(2).0.end_agency();
    assert_eq!(server.session(1).1.state, 2);
    assert_eq!(server.session(2).1.state, 2);
}

#[test]
fn each_action_of_a_session_is_logged_before_its_reply() {
    let server = server_of(2);
    let (mut client, _) = server.session(1);
    client.store(0, &bets(1, 0..3));
    assert_eq!(
        server.log().count("DEBUG", "apuesta_recibida | result: success | agency_id: 1 | cantidad: 3"),
        1
    );
    client.send_bets(9, &bets(1, 0..2));
    client.expect_error();
    let log = server.log();
    let refused =
        log.lines_with("DEBUG    action: apuesta_recibida | result: fail | agency_id: 1 | cantidad: 2 | ");
    assert_eq!(refused.len(), 1, "{}", log.0);
    client.end_agency();
    assert!(server.log().has("end_message | result: success | agency_id: 1"));
    client.send_frame(kind::RESULT_REQUEST, b"");
    client.expect(kind::IN_PROGRESS, b"");
    assert_eq!(server.log().count("DEBUG", "result_request | result: in_progress | agency_id: 1"), 1);
}

#[test]
fn messages_that_no_session_may_send_are_refused_and_end_it() {
    let server = server_of(2);
    let bet = bets(1, 0..1)[0].record();
    let too_long = [&[kind::SESSION_BETS], &((1_u32 << 16) + 1).to_be_bytes()[..]].concat();
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
fn two_sessions_of_one_agency_store_nothing_twice() {
    let server = server_of(2);
    let all = bets(1, 0..2000);
    std::thread::scope(|scope| {
        // Batches of different sizes overlap.
        for batch in [70, 90] {
            let (all, port) = (&all, server.port());
            scope.spawn(move || common::upload(port, 1, all, batch, &0.into()));
        }
    });
    assert!(server.bets_file() == rows(&all));
}

#[test]
fn bets_of_classic_messages_count_as_stored_bets_of_a_session() {
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
fn a_session_that_closes_within_a_frame_stores_nothing_of_it() {
    let server = server_of(2);
    let (mut client, _) = server.session(1);
    client.store(0, &bets(1, 0..2));
    let whole = bets_frame(2, &bets(1, 2..1000));
    client.send(&whole[..whole.len() - 1]);
    drop(client);
    server.wait_for_handlers(0);
    assert_eq!(server.bets_file(), rows(&bets(1, 0..2)));
}

#[test]
fn agencies_above_255_take_part() {
    let server = server_of(300);
    let (mut client, opened) = server.session(300);
    assert_eq!(opened.agency, 300);
    client.store(0, &[winner(300, "9")]);
    // The lowest byte of 300 is 44, another agency.
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
    until("the log has few lines", || {
        let lines = server.log().lines().count();
        (3..30).contains(&lines)
    });
    assert!(server.log().lines_of("DEBUG").is_empty());
}

const PROTOCOL_PAGE: &str = include_str!("../../docs/protocol.md");

/// The next code block of this language in the page, and the text after it.
fn code_block<'a>(page: &'a str, language: &str) -> (&'a str, &'a str) {
    let (_, code) = page.split_once(&format!("```{language}\n")).unwrap();
    code.split_once("```").unwrap()
}

/// The bytes of a line such as `> 05 00000000   END`, without its first character.
fn bytes_of(line: &str) -> Vec<u8> {
    let digits = line.trim_start().split("   ").next().unwrap().replace(' ', "");
    let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

#[test]
fn the_bytes_of_the_session_in_the_protocol_page_are_the_servers() {
    let (_, page) = PROTOCOL_PAGE.split_once("A session against a new server").unwrap();
    let mut frames: Vec<(bool, Vec<u8>)> = Vec::new();
    for line in code_block(page, "text").0.lines() {
        match (line.strip_prefix('>'), line.strip_prefix('<')) {
            (Some(sent), _) => frames.push((true, bytes_of(sent))),
            (_, Some(received)) => frames.push((false, bytes_of(received))),
            _ => frames.last_mut().unwrap().1.extend(bytes_of(line)),
        }
    }
    assert_eq!(frames.len(), 8);
    let server = Setup::of(1).with("MAX_PAYLOAD", 65_536).start();
    let mut client = server.connect();
    for (is_sent, bytes) in frames {
        if is_sent {
            client.send(&bytes);
        } else {
            let (kind, payload) = client.read_frame();
            assert_eq!(frame(kind, &payload), bytes);
        }
    }
}

/// Python's `xxhash`, where it is not installed: the system's library without the package.
const XXHASH: &str = "
import ctypes
library = ctypes.CDLL('libxxhash.so.0')
library.XXH3_64bits_withSeed.restype = ctypes.c_uint64
def xxh3_64_intdigest(data, seed):
    return library.XXH3_64bits_withSeed(data, ctypes.c_size_t(len(data)), ctypes.c_uint64(seed))
";

#[test]
fn the_python_example_of_the_protocol_page_prints_what_the_page_shows() {
    let (code, rest) = code_block(PROTOCOL_PAGE, "python");
    let (first, rest) = code_block(rest, "text");
    let (second, _) = code_block(rest, "text");
    let folder = tempfile::tempdir().unwrap();
    let python =
        |code: &str| Command::new("python3").args(["-c", code]).env("PYTHONPATH", folder.path()).output();
    let can_hash = || python("import xxhash").is_ok_and(|output| output.status.success());
    if !can_hash() {
        std::fs::write(folder.path().join("xxhash.py"), XXHASH).unwrap();
        if !can_hash() {
            eprintln!("skipped: python3 is not installed, or has neither xxhash nor libxxhash.so.0");
            return;
        }
    }
    let server = Setup::of(1).with("MAX_PAYLOAD", 65_536).start();
    let code = code.replace("12345", &server.port().to_string());
    for expected in [first, second] {
        let output = python(&code).unwrap();
        assert_eq!((text(&output.stdout), text(&output.stderr)), (expected.to_owned(), String::new()));
    }
    // With another list it stops.
    let output = python(&code.replace("Gil", "Gal")).unwrap();
    assert_eq!(text(&output.stderr), "the 2 stored bets are not the first ones of this list\n");
}

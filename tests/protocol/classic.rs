//! The classic messages: one frame per connection, as the original's client sends them.

use common::client::store_each;
use common::{Bet, Setup, bets, frame, kind, records, rows, status, until};

const OK: &[u8] = b"OK";

fn record(fields: [&str; 6]) -> Vec<u8> {
    fields.join("\x1f").into_bytes()
}

#[test]
fn a_bet_is_stored_logged_and_acknowledged_in_that_order() {
    let server = Setup::new().start();
    let mut client = server.connect();
    client.send_frame(kind::BET, &record(["1", "Santiago", "Lorca", "30904465", "1999-03-17", "2201"]));
    client.expect(kind::BET_ACK, OK);
    let log = server.log();
    assert!(log.has("apuesta_almacenada | result: success | dni: 30904465 | numero: 2201"));
    assert!(log.has("accept_connections | result: success | ip: 127.0.0.1"));
    assert_eq!(server.bets_file(), b"1,Santiago,Lorca,30904465,1999-03-17,2201\r\n");
    client.expect_eof();
}

#[test]
fn a_batch_is_stored_logged_and_acknowledged_in_that_order() {
    let server = Setup::new().start();
    let batch = bets(3, 0..136);
    let mut client = server.connect();
    client.send_frame(kind::MULTIPLE_BETS, &records(&batch));
    client.expect(kind::BET_ACK, OK);
    assert!(server.log().has("apuesta_recibida | result: success | cantidad: 136"));
    assert_eq!(server.bets_file(), rows(&batch));
    client.expect_eof();
}

#[test]
fn a_batch_of_one_is_a_batch() {
    let server = Setup::new().start();
    server.connect().classic(kind::MULTIPLE_BETS, &records(&bets(1, 0..1)), kind::BET_ACK, OK);
    assert!(server.log().has("apuesta_recibida | result: success | cantidad: 1"));
    assert!(server.log().lines_with("apuesta_almacenada").is_empty());
}

#[test]
fn a_batch_of_several_agencies_is_stored_if_all_its_bets_are_good() {
    let server = Setup::new().start();
    let batch = [bets(1, 0..2), bets(5, 0..1), bets(2, 7..9)].concat();
    server.connect().classic(kind::MULTIPLE_BETS, &records(&batch), kind::BET_ACK, OK);
    assert_eq!(server.bets_file(), rows(&batch));
    assert_eq!(status(server.port())["bets"], 5);
}

#[test]
fn a_bet_in_two_messages_is_two_bets() {
    let server = Setup::new().start();
    let twice = [bets(1, 0..1), bets(1, 0..1)].concat();
    store_each(server.port(), &twice);
    assert_eq!(server.bets_file(), rows(&twice));
}

#[test]
fn leading_zeros_of_agency_and_number_do_not_reach_the_file() {
    let server = Setup::new().start();
    let bet = record(["007", "A", "B", "0042", "2000-02-29", "0007"]);
    server.connect().refused(kind::BET, &bet);
    let bet = record(["0005", "A", "B", "0042", "2000-02-29", "0007"]);
    server.connect().classic(kind::BET, &bet, kind::BET_ACK, OK);
    assert_eq!(server.bets_file(), b"5,A,B,0042,2000-02-29,7\r\n");
    assert!(server.log().has("apuesta_almacenada | result: success | dni: 0042 | numero: 7"));
}

#[test]
fn texts_are_quoted_as_by_pythons_csv_writer() {
    let server = Setup::new().start();
    for [first, last, document] in [
        ["", "", ""],
        [" a ", "\u{80}", "ñandú 😀"],
        ["O\"Neil", "\"", "\"\""],
        ["a,b", ",", "x;y"],
        ["a|b", "\u{2028}", "'"],
    ] {
        let bet = record(["1", first, last, document, "2000-01-01", "4294967295"]);
        server.connect().classic(kind::BET, &bet, kind::BET_ACK, OK);
    }
    let expected = "1,,,,2000-01-01,4294967295\r\n\
        1, a ,\u{80},ñandú 😀,2000-01-01,4294967295\r\n\
        1,\"O\"\"Neil\",\"\"\"\",\"\"\"\"\"\",2000-01-01,4294967295\r\n\
        1,\"a,b\",\",\",x;y,2000-01-01,4294967295\r\n\
        1,a|b,\u{2028},',2000-01-01,4294967295\r\n";
    assert_eq!(String::from_utf8(server.bets_file()).unwrap(), expected);
}

#[test]
fn a_text_has_at_most_255_bytes_and_no_control_character() {
    let server = Setup::new().start();
    let (longest, accents) = ("\"".repeat(255), "é".repeat(127));
    let good = ["1", &longest, &accents, &longest, "2000-01-01", "1"];
    server.connect().classic(kind::BET, &record(good), kind::BET_ACK, OK);
    let (mut session, _) = server.session(1);
    let too_long = ["x".repeat(256), "é".repeat(128)];
    let long = too_long.iter().map(|text| (text.as_str(), "must be at most 255 bytes long"));
    let controls = (0..0x20).chain([0x7f]).filter(|byte| !matches!(byte, 0x1e | 0x1f));
    let controls: Vec<String> = controls.map(|byte: u8| format!("a{}", char::from(byte))).collect();
    let control = controls.iter().map(|text| (text.as_str(), "must not hold a control character"));
    for (bad, reason) in long.chain(control) {
        for (index, name) in [(1, "first name"), (2, "last name"), (3, "document")] {
            let mut fields = good;
            fields[index] = bad;
            let expected = format!("bet 1: the {name} {reason}");
            for kind in [kind::BET, kind::MULTIPLE_BETS] {
                let refused = server.connect().refused(kind, &record(fields));
                assert!(refused.starts_with(&expected), "{bad:?}: {refused}");
            }
            session.send_frame(kind::SESSION_BETS, &[&1_u64.to_be_bytes()[..], &record(fields)].concat());
            let refused = session.expect_error();
            assert!(refused.starts_with(&expected), "{bad:?}: {refused}");
        }
    }
    assert_eq!(common::bets::parse_rows(&server.bets_file()).len(), 1);
}

#[test]
fn an_invalid_bet_is_refused() {
    let server = Setup::new().start();
    let good = ["1", "A", "B", "1", "2000-01-01", "1"];
    for (index, bad) in [
        (0, "0"),
        (0, "6"),
        (0, "256"),
        (0, "65537"),
        (0, "4294967297"),
        (0, "-1"),
        (0, "+1"),
        (0, ""),
        (0, " 1"),
        (0, "١"),
        (0, "one"),
        (4, "2001-02-29"),
        (4, "2000-1-1"),
        (4, ""),
        (4, "01-01-2000"),
        (4, "2000-01-01 "),
        (5, ""),
        (5, "-1"),
        (5, "4294967296"),
        (5, "1.0"),
        (5, "1e3"),
        (5, "0x1"),
    ] {
        let mut fields = good;
        fields[index] = bad;
        server.connect().refused(kind::BET, &record(fields));
        server.connect().refused(kind::MULTIPLE_BETS, &record(fields));
    }
    for bad in [
        &b""[..],
        b"\x1e",
        b"1",
        b"1\x1fA\x1fB\x1f1\x1f2000-01-01",
        b"1\x1f\xff\x1fB\x1f1\x1f2000-01-01\x1f1",
    ] {
        server.connect().refused(kind::BET, bad);
        server.connect().refused(kind::MULTIPLE_BETS, bad);
    }
    server.connect().refused(kind::BET, &[&record(good), &b"\x1f1"[..]].concat());
    server.connect().refused(kind::BET, &records(&bets(1, 0..2)));
    assert_eq!(server.bets_file(), b"");
    assert!(server.log().lines_with("result: success | dni").is_empty());
}

#[test]
fn a_batch_with_one_bad_bet_is_refused_whole_and_logged_with_its_size() {
    let server = Setup::new().start();
    let good = records(&bets(1, 0..3));
    let fields = "bet N: a bet has 6 fields: ";
    for (bad, reason) in [
        (&record(["6", "A", "B", "1", "2000-01-01", "1"])[..], "no such agency"),
        (&record(["1", "A", "B", "1", "2000-13-01", "1"]), "bet N: the birthdate must be"),
        (&record(["1", "A", "B", "1", "2000-01-01", "1a"]), "bet N: the number must be"),
        (&record(["1", "A", "B", "1", "2000-01-01", "1\x1f"]), fields),
        (b"", fields),
        (b"1\x1f2", fields),
    ] {
        for (payload, place) in [([&good[..], bad], "4"), ([bad, &good[..]], "1")] {
            let refused = server.connect().refused(kind::MULTIPLE_BETS, &payload.join(&0x1e));
            assert!(refused.starts_with(&reason.replace('N', place)), "{refused}");
        }
    }
    let log = server.log();
    let lines = log.lines_with("action: apuesta_recibida | result: fail | cantidad: 4 | ");
    assert_eq!(lines.len(), 12, "{lines:?}");
    assert_eq!(server.bets_file(), b"");
}

#[test]
fn an_empty_batch_is_refused_and_logged_with_size_0() {
    let server = Setup::new().start();
    server.connect().refused(kind::MULTIPLE_BETS, b"");
    assert_eq!(server.log().lines_with("apuesta_recibida | result: fail | cantidad: 0 | ").len(), 1);
}

#[test]
fn a_payload_of_exactly_the_limit_is_accepted_and_one_byte_more_is_refused() {
    let server = Setup::new().with("MAX_PAYLOAD", 4096).start();
    let mut batch = bets(1, 0..85);
    let missing = 4096 - records(&batch).len();
    batch[0].last_name.push_str(&"x".repeat(missing));
    server.connect().classic(kind::MULTIPLE_BETS, &records(&batch), kind::BET_ACK, OK);
    assert_eq!(server.bets_file(), rows(&batch));
    batch[0].last_name.push('x');
    let mut client = server.connect();
    client.send_frame(kind::MULTIPLE_BETS, &records(&batch));
    client.expect_error();
    client.expect_closed();
    assert_eq!(server.bets_file().len(), rows(&batch).len() - 1);
}

#[test]
fn a_length_over_the_limit_is_refused_before_its_payload_comes() {
    let server = Setup::new().start();
    for length in [(1 << 16) + 1, u32::MAX] {
        let mut client = server.connect();
        client.send(&[&[kind::MULTIPLE_BETS], &length.to_be_bytes()[..]].concat());
        client.expect_error();
        client.expect_eof();
    }
}

#[test]
fn types_that_no_client_sends_are_refused() {
    let server = Setup::new().start();
    for kind in [0x00, 0x03, 0x04, 0x07, 0x08, 0x0A, 0x0C, 0x0F, 0x10, 0x7F, 0xFF] {
        let mut client = server.connect();
        client.send_frame(kind, b"");
        client.expect_error();
        client.expect_closed();
    }
}

#[test]
fn messages_of_a_session_are_refused_if_no_session_is_open() {
    let server = Setup::new().start();
    server.connect().refused(kind::AWAIT_RESULT, b"");
    let bets = [&[0; 8][..], &records(&bets(1, 0..1))].concat();
    server.connect().refused(kind::SESSION_BETS, &bets);
    assert_eq!(server.bets_file(), b"");
}

#[test]
fn a_frame_may_arrive_byte_by_byte() {
    let server = Setup::new().start();
    let mut client = server.connect();
    for byte in frame(kind::BET, &bets(1, 0..1)[0].record()) {
        client.send(&[byte]);
    }
    client.expect(kind::BET_ACK, OK);
    client.expect_eof();
}

#[test]
fn a_half_frame_before_a_half_close_is_dropped() {
    let server = Setup::new().start();
    let whole = frame(kind::BET, &bets(1, 0..1)[0].record());
    for cut in [0, 1, 4, 5, whole.len() - 1] {
        let mut client = server.connect();
        client.send(&whole[..cut]);
        client.half_close();
        // The server may send an ERROR, but nothing else.
        if let Ok((got, _)) = client.try_read_frame() {
            assert_eq!(got, kind::ERROR);
        }
        client.expect_eof();
    }
    assert_eq!(server.bets_file(), b"");
}

#[test]
fn a_second_message_on_a_classic_connection_is_not_read() {
    let server = Setup::new().start();
    let [first, second] = [0, 1].map(|index| frame(kind::BET, &Bet::made_up(1, index).record()));
    let mut client = server.connect();
    client.send(&[first, second].concat());
    client.expect(kind::BET_ACK, OK);
    client.expect_closed();
    assert_eq!(server.bets_file(), rows(&bets(1, 0..1)));
}

#[test]
fn each_connection_is_logged_even_if_it_sends_nothing_or_nonsense() {
    let server = Setup::new().start();
    drop(server.connect());
    let accepted = "accept_connections | result: success | ip: 127.0.0.1";
    until("the silent client is logged", || server.log().has(accepted));
    let mut client = server.connect();
    client.send(b"\x10");
    client.expect_error();
    let log = server.log();
    assert_eq!(log.count("INFO", accepted), 2);
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines.last().unwrap().contains("action: protocol | result: fail"), "{}", log.0);
}

//! The files that a server accepts at its start, and those that it refuses and does not change.

use common::{Bet, Setup, bets, kind, rows, server_of, winner};

/// A bet whose texts all need quotes.
fn quoted() -> Bet {
    Bet {
        first_name: "a,b".to_owned(),
        last_name: "c,\"d\"".to_owned(),
        document: "\"".to_owned(),
        ..Bet::made_up(1, 3)
    }
}

#[test]
fn a_file_that_the_original_wrote_is_accepted_unchanged() {
    let file = "1,Santiago Lionel,Lorca,30904465,1999-03-17,7574\r\n\
        2,\"Pérez, hija\",\"O\"\"Neil\",30,1980-01-01,7574\r\n\
        1,Ana,Paz,5,2000-02-29,1\r\n\
        1,Eva,Gil,6,2000-02-29,7574\r\n";
    let server = Setup::of(2).write("bets.csv", file).start();
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
fn a_torn_last_row_is_cut() {
    let whole = rows(&bets(1, 0..3));
    let last = rows(&[quoted()]);
    // A test on the simulated disk stops after each byte.
    for cut in [1, last.len() / 2, last.len() - 2, last.len() - 1] {
        let file = [&whole, &last[..cut]].concat();
        let server = Setup::of(2).write("bets.csv", &file).start();
        assert_eq!(server.bets_file(), whole, "cut after {cut} bytes");
        let (mut client, opened) = server.session(1);
        assert_eq!(opened.stored, 3, "cut after {cut} bytes");
        client.store(3, &[quoted()]);
        assert_eq!(server.bets_file(), [&whole[..], &last].concat());
    }
}

#[test]
fn a_torn_only_row_is_cut() {
    let server = Setup::of(2).write("bets.csv", "1,Ana,\"Paz").start();
    assert_eq!(server.bets_file(), b"");
    assert_eq!(server.session(1).1.stored, 0);
}

#[test]
fn a_damaged_row_in_the_middle_is_refused_and_the_file_is_not_changed() {
    let [good, other] = [rows(&bets(1, 0..2)), rows(&bets(2, 0..2))];
    for damaged in [
        &b"1,a,b,c,2000-01-01\r\n"[..],
        b"1,a,b,c,2000-01-01,7,8\r\n",
        b"1,a,b,c,2000-01-01,7\n",
        b"1,a,b,c,2000-13-01,7\r\n",
        b"x,a,b,c,2000-01-01,7\r\n",
        b"1,a,b,c,2000-01-01,\r\n",
        b"1,a,b\"c,d,2000-01-01,7\r\n",
        b"1,\"a,b,c,2000-01-01,7\r\n",
        b"1,\xff,b,c,2000-01-01,7\r\n",
        b"1,a\0\0\r\n",
        b"\r\n",
    ] {
        let file = [&good, damaged, &other].concat();
        let setup = Setup::of(2).write("bets.csv", &file);
        let ended = setup.run();
        assert_eq!(ended.code, Some(1), "{}", String::from_utf8_lossy(damaged));
        let line = ended.failure();
        assert!(line.contains(" | line: 3"), "{line}");
        ended.log.assert_well_formed();
        assert!(setup.bets_file() == file);
    }
}

#[test]
fn a_damaged_state_file_is_refused_and_not_changed() {
    let mut server = server_of(2);
    server.connect().classic_end(1);
    server.terminate();
    let unknown = r#"{"version":1,"ended":[1],"draw":null,"writing":{"from":0,"to":1}}"#;
    let without_draw = DRAWN.replace("draw", "eraw");
    for damaged in ["", "{", "[]", "{\"version\": 999}", unknown, &without_draw] {
        let setup = server.setup().write("bets.csv.state", damaged);
        let ended = setup.run();
        assert_eq!(ended.code, Some(1), "{damaged:?}");
        let line = ended.failure();
        let remedy = if damaged.contains("999") {
            ": start a newer one; "
        } else {
            "; restore both files from one backup; "
        };
        assert!(line.contains("bets.csv.state") && line.contains(remedy), "{line}");
        assert_eq!(std::fs::read_to_string(setup.path("bets.csv.state")).unwrap(), damaged);
    }
}

#[test]
fn after_the_draw_a_torn_row_is_refused_because_it_was_stored() {
    let mut server = server_of(1);
    server.session(1).0.store(0, &bets(1, 0..3));
    server.connect().classic_end(1);
    server.terminate();
    let file = server.bets_file();
    let torn = &file[..file.len() - 3];
    let setup = server.setup().write("bets.csv", torn);
    let ended = setup.run();
    assert_eq!(ended.code, Some(1));
    let line = ended.failure();
    assert!(line.contains(" | line: 3 | error: the row is not whole, but the draw has been made"), "{line}");
    assert_eq!(setup.bets_file(), torn);
}

/// The state after a draw of agencies 1 and 2.
const DRAWN: &str = r#"{"version":1,"ended":[1,2],"draw":{"at":"2026-03-01T20:15:00-03:00","agencies":2,"winning_number":7}}"#;

#[test]
fn a_missing_bets_file_with_a_state_file_is_refused() {
    let setup = Setup::new().write("bets.csv.state", DRAWN);
    let ended = setup.run();
    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .failure()
            .contains("it is not there, but its state file is; put it back, or restore both files"),
        "{}",
        ended.log.0
    );
    assert!(!setup.bets_path().exists());
}

#[test]
fn bets_without_a_state_file_are_accepted_with_a_warning_that_says_what_is_forgotten() {
    let mut server = server_of(2);
    assert!(server.log().lines_of("WARNING").is_empty(), "a new contest");
    server.session(1).0.store(0, &bets(1, 0..3));
    server.connect().classic_end(1);
    server.terminate();
    std::fs::remove_file(server.setup().path("bets.csv.state")).unwrap();
    let mut again = server.setup().start();
    let log = again.log();
    let [warning] = log.lines_of("WARNING")[..] else { panic!("{}", log.0) };
    let said = "WARNING  action: state_missing | result: success | file: ./bets.csv.state | reason: there are bets, but no \
                ENDs and no draw are known; if the bets were copied here this is right, else stop the server and restore";
    assert!(warning.starts_with(said), "{warning}");
    assert_eq!(again.session(1).1.state, 0);
    again.terminate();
    assert!(again.setup().start().log().lines_of("WARNING").is_empty(), "the state file is there again");
}

#[test]
fn a_state_file_that_contradicts_itself_or_the_bets_is_refused_and_not_changed() {
    for (state, reason) in [
        (DRAWN.replace("[1,2]", "[2]"), "it has a draw, but no END of these agencies: 1"),
        (DRAWN.replace("[1,2]", "[1,2,1]"), "it has several ENDs of these agencies: 1"),
    ] {
        let setup = Setup::new().write("bets.csv", rows(&bets(1, 0..3))).write("bets.csv.state", &state);
        let ended = setup.run();
        assert_eq!(ended.code, Some(1));
        let line = ended.failure();
        assert!(line.contains("bets.csv.state") && line.contains(reason), "{line}");
        assert_eq!(std::fs::read_to_string(setup.path("bets.csv.state")).unwrap(), state);
    }
}

#[test]
fn bets_of_an_agency_outside_the_draw_are_refused_whatever_is_configured() {
    let setup = Setup::new().write("bets.csv", rows(&bets(9, 0..1))).write("bets.csv.state", DRAWN);
    let ended = setup.with("CLIENTS_AMOUNT", 9).run();
    assert_eq!(ended.code, Some(1));
    let line = ended.failure();
    assert!(line.contains("the draw was made of the agencies 1 to 2, but agency 9 has bets"), "{line}");
}

#[test]
fn a_row_with_an_invalid_text_is_refused_with_its_line_and_what_to_do() {
    let long = "x".repeat(256);
    for (text, reason) in [
        ("a\0b", "the line has zero bytes"),
        ("a\tb", "the first name must not hold a control character"),
        ("a\rb", "the first name must not hold a control character"),
        ("12\x1e34", "the first name must not hold a control character"),
        ("a\x7fb", "the first name must not hold a control character"),
        (&long, "the first name must be at most 255 bytes long"),
        ("\"a\r\nb\"", "a quote that opens in this line is not closed in it"),
        ("A\"na", "only a field that holds a comma or a quote is in quotes"),
    ] {
        let file = format!("2,A,B,1,1999-03-17,7\r\n1,{text},Paz,1,1999-03-17,7\r\n");
        let setup = Setup::new().write("bets.csv", &file);
        let ended = setup.run();
        assert_eq!(ended.code, Some(1), "{text:?}");
        let line = ended.failure();
        assert!(line.contains(" | line: 2") && line.contains(reason), "{text:?}: {line}");
        let remedy = "; restore both files from one backup; take the line out only if you accept that an acknowledged bet";
        assert!(line.contains(remedy), "{line}");
        assert_eq!(setup.bets_file(), file.as_bytes());
    }
}

#[test]
fn a_stray_quote_at_the_start_of_a_long_file_is_named_in_little_memory() {
    let setup = Setup::new().write("bets.csv", "1,\"Ana,Paz,5,2000-02-29,1\r\n").with_limit("v", 256 * 1024);
    let bets = std::fs::File::options().write(true).open(setup.bets_path()).unwrap();
    bets.set_len(1_500_000_000).unwrap();
    let ended = setup.run();
    assert_eq!(ended.code, Some(1));
    assert!(ended.failure().contains(" | line: 1 | error: a quote"), "{}", ended.log.0);
}

#[test]
fn a_second_server_on_the_same_file_is_refused_and_names_the_holder() {
    let server = server_of(2);
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

//! The draw is sealed: afterwards the server takes no other bets than those that the draw was made of.

use std::fs;
use std::process::Command;

use common::{Setup, bets, digest_of, kind, output, rows, server_of, status, text, winner};
use serde_json::json;

/// A contest of two agencies, drawn, and its file of bets.
fn drawn() -> (Setup, Vec<u8>) {
    let mut server = server_of(2);
    server.session(1).0.store(0, &[bets(1, 0..3), vec![winner(1, "11")]].concat());
    server.session(2).0.store(0, &bets(2, 0..4));
    for agency in [1, 2] {
        server.session(agency).0.end_agency();
    }
    server.terminate();
    (server.setup(), server.bets_file())
}

#[track_caller]
fn refused(setup: &Setup, reasons: &[&str]) {
    let before = setup.bets_file();
    let state = fs::read(setup.path("bets.csv.state")).unwrap();
    let ended = setup.run();
    assert_eq!(ended.code, Some(1));
    let line = ended.failure();
    assert!(reasons.iter().all(|reason| line.contains(reason)), "{line}");
    assert_eq!(setup.bets_file(), before);
    assert_eq!(fs::read(setup.path("bets.csv.state")).unwrap(), state);
}

#[test]
fn the_seal_is_what_sha256sum_says_in_the_state_file_the_log_and_the_status() {
    let server = server_of(1);
    server.session(1).0.store(0, &[winner(1, "11"), winner(1, "12")]);
    server.session(1).0.end_agency();
    let hash = text(&output(Command::new("sha256sum").arg(server.setup().bets_path())).stdout);
    let hash = hash.split(' ').next().unwrap();
    let bytes = server.bets_file().len();
    let seal = json!({"bets": 2, "bytes": bytes, "sha256": hash});
    assert_eq!(server.setup().state()["draw"]["seal"], seal);
    assert_eq!(status(server.port())["draw"]["seal"], seal);
    let log = server.log();
    assert_eq!(log.value("sorteo", "sha256").as_deref(), Some(hash));
    assert_eq!(log.value("sorteo", "bytes"), Some(bytes.to_string()));
    assert_eq!(log.value("sorteo", "bets").as_deref(), Some("2"));
}

#[test]
fn after_the_draw_a_file_of_other_bets_is_refused_with_both_counts_and_hashes() {
    let (setup, file) = drawn();
    let seal = setup.state()["draw"]["seal"]["sha256"].as_str().unwrap().to_owned();
    let first = rows(&bets(1, 0..1)).len();
    let changed = String::from_utf8(file.clone()).unwrap().replacen(",11,", ",12,", 1);
    for (other, count) in [
        (file[first..].to_vec(), "it has 7 bets"),
        (file[..file.len() - rows(&bets(2, 3..4)).len()].to_vec(), "it has 7 bets"),
        ([&file[..], &rows(&bets(1, 3..4))].concat(), "it has 9 bets"),
        (changed.into_bytes(), "it has 8 bets"),
        (Vec::new(), "it has 0 bets"),
    ] {
        let setup = setup.clone().write("bets.csv", other);
        let of_the_draw = format!("the draw was made of 8 bets, {} bytes, SHA-256 {seal}", file.len());
        refused(&setup, &["this is not the file of the draw", count, &of_the_draw]);
    }
    let server = setup.write("bets.csv", file).start();
    server.connect().classic(kind::RESULT_REQUEST, &[1], kind::RESULT, b"11");
}

#[test]
fn after_the_draw_a_flipped_bit_is_refused() {
    let (setup, file) = drawn();
    // A test on the simulated disk flips each bit.
    let step = file.len() * 8 / 8;
    for bit in (0..file.len() * 8).step_by(step) {
        let mut other = file.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        refused(&setup.clone().write("bets.csv", other), &[]);
    }
}

#[test]
fn before_the_draw_a_backup_that_lacks_bets_of_an_ended_agency_is_refused() {
    let mut server = server_of(2);
    let (mut client, _) = server.session(1);
    client.store(0, &bets(1, 0..3));
    let backup = server.bets_file();
    client.store(3, &bets(1, 3..5));
    client.end_agency();
    server.terminate();
    let (setup, file) = (server.setup(), server.bets_file());
    let [all, restored] =
        [5, 3].map(|count| format!("{count} bets (digest {:016x})", digest_of(&bets(1, 0..count))));
    let reason = format!("agency 1 ended with {all}, but has {restored}");
    refused(&setup.clone().write("bets.csv", backup), &[&reason, "restore both files from one backup"]);
    let mut other = bets(1, 0..5);
    other.swap(0, 1);
    refused(
        &setup.clone().write("bets.csv", rows(&other)),
        &[
            "agency 1 ended with 5 bets",
            "but has 5 bets",
            "; a spreadsheet, for instance, drops leading zeros",
        ],
    );
    assert_eq!(setup.write("bets.csv", file).start().session(1).1.stored, 5);
}

#[test]
fn a_state_file_of_version_1_is_read_and_upgraded_by_the_next_end() {
    let old = r#"{"version":1,"ended":[2],"draw":null}"#;
    let setup = Setup::of(2).write("bets.csv", rows(&bets(2, 0..3))).write("bets.csv.state", old);
    let mut server = setup.start();
    server.connect().refused(kind::BET, &winner(2, "21").record());
    server.terminate();
    assert_eq!(fs::read_to_string(setup.path("bets.csv.state")).unwrap(), old);
    let server = setup.start();
    server.session(1).0.store(0, &[winner(1, "11")]);
    server.session(1).0.end_agency();
    let state = setup.state();
    assert_eq!(state["version"], 2);
    let digest = |bets: &[_]| format!("{:016x}", digest_of(bets));
    let ended = json!([
        {"agency": 1, "bets": 1, "digest": digest(&[winner(1, "11")])},
        {"agency": 2, "bets": 3, "digest": digest(&bets(2, 0..3))},
    ]);
    assert_eq!(state["ended"], ended);
    assert_eq!(state["draw"]["seal"]["bets"], 4);
}

#[test]
fn a_draw_of_version_1_has_no_seal_and_is_accepted() {
    let old = r#"{"version":1,"ended":[1],"draw":{"at":"2026-03-01T20:15:00-03:00","agencies":1,"winning_number":7574}}"#;
    let setup = Setup::of(1).write("bets.csv", rows(&[winner(1, "11")])).write("bets.csv.state", old);
    let server = setup.start();
    server.connect().classic(kind::RESULT_REQUEST, &[1], kind::RESULT, b"11");
    assert!(status(server.port())["draw"]["seal"].is_null());
}

//! The seal of the draw, and the digests of ended agencies: whether the file of bets is still the same.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use common::{Bet, Setup, bets, kind, loteria, output, rows, status, text, until, winner};
use proptest::prelude::*;
use serde_json::Value;

use crate::audit::{Audit, audit};

/// The bets of two agencies.
fn contest() -> Vec<Bet> {
    let mut all = bets(1, 0..10);
    all.extend(bets(2, 0..8));
    all.push(winner(2, "20"));
    all
}

/// The files of a contest of two agencies. Of these, so many have ended.
fn contest_with_ends(ends: u8) -> Setup {
    let mut server = Setup::of(2).start();
    server.connect().classic(kind::MULTIPLE_BETS, &common::records(&contest()), kind::BET_ACK, b"OK");
    (1..=ends).for_each(|agency| server.connect().classic_end(agency));
    let setup = server.setup();
    until("the ENDs are stored", || ended(&server) == u64::from(ends));
    server.terminate();
    setup
}

fn ended(server: &common::RunningServer) -> u64 {
    status(server.port())["ended"].as_u64().unwrap()
}

/// What `sha256sum` prints for this file.
fn sha256sum(path: &Path) -> String {
    let output = output(Command::new("sha256sum").arg(path));
    text(&output.stdout).split_whitespace().next().expect("a hash").to_owned()
}

/// The seal of a file that has so many bets, as a person sees it.
fn seal_of(path: &Path, bets: u64) -> String {
    let bytes = fs::metadata(path).unwrap().len();
    let noun = if bets == 1 { "bet" } else { "bets" };
    format!("{bets} {noun}, {bytes} bytes, SHA-256 {}", sha256sum(path))
}

fn both(setup: &Setup) -> [Audit; 2] {
    ["check", "winners"].map(|command| audit(setup, &[command]))
}

fn both_are_good(setup: &Setup) {
    for audit in both(setup) {
        audit.good();
    }
}

#[test]
fn after_the_draw_the_seal_is_that_of_sha256sum_everywhere() {
    let server = Setup::of(1).start();
    let (mut session, _) = server.session(1);
    session.store(0, &[bets(1, 0..9), vec![winner(1, "7")]].concat());
    let ask = |format: &str| {
        let output = output(&mut loteria(&["status", "--address", &server.address(), format]));
        text(&output.stdout)
    };
    assert!(!ask("--prometheus").contains("seal"));
    session.end_agency();
    let path = server.setup().bets_path();
    let (seal, hash) = (seal_of(&path, 10), sha256sum(&path));
    let bytes = fs::metadata(&path).unwrap().len();
    let expected = serde_json::json!({"bets": 10, "bytes": bytes, "sha256": hash});
    assert_eq!(status(server.port())["draw"]["seal"], expected);
    let state: Value =
        serde_json::from_slice(&fs::read(server.setup().path("bets.csv.state")).unwrap()).unwrap();
    assert_eq!(state["draw"]["seal"], expected);
    let metric = format!("loteria_seal_info{{bets=\"10\",bytes=\"{bytes}\",sha256=\"{hash}\"}} 1\n");
    assert!(ask("--prometheus").contains(&metric), "{metric}");
    let table = output(&mut loteria(&["status", "--address", &server.address()]));
    assert!(text(&table.stdout).contains(&format!("\nseal              {seal}\n")), "{table:?}");
    for audit in both(&server.setup()) {
        assert!(audit.good().contains(&format!("./bets.csv: the file of the draw: {seal}\n")));
    }
}

#[test]
fn after_the_draw_any_other_file_is_an_error_with_both_seals() {
    let setup = contest_with_ends(2);
    let path = setup.bets_path();
    let sealed = seal_of(&path, 19);
    let mut swapped = contest();
    swapped.swap(0, 1);
    let mut changed = contest();
    changed[3].number = 1;
    for (other, count) in [
        (contest()[1..].to_vec(), 18),
        ([contest(), bets(1, 20..21)].concat(), 20),
        (swapped, 19),
        (changed, 19),
        (Vec::new(), 0),
    ] {
        fs::write(&path, rows(&other)).unwrap();
        let found = seal_of(&path, count);
        let error = format!(
            "./bets.csv: error: this is not the file of the draw: it has {found}, but the draw was made of {sealed}\n"
        );
        for audit in both(&setup) {
            assert_eq!(audit.code, Some(1), "{audit:?}");
            assert!(
                audit.out.contains(&error) && !audit.out.contains(": the file of the draw: "),
                "{audit:?}"
            );
        }
    }
    fs::write(&path, rows(&contest())).unwrap();
    both_are_good(&setup);
}

#[test]
fn after_the_draw_a_flipped_bit_is_an_error() {
    let setup = contest_with_ends(2);
    let file = rows(&contest());
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) };
    proptest!(config, |(place in 0..file.len(), bit in 0..8)| {
        let mut other = file.clone();
        other[place] ^= 1_u8 << bit;
        fs::write(setup.bets_path(), &other).unwrap();
        for audit in both(&setup) {
            prop_assert!(audit.code == Some(1) && audit.out.contains("this is not the file of the draw"), "{audit:?}");
        }
    });
}

#[test]
fn a_draw_without_a_seal_is_a_notice() {
    let drawn = r#"{"version":1,"ended":[1,2],"draw":{"at":"2026-03-01T20:15:00-03:00","agencies":2,"winning_number":7574}}"#;
    let setup = Setup::new().write("bets.csv", rows(&contest())).write("bets.csv.state", drawn);
    let notice =
        "./bets.csv.state: notice: the draw has no seal: it cannot be told whether bets are missing\n";
    for audit in both(&setup) {
        assert!(audit.out.contains(notice), "{audit:?}");
        audit.good();
    }
}

#[test]
fn before_the_draw_an_ended_agency_must_have_the_bets_with_which_it_ended() {
    let setup = contest_with_ends(1);
    both_are_good(&setup);
    let others = [contest(), bets(2, 20..25)].concat();
    fs::write(setup.bets_path(), rows(&others)).unwrap();
    both_are_good(&setup);
    let mut swapped = contest();
    swapped.swap(0, 1);
    for (other, count) in
        [(contest()[1..].to_vec(), 9), ([contest(), bets(1, 20..21)].concat(), 11), (swapped, 10)]
    {
        fs::write(setup.bets_path(), rows(&other)).unwrap();
        for audit in both(&setup) {
            assert_eq!(audit.code, Some(1), "{audit:?}");
            let error = audit.out.lines().find(|line| line.contains(": error: ")).unwrap();
            for part in ["agency 1".to_owned(), "10 bets".to_owned(), format!("{count} bets")] {
                assert!(error.contains(&part), "{part}: {error}");
            }
        }
    }
}

#[test]
fn the_state_file_is_beside_the_file_to_which_a_link_leads() {
    let setup = contest_with_ends(2);
    fs::create_dir(setup.path("elsewhere")).unwrap();
    symlink("../bets.csv", setup.path("elsewhere/link.csv")).unwrap();
    for command in ["check", "winners"] {
        let out = audit(&setup, &[command, "--file", "elsewhere/link.csv"]).good();
        assert!(out.contains("draw of 2 agencies") && out.contains(": the file of the draw: "), "{out}");
    }
}

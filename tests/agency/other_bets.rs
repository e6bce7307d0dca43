//! Bets of somebody else among those of an agency: it compares the stored bets with its file, and stops where they differ.

use std::fs;
use std::path::Path;

use common::agencies::Agency;
use common::stage::{Stage, digest, rows};
use common::{Bet, Client, RunningServer, bets, kind, rows as stored_rows, server_of, text, until};

/// The agency's file with these bets.
fn write_file(folder: &Path, bets: &[Bet]) {
    let rows = text(&stored_rows(bets));
    let without_agency = rows.lines().map(|row| row.split_once(',').unwrap().1);
    fs::write(folder.join("agency-1.csv"), without_agency.collect::<Vec<_>>().join("\n")).unwrap();
}

/// Starts agency 1 with these bets.
fn agency_with(bets: &[Bet], folder: &Path, server: &RunningServer) -> Agency {
    write_file(folder, bets);
    Agency::start(folder, 1, &server.address(), &[("CLI_BATCH_MAXAMOUNT", "10")])
}

/// The end of that line if nothing was sent.
const NOTHING_SENT: &str = "nothing of it was sent. Use the file that this contest began with; for a new contest the \
                            server needs an empty folder or volume for its bets";

/// The line that says that the stored bets are not the file's.
fn refusal(agency: &mut Agency) -> String {
    let line = agency.fail();
    let reason = "error: the stored bets of this agency are not the first ones of ./agency-1.csv: ";
    line.split_once(reason).unwrap_or_else(|| panic!("{line}")).1.to_owned()
}

#[test]
fn a_bet_that_was_stored_before_the_agency_began_is_not_taken_for_its_first_one() {
    let server = server_of(1);
    let folder = tempfile::tempdir().unwrap();
    let stranger = Bet::made_up(1, 77);
    server.connect().classic(kind::BET, &stranger.record(), kind::BET_ACK, b"OK");
    let mut agency = agency_with(&bets(1, 0..30), folder.path(), &server);
    assert_eq!(refusal(&mut agency), format!("bet 1 differs; {NOTHING_SENT}"));
    assert_eq!(server.bets_file(), stored_rows(&[stranger]));
}

#[test]
fn a_stranger_who_stays_ahead_is_noticed_at_the_first_acknowledgement() {
    let server = server_of(1);
    let folder = tempfile::tempdir().unwrap();
    let all = bets(1, 0..50_000);
    let mut stranger = Client::connect(server.port());
    stranger.open_session(1);
    let mut agency = agency_with(&all, folder.path(), &server);
    until("the agency has begun", || !server.bets_file().is_empty());
    // More bets than the agency has in flight, again and again until it notices them.
    let mut stored = 0;
    while agency.try_end().is_none() {
        stranger.send_bets(stored, &bets(1, 100_000..100_800));
        let (got, payload) = stranger.read_frame();
        assert_eq!(got, kind::SESSION_STORED);
        stored = u64::from_be_bytes(payload.try_into().unwrap());
    }
    let reason = refusal(&mut agency);
    let numbers: Vec<usize> =
        reason.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    let [next, stored, equal, again, sent] = numbers[..] else { panic!("{reason}") };
    let said = format!(
        "one of the bets {next} to {stored} differs, a digest does not tell which; its first {equal} are stored, {next} to \
         {sent} were sent and may be stored, no other was sent"
    );
    assert_eq!((reason, again, next), (said, equal + 1, equal + 1));
    let file = common::bets::parse_rows(&server.bets_file());
    let differs = file.iter().zip(&all).position(|(stored, own)| stored != own).unwrap();
    assert!(equal <= differs && differs < stored && sent < equal + 1000 && sent < all.len());
    assert!(!file.contains(&all[sent]));
}

#[test]
fn a_file_that_was_sorted_anew_is_refused_and_the_right_one_goes_on() {
    let server = server_of(1);
    let folder = tempfile::tempdir().unwrap();
    let all = bets(1, 0..3000);
    server.session(1).0.store(0, &all[..1000]);
    let mut sorted = all.clone();
    sorted.sort_by(|one, other| one.birthdate.cmp(&other.birthdate));
    let reason = refusal(&mut agency_with(&sorted, folder.path(), &server));
    let said = "one of the bets 1 to 1000 differs, a digest does not tell which";
    assert_eq!(reason, format!("{said}; {NOTHING_SENT}"));
    assert!(server.bets_file() == stored_rows(&all[..1000]));
    agency_with(&all, folder.path(), &server).succeed();
    assert!(server.bets_file() == stored_rows(&all));
}

#[test]
fn a_second_process_with_another_file_is_refused_but_an_equal_file_is_fine() {
    let server = server_of(2);
    let [one, two, three] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let all = bets(1, 0..100);
    let mut first = agency_with(&all, one.path(), &server);
    first.await_log("end_message | result: success | agency_id: 1 | bets: 100 | digest: ", 1);
    let reason = refusal(&mut agency_with(&bets(1, 500..600), two.path(), &server));
    assert!(reason.starts_with("one of the bets 1 to 100 differs"), "{reason}");
    let mut equal = agency_with(&all, three.path(), &server);
    equal.await_log("open_session | result: success | agency_id: 1 | stored: 100", 1);
    server.connect().classic_end(2);
    first.succeed();
    equal.succeed();
    assert!(server.bets_file() == stored_rows(&all));
}

#[test]
fn two_processes_with_equal_files_may_run_at_the_same_time() {
    let server = server_of(1);
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let all = bets(1, 0..20_000);
    let agencies = folders.each_ref().map(|folder| agency_with(&all, folder.path(), &server));
    for mut agency in agencies {
        agency.succeed();
    }
    assert!(server.bets_file() == stored_rows(&all));
}

#[test]
fn an_agency_that_is_told_of_more_than_it_sent_reads_its_file_on() {
    let stage = Stage::new(&rows(2000));
    let mut agency = stage.agency(&[]);
    let mut peer = stage.accept_session(0, 0, 1 << 20);
    // 15 are within the second batch; 1005 were not sent yet. All frames in flight are stored then.
    for stored in [15, 1005] {
        peer.bets();
        peer.acknowledge(stored);
    }
    let mut next = 0;
    while next != 1005 {
        next = peer.bets().0;
        if next < 1005 {
            peer.acknowledge(1005);
        }
    }
    peer.acknowledge(1015);
    peer.finish(1015, 2000, b"");
    agency.succeed();
}

#[test]
fn an_acknowledgement_of_other_bets_ends_the_agency() {
    let digests = |stored: u64, digest: u64| [stored.to_be_bytes(), digest.to_be_bytes()].concat();
    for (payload, reason) in [
        (
            digests(20, digest(20) ^ 1),
            "one of the bets 11 to 20 differs, a digest does not tell which; its first 10",
        ),
        (digests(21, digest(20)), "one of the bets 11 to 21 differs"),
        (digests(31, 0), "31 are stored, but it has only 30; its first 10 are stored, 11 to 30 were sent"),
    ] {
        let stage = Stage::new(&rows(30));
        let mut agency = stage.agency(&[]);
        let mut peer = stage.accept_session(0, 0, 1 << 20);
        peer.bets();
        peer.acknowledge(10);
        peer.bets();
        peer.send(kind::SESSION_STORED, &payload);
        let line = agency.fail();
        assert!(line.contains(reason), "{line}");
    }
}

#[test]
fn a_bet_that_was_stored_between_the_last_acknowledgement_and_the_end_is_noticed() {
    let stage = Stage::new(&rows(10));
    let mut agency = stage.agency(&[]);
    let mut peer = stage.accept_session(0, 0, 1 << 20);
    peer.bets();
    peer.acknowledge(10);
    peer.end(11);
    let line = agency.fail();
    assert!(line.contains("11 are stored, but it has only 10"), "{line}");
}

#[test]
fn a_server_that_knows_only_version_1_is_served_with_a_warning() {
    for after_a_newer_one in [false, true] {
        serve_version_1(after_a_newer_one);
    }
}

fn serve_version_1(after_a_newer_one: bool) {
    let stage = Stage::new(&rows(15));
    let mut agency = stage.agency(&[]);
    if after_a_newer_one {
        stage.accept_session(0, 0, 1 << 20);
    }
    let mut peer = stage.accept();
    peer.expect_opening();
    peer.send(kind::ERROR, b"session version 2 is not supported, only 1");
    let mut peer = stage.accept();
    assert_eq!(peer.frame(), Some((kind::OPEN_SESSION, vec![1, 0, 0, 0, 3])));
    peer.send(kind::SESSION_OPENED, b"\0\0\0\x03\0\0\0\0\0\0\0\x05\0\0\x01\0\0");
    assert_eq!(peer.bets().0, 5);
    peer.send(kind::SESSION_STORED, &15_u64.to_be_bytes());
    assert_eq!(peer.frame(), Some((kind::END, vec![])));
    peer.send(kind::BET_ACK, b"OK");
    peer.give_result(b"");
    let log = agency.succeed();
    assert_eq!(
        log.0.matches("WARNING  action: session_version | result: success | version: 1 | ").count(),
        1
    );
    assert!(log.has("end_message | result: success | agency_id: 3 | bets: 15"), "{}", log.0);
}

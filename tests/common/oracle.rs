//! What must hold after a load, whatever happened meanwhile.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use super::bets::{WINNING, digest_of, of_agency, parse_rows};
use super::load::{AGENCIES, CLASSIC, Load, Outcome, Request, SESSIONS, stream};
use super::{Bet, Log, RunningServer, Setup};

/// What the file may contain of a classic batch that was neither acknowledged nor refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// All of it or nothing.
    Whole,
    /// A first part, because storage was killed within its write.
    FirstPart,
}

/// The file without a torn last row.
pub fn whole_rows(mut file: Vec<u8>) -> Vec<u8> {
    let end = file.windows(2).rposition(|pair| pair == b"\r\n").map_or(0, |at| at + 2);
    file.truncate(end);
    file
}

/// Checks the file while no server runs: it must contain the first bets of each session's agency, at least all that were
/// acknowledged.
pub fn check_between(setup: &Setup, load: &Load) {
    let stored = parse_rows(&whole_rows(setup.bets_file()));
    for agency in SESSIONS {
        let known = load.acknowledged_of(agency);
        let rows = of_agency(&stored, agency);
        assert!(rows.len() as u64 >= known, "agency {agency}: {known} acknowledged, {} stored", rows.len());
        assert!(stream(agency).starts_with(&rows), "agency {agency}: each bet once, in order");
    }
}

/// Ends the server after the load and checks every promise.
pub fn check_all(mut server: RunningServer, load: &Load, unanswered: Unanswered) {
    let setup = server.setup();
    check_end(&mut server);
    let file = setup.bets_file();
    let stored = parse_rows(&file);
    let mut accounted = 0;
    for agency in SESSIONS {
        assert!(of_agency(&stored, agency) == stream(agency), "agency {agency}: each bet once, in order");
        accounted += stream(agency).len();
    }
    accounted += check_classic(&stored, &load.requests(), unanswered);
    assert_eq!(stored.len(), accounted, "bets that no client sent");
    check_draw(&setup, &stored, load);
    let mut again = setup.clone().without("FAILPOINTS").start();
    assert_eq!(again.session(1).1.state, 2, "the draw is as before");
    let state = setup.state();
    again.terminate();
    assert!(setup.bets_file() == file && setup.state() == state, "a further start changes nothing");
    check_folder(&setup);
}

/// Ends the server, which must take less than a second and leave no process.
fn check_end(server: &mut RunningServer) {
    let start = Instant::now();
    server.terminate();
    assert!(server.processes().is_empty(), "a process is left");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

/// Panics if the folder contains anything besides the bets, the state and the logs.
pub fn check_folder(setup: &Setup) {
    for entry in fs::read_dir(setup.path(".")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = matches!(name.as_str(), "bets.csv" | "bets.csv.state") || name.starts_with("log-");
        assert!(known, "{name} is left");
    }
}

/// Checks the bets of the classic requests. Returns how many of them are stored.
fn check_classic(stored: &[Bet], requests: &[Request], unanswered: Unanswered) -> usize {
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (place, bet) in stored.iter().enumerate() {
        let before = places.insert(&bet.document, place);
        assert_eq!(before, None, "document {} is stored twice", bet.document);
    }
    let mut accounted = 0;
    for Request { bets, outcome } in requests {
        let there = bets.iter().filter(|bet| places.contains_key(bet.document.as_str())).count();
        let allowed = match (outcome, unanswered) {
            (Outcome::Acked, _) => there == bets.len(),
            (Outcome::Refused, _) => there == 0,
            (Outcome::Unknown, Unanswered::Whole) => there == 0 || there == bets.len(),
            (Outcome::Unknown, Unanswered::FirstPart) => true,
        };
        assert!(allowed, "{there} of {} bets of a batch are stored; its outcome is {outcome:?}", bets.len());
        if there > 0 {
            let first = places[bets[0].document.as_str()];
            assert!(stored[first..first + there] == bets[..there], "a batch is not as it was sent");
        }
        accounted += there;
    }
    accounted
}

/// Checks that the draw was made once and that all results agree with the bets file.
fn check_draw(setup: &Setup, stored: &[Bet], load: &Load) {
    let ended = (1..=AGENCIES).map(|agency| {
        let rows = of_agency(stored, agency);
        serde_json::json!({"agency": agency, "bets": rows.len(), "digest": format!("{:016x}", digest_of(&rows))})
    });
    assert_eq!(setup.state()["ended"], ended.collect::<serde_json::Value>());
    assert_eq!(setup.state()["draw"]["seal"]["bets"], stored.len());
    assert_eq!(setup.state()["draw"]["agencies"], AGENCIES);
    let draws = logs(setup).iter().map(Log::draws).sum::<usize>();
    assert!(draws <= 1, "{draws} draws were made");
    let results = load.results();
    assert_eq!(results.len(), SESSIONS.len() + 1 + CLASSIC.len());
    for (agency, documents) in results {
        let rows = of_agency(stored, agency);
        let winners: Vec<&str> =
            rows.iter().filter(|bet| bet.number == WINNING).map(|bet| &*bet.document).collect();
        assert!(documents == winners.join("\x1e").into_bytes(), "agency {agency} was told another result");
    }
}

/// The logs of all servers that ran in the folder.
pub fn logs(setup: &Setup) -> Vec<Log> {
    let entries = fs::read_dir(setup.path(".")).unwrap().map(|entry| entry.unwrap().path());
    let logs = entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("log-"));
    logs.map(|path| Log(fs::read_to_string(path).unwrap())).collect()
}

/// Counts the handlers and the storage services that died, by the logs.
pub fn deaths(setup: &Setup) -> (usize, usize) {
    let logs = logs(setup);
    let count = |text| logs.iter().map(|log| log.lines_with(text).len()).sum();
    (count("action: handler | result: fail"), count("ERROR    action: storage | result: fail"))
}

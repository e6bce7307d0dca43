//! Growth of the time of a bet with the number of existing bets and of sessions.

use std::io;
use std::time::Instant;

use super::{AGENCIES, Bench};
use crate::baseline::Baseline;
use crate::load::session::{open, upload};
use crate::load::stream::{Stream, agencies, total_bets};
use crate::measure::Series;
use crate::process::{Contestant, SERVER, Server};
use crate::report::{Goal, Row, Unit};

const MANY_SESSIONS: u16 = 500;
/// Existing bets.
const FEW_BETS: u64 = 100_000;
const MANY_BETS: u64 = 10_000_000;

/// A number of sessions and of existing bets.
struct Case {
    contestant: Contestant,
    name: &'static str,
    sessions: u16,
    before: u64,
    streams: Vec<Stream>,
    times: Series,
}

impl Case {
    /// The sessions send `bets` together, in equal parts.
    fn new(
        (contestant, name): (Contestant, &'static str),
        sessions: u16,
        before: u64,
        bets: u64,
    ) -> io::Result<Self> {
        let before_each = before / u64::from(sessions);
        let after_each = before_each + bets / u64::from(sessions);
        let streams: io::Result<_> =
            agencies(sessions).map(|agency| Stream::for_session(agency, before_each..after_each)).collect();
        Ok(Self { contestant, name, sessions, before, streams: streams?, times: Series::default() })
    }

    /// Seconds for each bet, once all sessions are open.
    fn measure(&self, bench: &Bench) -> io::Result<f64> {
        let folder = bench.folder_with(self.sessions, self.before / u64::from(self.sessions))?;
        let server = Server::start(self.contestant, &folder, self.sessions)?;
        let time = self.time(&server);
        server.finish(time)
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn time(&self, server: &Server) -> io::Result<f64> {
        let mut sessions = open(&server.target(), &self.streams)?;
        let start = Instant::now();
        upload(&mut sessions, &self.streams)?;
        Ok(start.elapsed().as_secs_f64() / total_bets(&self.streams) as f64)
    }

    fn row(&self) -> Row {
        Row::new(self.name, Unit::SecondsPerBet, &self.times)
    }
}

pub fn run(bench: &Bench) -> io::Result<Vec<Row>> {
    let bets = bench.size.session_bets * u64::from(AGENCIES);
    let bare = Contestant::Baseline(Baseline::Bare);
    let mut cases = vec![
        Case::new((SERVER, "time of a bet, 5 sessions, 100,000 bets there"), AGENCIES, FEW_BETS, bets)?,
        Case::new((SERVER, "time of a bet, 500 sessions"), MANY_SESSIONS, FEW_BETS, bets)?,
        // The bare shape does not read existing bets.
        Case::new((bare, "  bare shape, 5 sessions"), AGENCIES, 0, bets)?,
        Case::new((bare, "  bare shape, 500 sessions"), MANY_SESSIONS, 0, bets)?,
    ];
    if !bench.size.is_quick {
        let name = "time of a bet, 10,000,000 bets there";
        cases.push(Case::new((SERVER, name), AGENCIES, MANY_BETS, bets)?);
    }
    let rounds = bench.size.rounds;
    bench.progress.begin("growth", rounds * cases.len());
    for _ in 0..rounds {
        for case in &mut cases {
            let time = bench.turn(case.name, || case.measure(bench))?;
            case.times.push(time);
        }
    }
    let [few, many, bare_few, bare_many, rest @ ..] = cases.as_slice() else { return Ok(Vec::new()) };
    let compared = |case: &Case| case.row().against("5 sessions", &few.times, Goal::RatioAtMost(1.3));
    let mut rows = vec![few.row(), compared(many)];
    rows.extend(rest.iter().map(compared));
    rows.push(bare_few.row());
    rows.push(bare_many.row().against("5 sessions", &bare_few.times, Goal::None));
    Ok(rows)
}

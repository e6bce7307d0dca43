//! Time from the last END until all sessions have their results.

use std::io;
use std::time::Instant;

use loteria::protocol::message::ClientMessage;

use super::{AGENCIES, Bench};
use crate::load::session::Session;
use crate::load::stream::{agencies, winners};
use crate::measure::Series;
use crate::process::{SERVER, Server};
use crate::report::{Goal, Row, Unit};

/// Bets of each agency: a million and a thousand in all.
const MANY: u64 = 200_000;
const FEW: u64 = 200;
/// In seconds.
const LIMIT: f64 = 0.002;

pub fn run(bench: &Bench) -> io::Result<Vec<Row>> {
    let rounds = bench.size.short_rounds;
    bench.progress.begin("await", rounds * 2);
    let (mut many, mut few) = (Series::default(), Series::default());
    for _ in 0..rounds {
        many.push(bench.turn("a million bets", || measure(bench, MANY))?);
        few.push(bench.turn("a thousand bets", || measure(bench, FEW))?);
    }
    let row = |name: &str, values| Row::new(name, Unit::Seconds, values);
    Ok(vec![
        row("last END to result, 1,000,000 bets", &many).below(LIMIT),
        row("last END to result, 1,000,000 bets", &many).against("1,000 bets", &few, Goal::RatioAtMost(1.3)),
    ])
}

/// Seconds until the last of the agencies has its result.
fn measure(bench: &Bench, bets_each: u64) -> io::Result<f64> {
    let folder = bench.folder_with(AGENCIES, bets_each)?;
    let server = Server::start(SERVER, &folder, AGENCIES)?;
    let time = time_draw(&server, bets_each);
    server.finish(time)
}

fn time_draw(server: &Server, bets_each: u64) -> io::Result<f64> {
    let target = server.target();
    let mut sessions = Vec::new();
    for agency in agencies(AGENCIES) {
        let mut session = Session::request(&target, agency)?;
        session.opened(bets_each)?;
        sessions.push((session, winners(agency, bets_each)));
    }
    let end_and_await = [ClientMessage::End(None), ClientMessage::AwaitResult];
    let (last, others) =
        sessions.split_last_mut().ok_or_else(|| io::Error::other("there are no agencies"))?;
    for (session, _) in others.iter_mut() {
        session.send(&end_and_await)?;
        session.ended()?;
    }
    let start = Instant::now();
    last.0.send(&end_and_await)?;
    last.0.ended()?;
    for (session, winners) in &mut sessions {
        session.result(Some(winners))?;
    }
    Ok(start.elapsed().as_secs_f64())
}

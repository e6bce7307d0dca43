//! Time and memory of a start on existing bets.

use std::io;

use common::processes::{children_of, has_open};

use super::{AGENCIES, Bench};
use crate::measure::Series;
use crate::memory::peak;
use crate::process::Server;
use crate::report::{Goal, Row, Unit};

/// The most seconds for each bet.
const LIMIT_PER_BET: f64 = 0.3e-6;
const MANY: u64 = 1_000_000;

pub fn run(bench: &Bench) -> io::Result<Vec<Row>> {
    let rounds = bench.size.rounds;
    let sizes = bench.size.bets_before;
    bench.progress.begin("start", rounds * sizes.len());
    let mut values: [(Series, Series); 2] = Default::default();
    for _ in 0..rounds {
        for (bets, (times, peaks)) in sizes.into_iter().zip(&mut values) {
            let (time, peak) = bench.turn(&format!("{bets} bets"), || measure(bench, bets))?;
            times.push(time);
            peaks.push(peak);
        }
    }
    let [(small, small_peak), (large, large_peak)] = values;
    let [fewer, more] = sizes;
    Ok(vec![
        time_row(fewer, &small),
        time_row(more, &large),
        Row::new(format!("storage's memory, {more} bets"), Unit::Memory, &large_peak).against(
            if bench.size.is_quick { "100,000 bets" } else { "1,000,000 bets" },
            &small_peak,
            Goal::RatioAtMost(1.3),
        ),
    ])
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn time_row(bets: u64, times: &Series) -> Row {
    let row = Row::new(format!("start on {bets} bets"), Unit::Seconds, times);
    if bets < MANY { row } else { row.below(bets as f64 * LIMIT_PER_BET) }
}

/// Seconds until server and storage answer, and storage's peak memory.
fn measure(bench: &Bench, bets: u64) -> io::Result<(f64, f64)> {
    let folder = bench.folder_with(AGENCIES, bets / u64::from(AGENCIES))?;
    let (server, time) = Server::start_timed(&folder, AGENCIES)?;
    let file = folder.join("bets.csv").canonicalize()?;
    let storage = children_of(server.pid()).into_iter().find(|child| has_open(*child, &file));
    let memory = storage.ok_or_else(|| io::Error::other("there is no storage")).and_then(peak);
    Ok((time.as_secs_f64(), server.finish(memory)?))
}

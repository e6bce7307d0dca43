//! Bets over classic connections: one connection, and so one process, for each batch.

use std::io;

use super::sessions::rate;
use super::{AGENCIES, Bench};
use crate::baseline::Baseline;
use crate::load::classic::{draw, upload};
use crate::load::socket::Target;
use crate::load::stream::{Stream, agencies, total_bets};
use crate::measure::Series;
use crate::process::{Contestant, LOGGING_SERVER, SERVER, Server};
use crate::report::{Goal, Row, Unit};

const CONTESTANTS: [Contestant; 4] =
    [SERVER, Contestant::Baseline(Baseline::Bare), Contestant::Baseline(Baseline::Fork), LOGGING_SERVER];

pub fn run(bench: &Bench) -> io::Result<Vec<Row>> {
    let rounds = bench.size.rounds;
    bench.progress.begin("classic", rounds * (CONTESTANTS.len() + 2));
    let bets = bench.size.classic_bets;
    let streams: Vec<Stream> =
        agencies(AGENCIES).map(|agency| Stream::for_classic(agency, bets)).collect::<io::Result<_>>()?;
    let mut values: [Series; CONTESTANTS.len()] = Default::default();
    let mut latencies: [Series; 2] = Default::default();
    for _ in 0..rounds {
        for (contestant, values) in CONTESTANTS.into_iter().zip(&mut values) {
            values.push(bench.turn(&contestant.name(), || bring(bench, contestant, &streams))?);
        }
        for (contestant, latencies) in CONTESTANTS.into_iter().zip(&mut latencies) {
            latencies.push(bench.turn(&contestant.name(), || ask_in_turn(bench, contestant, &streams))?);
        }
    }
    let [server, bare, fork, info] = values;
    let [latency, bare_latency] = latencies;
    let rate = |name: &str, values| Row::new(name, Unit::BetsPerSecond, values);
    Ok(vec![
        rate("classic", &server).against("bare shape", &bare, Goal::RatioAtLeast(0.9)),
        rate("classic", &server).against("fork alone", &fork, Goal::None),
        rate("classic, log at INFO", &info).against("WARNING", &server, Goal::RatioAtLeast(0.85)),
        Row::new("classic, one client, a message", Unit::Seconds, &latency).against(
            "bare shape",
            &bare_latency,
            Goal::RatioAtMost(1.0),
        ),
        rate("  bare shape", &bare),
        rate("  fork alone", &fork),
    ])
}

/// Bets per second, from the first connection to the last acknowledgement.
fn bring(bench: &Bench, contestant: Contestant, streams: &[Stream]) -> io::Result<f64> {
    let folder = bench.empty_folder()?;
    let server = Server::start(contestant, folder.path(), AGENCIES)?;
    let makes_draw = matches!(contestant, Contestant::Server(_));
    let rate = measure(&server.target(), makes_draw, streams);
    server.finish(rate)
}

/// Seconds from connecting to the end of the connection, on average, if one client sends one message after the other.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn ask_in_turn(bench: &Bench, contestant: Contestant, streams: &[Stream]) -> io::Result<f64> {
    let folder = bench.empty_folder()?;
    let server = Server::start(contestant, folder.path(), AGENCIES)?;
    let one = streams.get(..1).unwrap_or_default();
    let messages: usize = one.iter().map(|stream| stream.batches.len()).sum();
    let time = upload(&server.target(), one).map(|time| time.as_secs_f64() / messages as f64);
    server.finish(time)
}

/// Bets per second, to a server that has no bets yet.
pub(super) fn measure(target: &Target, makes_draw: bool, streams: &[Stream]) -> io::Result<f64> {
    let time = upload(target, streams)?;
    if makes_draw {
        draw(target, streams)?;
    }
    Ok(rate(total_bets(streams), time))
}

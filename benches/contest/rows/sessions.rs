//! Bets over sessions: from the load generator to server and baselines, and from agencies that read their files.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use loteria::sample;

use super::{AGENCIES, Bench};
use crate::baseline::Baseline;
use crate::load::session::{draw, open, upload};
use crate::load::socket::Target;
use crate::load::stream::{Stream, agencies, total_bets, winners};
use crate::measure::Series;
use crate::process::{Agency, Contestant, LOGGING_SERVER, SERVER, Server, status};
use crate::report::{Goal, Row, Unit};

const CONTESTANTS: [Contestant; 4] =
    [SERVER, Contestant::Baseline(Baseline::Bare), Contestant::Baseline(Baseline::Threads), LOGGING_SERVER];

pub fn run(bench: &Bench) -> io::Result<Vec<Row>> {
    let rounds = bench.size.rounds;
    bench.progress.begin("sessions", rounds * (CONTESTANTS.len() + 1));
    let bets = bench.size.session_bets;
    let streams: Vec<Stream> =
        agencies(AGENCIES).map(|agency| Stream::for_session(agency, 0..bets)).collect::<io::Result<_>>()?;
    let files = bench.empty_folder()?;
    sample::write(AGENCIES, &[bets], sample::DEFAULT_SEED, files.path()).map_err(io::Error::other)?;
    let mut values: [Series; CONTESTANTS.len()] = Default::default();
    let mut from_files = Series::default();
    for _ in 0..rounds {
        for (contestant, values) in CONTESTANTS.into_iter().zip(&mut values) {
            values.push(bench.turn(&contestant.name(), || bring(bench, contestant, &streams))?);
        }
        from_files.push(bench.turn("agencies", || bring_files(files.path(), bets))?);
    }
    let [server, bare, threads, info] = values;
    let rate = |name: &str, values| Row::new(name, Unit::BetsPerSecond, values);
    Ok(vec![
        rate("sessions", &server).against("bare shape", &bare, Goal::RatioAtLeast(0.85)),
        rate("sessions", &server).against("thread server", &threads, Goal::RatioAtLeast(4.5)),
        rate("sessions, log at INFO", &info).against("WARNING", &server, Goal::RatioAtLeast(0.95)),
        rate("sessions of 5 agency processes", &from_files).against(
            "bare shape",
            &bare,
            Goal::RatioAtLeast(0.45),
        ),
        rate("  bare shape", &bare),
        rate("  thread server", &threads),
    ])
}

/// Bets per second, from the first connection to the last acknowledgement.
pub(super) fn bring(bench: &Bench, contestant: Contestant, streams: &[Stream]) -> io::Result<f64> {
    let folder = bench.empty_folder()?;
    let server = Server::start(contestant, folder.path(), AGENCIES)?;
    let makes_draw = !matches!(contestant, Contestant::Baseline(Baseline::Bare));
    let rate = measure(&server.target(), makes_draw, streams);
    server.finish(rate)
}

/// Bets per second, to a server that has no bets yet.
pub(super) fn measure(target: &Target, makes_draw: bool, streams: &[Stream]) -> io::Result<f64> {
    let start = Instant::now();
    let mut sessions = open(target, streams)?;
    upload(&mut sessions, streams)?;
    let time = start.elapsed();
    let expected: Vec<_> = streams.iter().map(|stream| winners(stream.agency, stream.stored())).collect();
    draw(&mut sessions, makes_draw.then_some(&expected))?;
    Ok(rate(total_bets(streams), time))
}

/// Bets per second.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(super) fn rate(bets: u64, time: Duration) -> f64 {
    bets as f64 / time.as_secs_f64()
}

/// Bets per second from agencies with files, from the start of the first to the end of the last.
fn bring_files(folder: &Path, bets: u64) -> io::Result<f64> {
    let server = Server::start(SERVER, folder, AGENCIES)?;
    let rate = measure_files(&server, folder, bets);
    let rate = server.finish(rate);
    fs::remove_file(folder.join("bets.csv"))?;
    fs::remove_file(folder.join("bets.csv.state"))?;
    rate
}

fn measure_files(server: &Server, folder: &Path, bets: u64) -> io::Result<f64> {
    let start = Instant::now();
    let running: io::Result<Vec<_>> =
        agencies(AGENCIES).map(|agency| Agency::start(server, folder, agency)).collect();
    let mut told = Vec::new();
    for agency in running? {
        told.push(agency.finish(|_| ())?);
    }
    let time = start.elapsed();
    let expected: io::Result<Vec<_>> =
        agencies(AGENCIES).map(|agency| winners_in(&folder.join(sample::file_name(agency)))).collect();
    let stored = status(server.address())?.bets;
    if stored != u64::from(AGENCIES) * bets || told != expected? {
        return Err(io::Error::other(format!("{stored} bets are stored, winners: {told:?}")));
    }
    Ok(rate(stored, time))
}

fn winners_in(file: &Path) -> io::Result<u64> {
    let rows = fs::read_to_string(file)?;
    Ok(rows.lines().filter(|row| row.ends_with(",7574")).count() as u64)
}

//! Memory of the server's processes after a million bets, and of an agency with a million bets.

use std::io;
use std::path::Path;

use loteria::lottery::AgencyId;
use loteria::sample;

use common::processes::{children_of, has_open};

use super::{AGENCIES, Bench};
use crate::load::session::{draw, open, upload};
use crate::load::stream::{Stream, agencies};
use crate::measure::Series;
use crate::memory::{peak, private_dirty, resident};
use crate::process::{Agency, SERVER, Server};
use crate::report::{Goal, Row, Unit};

/// In KiB.
const SERVER_LIMIT: f64 = 12.0 * 1024.0;
const HANDLER_LIMIT: f64 = 350.0;
const AGENCY_LIMIT: f64 = 8.0 * 1024.0;
/// A million bets in all.
const BETS_EACH: u64 = 200_000;
/// The sizes of an agency's file.
const LONG_FILE: u64 = 1_000_000;
const SHORT_FILE: u64 = 1_000;

pub fn run(bench: &Bench) -> io::Result<Vec<Row>> {
    let rounds = bench.size.rounds;
    bench.progress.begin("memory", rounds * 3);
    let streams: Vec<Stream> = agencies(AGENCIES)
        .map(|agency| Stream::for_session(agency, 0..BETS_EACH))
        .collect::<io::Result<_>>()?;
    let mut values: [Series; 4] = Default::default();
    let [processes, handlers, long_file, short_file] = &mut values;
    for _ in 0..rounds {
        let held = bench.turn("server", || measure_server(bench, &streams))?;
        processes.push(held.process);
        handlers.push(held.handler);
        long_file.push(bench.turn("agency, long file", || measure_agency(bench, LONG_FILE))?);
        short_file.push(bench.turn("agency, short file", || measure_agency(bench, SHORT_FILE))?);
    }
    let row = |name: &str, values| Row::new(name, Unit::Memory, values);
    Ok(vec![
        row("largest server process", processes).below(SERVER_LIMIT),
        row("a handler's own memory", handlers).below(HANDLER_LIMIT),
        row("agency, 1,000,000 bets", long_file).below(AGENCY_LIMIT),
        row("agency, 1,000,000 bets", long_file).against("1,000 bets", short_file, Goal::RatioAtMost(1.3)),
    ])
}

/// The largest values, in KiB.
struct Held {
    /// Resident memory of any process of the server.
    process: f64,
    /// Memory that a handler does not share.
    handler: f64,
}

fn measure_server(bench: &Bench, streams: &[Stream]) -> io::Result<Held> {
    let folder = bench.empty_folder()?;
    let server = Server::start(SERVER, folder.path(), AGENCIES)?;
    let held = bring_and_look(&server, folder.path(), streams);
    server.finish(held)
}

fn bring_and_look(server: &Server, folder: &Path, streams: &[Stream]) -> io::Result<Held> {
    let mut sessions = open(&server.target(), streams)?;
    upload(&mut sessions, streams)?;
    let held = look(server, &folder.join("bets.csv").canonicalize()?);
    draw(&mut sessions, None)?;
    held
}

fn look(server: &Server, bets: &Path) -> io::Result<Held> {
    let mut held = Held { process: resident(server.pid())?, handler: 0.0 };
    let children = children_of(server.pid());
    if children.len() != usize::from(AGENCIES) + 1 {
        return Err(io::Error::other(format!("the server has {} children", children.len())));
    }
    for child in children {
        held.process = held.process.max(resident(child)?);
        if !has_open(child, bets) {
            held.handler = held.handler.max(private_dirty(child)?);
        }
    }
    Ok(held)
}

/// The peak memory of an agency.
fn measure_agency(bench: &Bench, bets: u64) -> io::Result<f64> {
    let folder = bench.empty_folder()?;
    sample::write(1, &[bets], sample::DEFAULT_SEED, folder.path()).map_err(io::Error::other)?;
    let server = Server::start(SERVER, folder.path(), 1)?;
    let most = watch_agency(&server, folder.path());
    server.finish(most)
}

fn watch_agency(server: &Server, folder: &Path) -> io::Result<f64> {
    let agency = AgencyId::new(1_u16).ok_or_else(|| io::Error::other("no agency"))?;
    let mut most = 0.0;
    Agency::start(server, folder, agency)?.finish(|pid| {
        // Once it has ended there is nothing to read.
        most = peak(pid).unwrap_or(most);
    })?;
    Ok(most)
}

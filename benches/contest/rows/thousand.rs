//! A thousand sessions at once. Each is of another agency, stores bets and awaits the result.

use std::io;
use std::time::{Duration, Instant};

use super::Bench;
use crate::load::session::{draw, open, upload};
use crate::load::stream::{Stream, agencies, winners};
use crate::measure::Series;
use crate::process::{SERVER, Server, status};
use crate::report::{Row, Unit};

const SESSIONS: u16 = 1000;
const BETS_EACH: u64 = 136 * 2;
/// In seconds.
const OPEN_LIMIT: f64 = 2.0;
const GONE_LIMIT: f64 = 1.0;
const PAUSE: Duration = Duration::from_millis(2);

pub fn run(bench: &Bench) -> io::Result<Vec<Row>> {
    let rounds = bench.size.rounds;
    bench.progress.begin("thousand", rounds);
    let streams: Vec<Stream> = agencies(SESSIONS)
        .map(|agency| Stream::for_session(agency, 0..BETS_EACH))
        .collect::<io::Result<_>>()?;
    let mut values: [Series; 3] = Default::default();
    for _ in 0..rounds {
        let times = bench.turn("1000 sessions", || measure(bench, &streams))?;
        for (values, time) in values.iter_mut().zip(times) {
            values.push(time.as_secs_f64());
        }
    }
    let [opened, have_results, gone] = values;
    let row = |name: &str, values| Row::new(name, Unit::Seconds, values);
    Ok(vec![
        row("1000 sessions, until open", &opened).below(OPEN_LIMIT),
        row("1000 sessions, until results", &have_results),
        row("1000 sessions, closed until gone", &gone).below(GONE_LIMIT),
    ])
}

fn measure(bench: &Bench, streams: &[Stream]) -> io::Result<[Duration; 3]> {
    let folder = bench.empty_folder()?;
    let server = Server::start(SERVER, folder.path(), SESSIONS)?;
    let times = time(&server, streams);
    server.finish(times)
}

fn time(server: &Server, streams: &[Stream]) -> io::Result<[Duration; 3]> {
    let start = Instant::now();
    let mut sessions = open(&server.target(), streams)?;
    let opened = start.elapsed();
    upload(&mut sessions, streams)?;
    let expected: Vec<_> = streams.iter().map(|stream| winners(stream.agency, stream.stored())).collect();
    draw(&mut sessions, Some(&expected))?;
    let have_results = start.elapsed();
    let closing = Instant::now();
    drop(sessions);
    // The connection that asks is counted too.
    while status(server.address())?.handlers > 1 {
        std::thread::sleep(PAUSE);
    }
    Ok([opened, have_results, closing.elapsed()])
}

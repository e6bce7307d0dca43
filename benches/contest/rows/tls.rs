//! TLS against plain connections, and what a handshake costs. A handshake costs the client more than the server, and both
//! share the processors.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::processes::{children_of, has_open};
use loteria::lottery::AgencyId;

use super::{AGENCIES, Bench, classic, sessions};
use crate::load::session::{draw, open, upload};
use crate::load::socket::Certificates;
use crate::load::stream::{Stream, agencies, total_bets};
use crate::measure::Series;
use crate::memory::{private_dirty, processor_time};
use crate::process::{Contestant, PROGRAM, SERVER, Server, TLS_SERVER, must_be_success};
use crate::report::{Goal, Row, Unit};

const MANY_SESSIONS: u16 = 1000;
/// In seconds.
const OPEN_LIMIT: f64 = 2.0;
/// In seconds of processor time.
const HANDSHAKE_LIMIT: f64 = 200e-6;
/// In KiB.
const HANDLER_LIMIT: f64 = 350.0;
const PROGRAM_LIMIT: f64 = 6.0 * 1024.0;
const PAUSE: Duration = Duration::from_millis(1);

/// The values of all rounds.
#[derive(Default)]
struct Values {
    sessions: Series,
    sessions_over_tls: Series,
    classic: Series,
    classic_over_tls: Series,
    /// Plain clients of a server that speaks TLS too.
    classic_beside_tls: Series,
    handler_memory: Series,
    many_opened: Series,
    /// With certificates that the keeper has not seen before.
    first_handshake: Series,
    handshake: Series,
}

pub fn run(bench: &Bench) -> io::Result<Vec<Row>> {
    let rounds = bench.size.rounds;
    bench.progress.begin("tls", rounds * 6);
    let certificates = make_certificates(&bench.folder)?;
    let long = streams(AGENCIES, |agency| Stream::for_session(agency, 0..bench.size.session_bets))?;
    let batches = streams(AGENCIES, |agency| Stream::for_classic(agency, bench.size.classic_bets))?;
    let silent = streams(MANY_SESSIONS, |agency| Stream::for_session(agency, 0..0))?;
    let mut values = Values::default();
    for _ in 0..rounds {
        values.sessions.push(turn(bench, "sessions", SERVER, AGENCIES, |server| {
            sessions::measure(&server.target(), true, &long)
        })?);
        let [rate, memory] = turn(bench, "sessions over TLS", TLS_SERVER, AGENCIES, |server| {
            measure_sessions(server, &certificates, &long)
        })?;
        values.sessions_over_tls.push(rate);
        values.handler_memory.push(memory);
        values.classic.push(turn(bench, "classic", SERVER, AGENCIES, |server| {
            classic::measure(&server.target(), true, &batches)
        })?);
        values.classic_over_tls.push(turn(bench, "classic over TLS", TLS_SERVER, AGENCIES, |server| {
            classic::measure(&server.target().over_tls(&certificates), true, &batches)
        })?);
        values.classic_beside_tls.push(turn(bench, "classic beside TLS", TLS_SERVER, AGENCIES, |server| {
            classic::measure(&server.target(), true, &batches)
        })?);
        let [opened, first, later] = turn(bench, "1000 sessions", TLS_SERVER, MANY_SESSIONS, |server| {
            let [opened, first] = measure_handshakes(server, &certificates, &silent)?;
            let [_, later] = measure_handshakes(server, &certificates, &silent)?;
            Ok([opened, first, later])
        })?;
        values.many_opened.push(opened);
        values.first_handshake.push(first);
        values.handshake.push(later);
    }
    let mut program = Series::default();
    program.push(stripped_size(&bench.folder)?);
    Ok(values.rows(&program))
}

impl Values {
    fn rows(&self, program: &Series) -> Vec<Row> {
        let row = |name: &str, unit, values| Row::new(name, unit, values);
        let compared = |name: &str, values, against, other, least| {
            row(name, Unit::BetsPerSecond, values).against(against, other, Goal::RatioAtLeast(least))
        };
        vec![
            compared("sessions over TLS", &self.sessions_over_tls, "plain", &self.sessions, 0.7),
            compared("classic over TLS", &self.classic_over_tls, "plain", &self.classic, 0.33),
            compared("classic, TLS on", &self.classic_beside_tls, "TLS off", &self.classic, 0.9),
            row("a handler's own memory, TLS", Unit::Memory, &self.handler_memory).below(HANDLER_LIMIT),
            row("1000 sessions over TLS, until open", Unit::Seconds, &self.many_opened).below(OPEN_LIMIT),
            row("keeper, for a handshake", Unit::Seconds, &self.handshake).below(HANDSHAKE_LIMIT),
            row("the same, of a certificate's first handshake", Unit::Seconds, &self.first_handshake),
            row("the program without symbols", Unit::Memory, program).below(PROGRAM_LIMIT),
        ]
    }
}

fn streams(count: u16, stream: impl Fn(AgencyId) -> io::Result<Stream>) -> io::Result<Vec<Stream>> {
    agencies(count).map(stream).collect()
}

/// Measures a server that runs in a folder of its own.
fn turn<T>(
    bench: &Bench,
    what: &str,
    contestant: Contestant,
    agencies: u16,
    measure: impl FnOnce(&Server) -> io::Result<T>,
) -> io::Result<T> {
    bench.turn(what, || {
        let folder = bench.empty_folder()?;
        let server = Server::start(contestant, folder.path(), agencies)?;
        let measured = measure(&server);
        server.finish(measured)
    })
}

/// Makes the certificates that [`TLS_SERVER`] uses.
fn make_certificates(folder: &Path) -> io::Result<Certificates> {
    let mut command = Command::new(PROGRAM);
    command.args(["certs", "--agencies", &MANY_SESSIONS.to_string()]).current_dir(folder).env_clear();
    let made = command.output()?;
    must_be_success(made.status).map_err(|error| {
        io::Error::other(format!("loteria certs: {error}: {}", String::from_utf8_lossy(&made.stderr)))
    })?;
    Certificates::read(&folder.join("certs"), MANY_SESSIONS)
}

/// Bets per second over TLS, and the most memory that a handler does not share, in KiB.
fn measure_sessions(
    server: &Server,
    certificates: &Certificates,
    streams: &[Stream],
) -> io::Result<[f64; 2]> {
    let others = children_before_clients(server)?;
    let start = Instant::now();
    let mut sessions = open(&server.target().over_tls(certificates), streams)?;
    upload(&mut sessions, streams)?;
    let rate = sessions::rate(total_bets(streams), start.elapsed());
    let handlers = children_of(server.pid()).into_iter().filter(|child| !others.contains(child));
    let memory: Vec<f64> = handlers.map(private_dirty).collect::<io::Result<_>>()?;
    draw(&mut sessions, None)?;
    Ok([rate, memory.into_iter().fold(f64::NAN, f64::max)])
}

/// Seconds until all sessions are open, and the keeper's processor time for each in seconds.
fn measure_handshakes(
    server: &Server,
    certificates: &Certificates,
    streams: &[Stream],
) -> io::Result<[f64; 2]> {
    let bets = server.folder().join("bets.csv").canonicalize()?;
    let keeper = children_before_clients(server)?.into_iter().find(|child| !has_open(*child, &bets));
    let keeper = keeper.ok_or_else(|| io::Error::other("there is no keeper"))?;
    let before = processor_time(keeper)?;
    let start = Instant::now();
    let sessions = open(&server.target().over_tls(certificates), streams)?;
    let opened = start.elapsed().as_secs_f64();
    let used = processor_time(keeper)? - before;
    drop(sessions);
    Ok([opened, used / f64::from(MANY_SESSIONS)])
}

/// Storage and the keeper. Waits for the end of the handler of the connection that found out that the server listens.
fn children_before_clients(server: &Server) -> io::Result<Vec<i32>> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        let children = children_of(server.pid());
        if children.len() == 2 {
            return Ok(children);
        }
        std::thread::sleep(PAUSE);
    }
    Err(io::Error::other("storage and the keeper are not the only children"))
}

/// The size of the program without symbols, in KiB.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn stripped_size(folder: &Path) -> io::Result<f64> {
    let stripped = folder.join("stripped");
    must_be_success(Command::new("strip").arg("-o").arg(&stripped).arg(PROGRAM).status()?)?;
    Ok(fs::metadata(stripped)?.len() as f64 / 1024.0)
}

//! Classic clients: one connection for each message.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use loteria::lottery::AgencyId;
use loteria::protocol::frame::{HEADER_LEN, kind};
use loteria::protocol::message::ClientMessage;

use super::socket::Target;
use super::stream::{Stream, winners};

/// The pause between two requests for the result.
const PAUSE: Duration = Duration::from_millis(2);

/// Sends all streams in parallel; returns the time it took.
pub fn upload(target: &Target, streams: &[Stream]) -> io::Result<Duration> {
    let start = Instant::now();
    std::thread::scope(|scope| {
        let clients: Vec<_> = streams.iter().map(|stream| scope.spawn(|| bring(target, stream))).collect();
        clients
            .into_iter()
            .try_for_each(|client| client.join().unwrap_or_else(|_| Err(io::Error::other("panic"))))
    })?;
    Ok(start.elapsed())
}

fn bring(target: &Target, stream: &Stream) -> io::Result<()> {
    (0..stream.batches.len()).try_for_each(|batch| {
        expect(&ask(target, stream.agency, stream.frames(batch..batch + 1))?, kind::BET_ACK, b"OK")
    })
}

/// Ends all agencies and checks the result of each.
pub fn draw(target: &Target, streams: &[Stream]) -> io::Result<()> {
    for stream in streams {
        let (end, _) = end_and_request(stream)?;
        expect_nothing(&ask(target, stream.agency, &end)?)?;
    }
    for stream in streams {
        let (_, request) = end_and_request(stream)?;
        let mut answer = ask(target, stream.agency, &request)?;
        while answer.first() == Some(&kind::IN_PROGRESS) {
            std::thread::sleep(PAUSE);
            answer = ask(target, stream.agency, &request)?;
        }
        expect(&answer, kind::RESULT, &winners(stream.agency, stream.stored()))?;
    }
    Ok(())
}

fn end_and_request(stream: &Stream) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let agency = Some(u8::try_from(stream.agency.get()).map_err(io::Error::other)?);
    let (mut end, mut request) = (Vec::new(), Vec::new());
    ClientMessage::End(agency).encode(&mut end);
    ClientMessage::ResultRequest(agency).encode(&mut request);
    Ok((end, request))
}

/// Sends a frame over a new connection; returns everything until the server closes it.
fn ask(target: &Target, agency: AgencyId, frame: &[u8]) -> io::Result<Vec<u8>> {
    let mut socket = target.connect(agency)?;
    socket.write_all(frame)?;
    let mut answer = Vec::with_capacity(64);
    socket.read_to_end(&mut answer)?;
    Ok(answer)
}

fn expect(answer: &[u8], kind: u8, payload: &[u8]) -> io::Result<()> {
    let right = answer.first() == Some(&kind) && answer.get(HEADER_LEN..) == Some(payload);
    if right { Ok(()) } else { Err(wrong(answer)) }
}

fn expect_nothing(answer: &[u8]) -> io::Result<()> {
    if answer.is_empty() { Ok(()) } else { Err(wrong(answer)) }
}

fn wrong(answer: &[u8]) -> io::Error {
    io::Error::other(format!("a wrong answer: {}", answer.escape_ascii()))
}

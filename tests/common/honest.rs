//! Honest agencies: one that the server must serve at once whatever others do, and one that keeps several batches in flight.

use std::collections::VecDeque;
use std::io::{Error, Result, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::client::bets_frame;
use super::{Bet, Client, RunningServer, bets, kind, rows};

/// How long an honest client waits at most for an answer on an idle machine.
const AT_ONCE: Duration = Duration::from_millis(100);
const TRIES: u32 = 20;

/// Panics unless `act` takes less than 100 ms. The machine may be busy with other tests, so one of 20 tries is enough.
#[track_caller]
pub fn assert_at_once(mut act: impl FnMut()) {
    let mut times = (0..TRIES).map(|_| {
        let start = Instant::now();
        act();
        start.elapsed()
    });
    assert!(times.any(|time| time < AT_ONCE), "it always took more than {AT_ONCE:?}");
}

/// An agency that sends batches in a session and bets in classic messages.
#[derive(Debug)]
pub struct Honest {
    session: Client,
    agency: u32,
    stored: u32,
}

impl Honest {
    /// Opens the session. The agency must not have any bets yet.
    pub fn new(server: &RunningServer, agency: u32) -> Self {
        Self { session: server.session(agency).0, agency, stored: 0 }
    }

    /// Stores a batch of 20 bets in the session, then one bet by a classic message.
    pub fn take_turn(&mut self, server: &RunningServer) {
        let bet = self.stored + 20;
        self.session.store(self.stored.into(), &bets(self.agency, self.stored..bet));
        server.connect().classic(
            kind::BET,
            &bets(self.agency, bet..bet + 1)[0].record(),
            kind::BET_ACK,
            b"OK",
        );
        self.stored = bet + 1;
    }

    /// Takes turns until one of them is quick.
    #[track_caller]
    pub fn is_served_at_once(&mut self, server: &RunningServer) {
        assert_at_once(|| self.take_turn(server));
    }

    /// Closes the session. The file must contain all of its bets and no others.
    #[track_caller]
    pub fn leave(self, server: &RunningServer) {
        assert!(server.bets_file() == rows(&bets(self.agency, 0..self.stored)), "the file has other bets");
    }
}

/// How many batches `upload` keeps in flight.
const WINDOW: usize = 4;

/// Sends the bets in a session until all are stored or the connection breaks. Keeps `acknowledged` at the number of bets
/// that the server has reported as stored.
pub fn upload(port: u16, agency: u32, bets: &[Bet], batch: usize, acknowledged: &AtomicU64) -> Result<()> {
    let mut client = Client::try_connect(port)?;
    let stored = client.try_open_session(agency)?.stored;
    let known = acknowledged.fetch_max(stored, Ordering::SeqCst);
    assert!(stored >= known, "agency {agency}: {known} bets were stored, now it is {stored}");
    let mut first = usize::try_from(stored).unwrap();
    let mut rest = bets.get(first..).unwrap().chunks(batch);
    let mut in_flight = VecDeque::new();
    loop {
        while in_flight.len() < WINDOW
            && let Some(chunk) = rest.next()
        {
            client.stream.write_all(&bets_frame(first as u64, chunk))?;
            first += chunk.len();
            in_flight.push_back(first as u64);
        }
        let Some(expected) = in_flight.pop_front() else { return Ok(()) };
        let (got, payload) = client.try_read_frame()?;
        if got == kind::ERROR {
            return Err(Error::other(String::from_utf8_lossy(&payload).into_owned()));
        }
        assert_eq!(got, kind::SESSION_STORED);
        let stored = u64::from_be_bytes(payload.try_into().unwrap());
        assert!(stored >= expected, "{stored} stored, but {expected} were sent");
        acknowledged.fetch_max(stored, Ordering::SeqCst);
    }
}

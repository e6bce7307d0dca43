//! An agency that brings its bets in a session, with several batches in flight.

use std::io::{Error, Result, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use super::client::{Client, bets_frame};
use super::{Bet, kind};

/// How many batches are in flight.
const WINDOW: usize = 4;

/// Brings the bets in batches, several in flight, until all are there or the connection breaks. Keeps `acknowledged` at the
/// number of bets that the server has called stored.
pub fn upload(port: u16, agency: u32, bets: &[Bet], batch: usize, acknowledged: &AtomicU64) -> Result<()> {
    let mut client = Client::try_connect(port)?;
    let stored = client.try_open_session(agency)?.stored;
    let known = acknowledged.fetch_max(stored, Ordering::SeqCst);
    assert!(stored >= known, "agency {agency}: {known} bets were stored, now it is {stored}");
    let mut first = usize::try_from(stored).unwrap();
    let mut rest = bets.get(first..).unwrap().chunks(batch);
    let mut in_flight = std::collections::VecDeque::new();
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

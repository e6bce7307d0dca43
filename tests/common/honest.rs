//! An honest agency, who is to be served at once whatever others do.

use std::time::{Duration, Instant};

use super::{Client, RunningServer, bets, kind, rows};

/// What an honest client waits at most, on a machine that has nothing else to do.
const AT_ONCE: Duration = Duration::from_millis(100);
const TRIES: u32 = 20;

/// Panics unless it is done at once. The machine may be busy with other tests, so one try of some has to succeed.
#[track_caller]
pub fn assert_at_once(mut act: impl FnMut()) {
    let mut times = (0..TRIES).map(|_| {
        let start = Instant::now();
        act();
        start.elapsed()
    });
    assert!(times.any(|time| time < AT_ONCE), "never within {AT_ONCE:?}");
}

/// Brings batches in a session, and bets in classic messages.
#[derive(Debug)]
pub struct Honest {
    session: Client,
    agency: u32,
    stored: u32,
}

impl Honest {
    /// The first client of that agency.
    pub fn new(server: &RunningServer, agency: u32) -> Self {
        Self { session: server.session(agency).0, agency, stored: 0 }
    }

    /// Brings a batch, and a bet.
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

    /// Both must be done at once.
    #[track_caller]
    pub fn is_served_at_once(&mut self, server: &RunningServer) {
        assert_at_once(|| self.take_turn(server));
    }

    /// Leaves. All that it brought must be stored, and nothing of anybody else.
    #[track_caller]
    pub fn leave(self, server: &RunningServer) {
        assert!(server.bets_file() == rows(&bets(self.agency, 0..self.stored)), "not just its own bets");
    }
}

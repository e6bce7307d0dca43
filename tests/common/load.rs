//! A load that its seed determines: sessions with eight batches in flight, two of them of the same agency, and classic
//! clients. All clients retry, whatever happens to the server, until they have their results.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Error, Result, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::client::{Client, bets_frame, frame};
use super::{Bet, bets, kind, records};

/// The agencies that use sessions.
pub const SESSIONS: [u32; 3] = [1, 2, 3];
/// The agencies that use classic messages.
pub const CLASSIC: [u32; 2] = [4, 5];
pub const AGENCIES: u32 = 5;
/// The number of bets of each agency that uses sessions.
pub const BETS: u32 = 1200;

const CLASSIC_CLIENTS: u32 = 2;
const REQUESTS: usize = 30;
/// The number of batches in flight.
const WINDOW: usize = 8;
/// How long the load may take.
const LIMIT: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(3);
/// One bet of this many wins.
const WINS: u32 = 17;

/// The outcome of a classic request, as far as the client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Acked,
    Refused,
    Unknown,
}

/// A classic request. Its bets are in no other request.
#[derive(Debug, Clone)]
pub struct Request {
    pub bets: Vec<Bet>,
    pub outcome: Outcome,
}

/// What the clients share, and what they were told.
#[derive(Debug)]
pub struct Load {
    port: u16,
    seed: u64,
    /// Whether the disk may fail, so that good bets are refused.
    may_refuse: bool,
    until: Instant,
    acknowledged: BTreeMap<u32, AtomicU64>,
    ended: BTreeMap<u32, AtomicBool>,
    running: AtomicUsize,
    failed: AtomicBool,
    requests: Mutex<Vec<Request>>,
    results: Mutex<Vec<(u32, Vec<u8>)>>,
}

/// The bets of an agency that uses sessions.
pub fn stream(agency: u32) -> Vec<Bet> {
    bets(agency, 0..BETS).into_iter().map(with_winners).collect()
}

fn with_winners(bet: Bet) -> Bet {
    let index: u32 = bet.document.parse().unwrap();
    if index.is_multiple_of(WINS) { Bet { number: super::bets::WINNING, ..bet } } else { bet }
}

/// The size of a batch. Most are small; some need several messages of the request queue.
fn batch_size(random: &mut ChaCha8Rng) -> usize {
    if random.random_range(0..8) == 0 { random.random_range(150..400) } else { random.random_range(1..40) }
}

impl Load {
    /// A load for the server at that port.
    pub fn new(port: u16, seed: u64, may_refuse: bool) -> Self {
        Self {
            port,
            seed,
            may_refuse,
            until: Instant::now() + LIMIT,
            acknowledged: SESSIONS.map(|agency| (agency, AtomicU64::new(0))).into(),
            ended: SESSIONS.map(|agency| (agency, AtomicBool::new(false))).into(),
            running: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            requests: Mutex::default(),
            results: Mutex::default(),
        }
    }

    /// Runs all clients to their ends and `meanwhile` beside them.
    pub fn run<T: Send>(&self, meanwhile: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let sessions = SESSIONS.into_iter().chain([SESSIONS[2]]);
            for (number, agency) in (0..).zip(sessions) {
                scope.spawn(move || self.guarded(|| self.session(agency, number)));
            }
            scope.spawn(|| {
                self.guarded(|| {
                    std::thread::scope(|clients| {
                        for client in 0..CLASSIC_CLIENTS {
                            clients.spawn(move || self.guarded(|| self.classic_client(client)));
                        }
                    });
                    for agency in CLASSIC {
                        self.classic_end(agency);
                    }
                });
            });
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
            if outcome.is_err() {
                self.failed.store(true, Ordering::SeqCst);
            }
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a client; one that fails ends all of them.
    fn guarded(&self, client: impl FnOnce()) {
        struct Guard<'a>(&'a Load);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                self.0.running.fetch_sub(1, Ordering::SeqCst);
                self.0.failed.fetch_or(std::thread::panicking(), Ordering::SeqCst);
            }
        }
        self.running.fetch_add(1, Ordering::SeqCst);
        let _guard = Guard(self);
        client();
    }

    /// Whether all clients have their results, or the test has failed.
    pub fn is_over(&self) -> bool {
        self.failed.load(Ordering::SeqCst) || (self.results().len() == SESSIONS.len() + 1 + CLASSIC.len())
    }

    /// How many bets of sessions were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.values().map(|count| count.load(Ordering::SeqCst)).sum()
    }

    /// How many of that agency were.
    pub(crate) fn acknowledged_of(&self, agency: u32) -> u64 {
        self.acknowledged[&agency].load(Ordering::SeqCst)
    }

    /// The classic requests, with what became of them.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The results that clients got: agency, documents.
    pub fn results(&self) -> Vec<(u32, Vec<u8>)> {
        self.results.lock().unwrap().clone()
    }

    fn random(&self, client: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.seed * 100 + client)
    }

    /// Repeats the attempt until it succeeds.
    fn insist<T>(&self, what: &str, mut attempt: impl FnMut() -> Result<T>) -> T {
        loop {
            match attempt() {
                Ok(done) => return done,
                Err(error) => {
                    assert!(!self.failed.load(Ordering::SeqCst), "another client has failed");
                    assert!(Instant::now() < self.until, "{what}: {error}");
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    fn session(&self, agency: u32, number: u64) {
        let mut random = self.random(number);
        let all = stream(agency);
        let winners = self.insist("a session", || self.attend(agency, &all, &mut random));
        self.results.lock().unwrap().push((agency, winners));
    }

    fn attend(&self, agency: u32, all: &[Bet], random: &mut ChaCha8Rng) -> Result<Vec<u8>> {
        let mut client = Client::try_connect(self.port)?;
        let known = self.acknowledged_of(agency);
        let has_ended = self.ended[&agency].load(Ordering::SeqCst);
        let opened = client.try_open_session(agency)?;
        assert!(opened.state > 0 || !has_ended, "the END of agency {agency} was acknowledged");
        assert!(opened.stored >= known, "agency {agency}: {known} bets were stored, now {}", opened.stored);
        if opened.state == 0 {
            self.upload(&mut client, agency, all, opened.stored, random)?;
            client.stream.write_all(&frame(kind::END, b""))?;
            let (got, reason) = client.try_read_frame()?;
            self.must_be(kind::BET_ACK, got, &reason)?;
            self.ended[&agency].store(true, Ordering::SeqCst);
        } else {
            assert_eq!(
                opened.stored,
                all.len() as u64,
                "agency {agency} has ended before its bets were there"
            );
        }
        client.stream.write_all(&frame(kind::AWAIT_RESULT, b""))?;
        let (got, winners) = client.try_read_frame()?;
        assert_eq!(got, kind::RESULT);
        Ok(winners)
    }

    /// Panics unless the reply is the expected one. If the disk may fail, a refusal is an error instead.
    fn must_be(&self, expected: u8, got: u8, payload: &[u8]) -> Result<()> {
        let reason = String::from_utf8_lossy(payload);
        if got == kind::ERROR && self.may_refuse {
            return Err(Error::other(reason.into_owned()));
        }
        assert_eq!(got, expected, "{reason}");
        Ok(())
    }

    fn upload(
        &self,
        client: &mut Client,
        agency: u32,
        all: &[Bet],
        stored: u64,
        random: &mut ChaCha8Rng,
    ) -> Result<()> {
        let mut next = usize::try_from(stored).unwrap();
        let mut in_flight = VecDeque::new();
        loop {
            while in_flight.len() < WINDOW && next < all.len() {
                // One batch of ten begins with up to 29 bets that were sent before.
                let again = if random.random_range(0..10) == 0 { random.random_range(0..30) } else { 0 };
                let first = next.saturating_sub(again);
                next = (next + batch_size(random)).min(all.len());
                client.stream.write_all(&bets_frame(first as u64, &all[first..next]))?;
                in_flight.push_back(next as u64);
            }
            let Some(expected) = in_flight.pop_front() else { return Ok(()) };
            let (got, payload) = client.try_read_frame()?;
            self.must_be(kind::SESSION_STORED, got, &payload)?;
            let stored = u64::from_be_bytes(payload.try_into().unwrap());
            assert!(stored >= expected, "agency {agency}: {stored} stored, but {expected} were sent");
            self.acknowledged[&agency].fetch_max(stored, Ordering::SeqCst);
        }
    }

    fn classic_client(&self, number: u32) {
        let mut random = self.random(50 + u64::from(number));
        let mut next = number * 1_000_000;
        for _ in 0..REQUESTS {
            let count = if random.random_range(0..4) == 0 { 1 } else { batch_size(&mut random) };
            let mixed = random.random_range(0..2) == 0;
            let mut bets: Vec<Bet> = (next..)
                .take(count)
                .map(|index| {
                    let agency = if mixed { index % 2 } else { number % 2 };
                    with_winners(Bet::made_up(CLASSIC[agency as usize], index))
                })
                .collect();
            next += u32::try_from(count).unwrap();
            let bad = random.random_range(0..8) == 0;
            if bad {
                let place = random.random_range(0..count);
                bets[place].agency = AGENCIES + 1;
            }
            let outcome = self.insist("a classic request", || self.classic(&bets));
            assert!(!bad || outcome != Outcome::Acked, "a bad bet was accepted");
            assert!(bad || self.may_refuse || outcome != Outcome::Refused, "good bets were refused");
            self.requests.lock().unwrap().push(Request { bets, outcome });
            self.insist("the result's state", || {
                let mut client = Client::try_connect(self.port)?;
                let agency = CLASSIC.map(|agency| u8::try_from(agency).unwrap())[random.random_range(0..2)];
                client.stream.write_all(&frame(kind::RESULT_REQUEST, &[agency]))?;
                let (got, _) = client.try_read_frame()?;
                assert_eq!(got, kind::IN_PROGRESS);
                Ok(())
            });
        }
    }

    /// Sends one request. An error means that it was not sent at all.
    fn classic(&self, bets: &[Bet]) -> Result<Outcome> {
        let mut client = Client::try_connect(self.port)?;
        let kind = if bets.len() == 1 { kind::BET } else { kind::MULTIPLE_BETS };
        if client.stream.write_all(&frame(kind, &records(bets))).is_err() {
            return Ok(Outcome::Unknown);
        }
        Ok(match client.try_read_frame() {
            Ok((kind::BET_ACK, _)) => Outcome::Acked,
            Ok((kind::ERROR, _)) => Outcome::Refused,
            Ok((other, _)) => panic!("an answer of type {other}"),
            Err(_) => Outcome::Unknown,
        })
    }

    /// Sends END and asks for the result until the draw has been made.
    fn classic_end(&self, agency: u32) {
        let number = u8::try_from(agency).unwrap();
        // Without the ENDs of both agencies there is no draw.
        for other in CLASSIC.map(|agency| u8::try_from(agency).unwrap()) {
            self.insist("an END", || {
                Client::try_connect(self.port)?.stream.write_all(&frame(kind::END, &[other]))
            });
        }
        let winners = self.insist("a result", || {
            // An END has no reply and may be lost. It may be repeated.
            for other in CLASSIC.map(|agency| u8::try_from(agency).unwrap()) {
                Client::try_connect(self.port)?.stream.write_all(&frame(kind::END, &[other]))?;
            }
            let mut client = Client::try_connect(self.port)?;
            client.stream.write_all(&frame(kind::RESULT_REQUEST, &[number]))?;
            match client.try_read_frame()? {
                (kind::RESULT, winners) => Ok(winners),
                (kind::IN_PROGRESS, _) => Err(Error::other("in progress")),
                (other, _) => panic!("an answer of type {other}"),
            }
        });
        self.results.lock().unwrap().push((agency, winners));
    }
}

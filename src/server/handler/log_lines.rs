//! What a handler logs about its client.

use std::fmt::Display;
use std::mem;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::ipc::shared_counters::Counter;
use crate::ipc::voucher::Peer;
use crate::logging::{Field, Level, Outcome, event, info};
use crate::lottery::hex::hex;
use crate::lottery::{AgencyId, Digest};

/// What a client's message is about.
#[derive(Debug)]
pub(super) enum Subject {
    /// A message that breaks the protocol.
    Protocol,
    /// The proof of who the client is, or the opening of a session.
    Opening,
    /// A classic bet: its document and number, if the record could be read.
    Bet(Option<(String, u32)>),
    /// So many bets.
    Bets(usize),
    /// The END of an agency.
    End(u16),
    /// The result of an agency.
    Result(u16),
}

impl Subject {
    /// Logs what became of a message from `ip`, or why it was refused. `session` is the agency of the session in which it
    /// came. A message `is_routine` if clients send it again and again.
    pub(super) fn log(
        &self,
        ip: IpAddr,
        session: Option<AgencyId>,
        is_routine: bool,
        outcome: Result<Outcome, &str>,
    ) {
        let of_session = session.as_ref().map(|agency| -> Field<'_> { ("agency_id", agency) });
        let of_session = of_session.as_slice();
        match self {
            Self::Protocol | Self::Opening => {
                log(Level::Info, "protocol", &[of_session, &[("ip", &ip)]].concat(), outcome);
            }
            Self::Bet(None) => log(Level::Info, "apuesta_almacenada", &[], outcome),
            Self::Bet(Some((document, number))) => {
                log(Level::Info, "apuesta_almacenada", &[("dni", document), ("numero", number)], outcome);
            }
            Self::Bets(count) => {
                let fields = [of_session, &[("cantidad", count)]].concat();
                log(level(session.is_some()), "apuesta_recibida", &fields, outcome);
            }
            Self::End(agency) => log(level(is_routine), "end_message", &[("agency_id", agency)], outcome),
            Self::Result(agency) => {
                let is_poll = outcome == Ok(Outcome::InProgress) && (is_routine || session.is_some());
                log(level(is_poll), "result_request", &[("agency_id", agency)], outcome);
            }
        }
    }

    /// The counter of the refusals of such messages by handlers.
    pub(super) fn counter(&self) -> Counter {
        match self {
            Self::Protocol => Counter::Protocol,
            Self::Bet(_) | Self::Bets(_) => Counter::Bets,
            Self::Opening | Self::End(_) | Self::Result(_) => Counter::Agency,
        }
    }
}

fn level(is_frequent: bool) -> Level {
    if is_frequent { Level::Debug } else { Level::Info }
}

fn log(level: Level, action: &str, fields: &[Field<'_>], outcome: Result<Outcome, &str>) {
    match outcome {
        Ok(outcome) => event(level, action, outcome, fields),
        Err(error) => event(level, action, Outcome::Fail, &[fields, &[("error", &error)]].concat()),
    }
}

/// Logs that a client came, and over TLS who it has proven to be, and the serial number of its certificate.
pub(super) fn log_arrival(ip: IpAddr, is_routine: bool, proven: Option<(Peer, &[u8])>) {
    event(level(is_routine), "accept_connections", Outcome::Success, &[("ip", &ip)]);
    let Some((peer, serial)) = proven else { return };
    let serial = hex(serial);
    let agency: &dyn Display = match &peer {
        Peer::Agency(agency) => agency,
        Peer::Operator => &"operator",
    };
    let fields: [Field<'_>; 3] = [("ip", &ip), ("agency_id", agency), ("serial", &serial)];
    event(level(is_routine), "authenticate", Outcome::Success, &fields);
}

/// Logs why a client without a session could not be served.
pub(super) fn log_client(level: Level, ip: IpAddr, error: &dyn Display) {
    event(level, "client", Outcome::Fail, &[("ip", &ip), ("error", error)]);
}

/// Logs why a client could not prove over TLS who it is.
pub(super) fn log_not_authenticated(ip: IpAddr, reason: &dyn Display) {
    info("authenticate", Outcome::Fail, &[("ip", &ip), ("reason", reason)]);
}

/// The shortest time between two reports of a session, and between two lines about refusals.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// A session, and what has been logged about it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) agency: AgencyId,
    /// The version of the session messages.
    version: u8,
    counts: Counts,
    reported: Counts,
    report_at: Instant,
    // Whether these outcomes have had their line: an END, a result request before the draw, a result.
    has_ended: bool,
    has_asked: bool,
    has_result: bool,
}

/// What a session has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    /// How many bets of the agency are on disk.
    stored: u64,
    /// How many of its messages were refused.
    refused: u64,
    /// How many of its ENDs and result requests had the same outcome as an earlier one.
    repeated: u64,
}

impl Session {
    pub(super) fn new(agency: AgencyId, version: u8) -> Self {
        Self {
            agency,
            version,
            counts: Counts::default(),
            reported: Counts::default(),
            report_at: Instant::now() + REPORT_INTERVAL,
            has_ended: false,
            has_asked: false,
            has_result: false,
        }
    }

    /// Logs that storage has opened the session. Returns the digest if the client knows digests.
    pub(super) fn opened(&mut self, ip: IpAddr, stored: u64, digest: Digest) -> Option<Digest> {
        let fields: [Field<'_>; 3] = [("agency_id", &self.agency), ("stored", &stored), ("ip", &ip)];
        info("session_opened", Outcome::Success, &fields);
        self.reported.stored = stored;
        self.stored(stored, digest)
    }

    /// Takes how many bets of the agency are on disk. Returns their digest if the client knows digests.
    pub(super) fn stored(&mut self, stored: u64, digest: Digest) -> Option<Digest> {
        self.counts.stored = stored;
        (self.version > 1).then_some(digest)
    }

    /// Counts a message. Returns whether it gets a line of its own: a client can send refused and repeated messages without
    /// end, so most of them are only counted, and the reports have the numbers.
    pub(super) fn count(&mut self, subject: &Subject, outcome: Result<Outcome, &str>) -> bool {
        let seen = match (subject, outcome) {
            (_, Err(_)) => return self.count_refusal(Instant::now()),
            (Subject::End(_), _) => &mut self.has_ended,
            (Subject::Result(_), Ok(Outcome::InProgress)) => &mut self.has_asked,
            (Subject::Result(_), _) => &mut self.has_result,
            _ => return true,
        };
        let is_repeated = mem::replace(seen, true);
        self.counts.repeated += u64::from(is_repeated);
        !is_repeated
    }

    fn count_refusal(&mut self, now: Instant) -> bool {
        self.counts.refused += 1;
        self.report(now);
        let has_line = self.counts.refused == 1 || now >= self.report_at;
        if has_line {
            self.report_at = now + REPORT_INTERVAL;
        }
        has_line
    }

    /// When the next report is due, if there is something to report.
    pub(super) fn next_report(&self) -> Option<Instant> {
        (self.counts != self.reported).then_some(self.report_at)
    }

    /// Logs the progress if that is due.
    pub(super) fn report(&mut self, now: Instant) {
        if self.next_report().is_some_and(|due| now >= due) {
            self.reported = self.counts;
            self.report_at = now + REPORT_INTERVAL;
            info("session_progress", Outcome::InProgress, &self.fields());
        }
    }

    pub(super) fn log_closed(&self, outcome: Outcome, reason: &dyn Display) {
        let fields = [&self.fields()[..], &[("reason", reason)]].concat();
        info("session_closed", outcome, &fields);
    }

    fn fields(&self) -> [Field<'_>; 4] {
        let Counts { stored, refused, repeated } = &self.counts;
        [("agency_id", &self.agency), ("stored", stored), ("refused", refused), ("repeated", repeated)]
    }
}

//! What a handler logs about its client.

use std::fmt::Display;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::ipc::shared_counters::Counter;
use crate::logging::{Field, Level, Outcome, event, info};
use crate::lottery::AgencyId;

/// What a client's message is about.
#[derive(Debug)]
pub(super) enum Subject {
    /// A message that breaks the protocol.
    Protocol,
    /// The opening of a session.
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
    /// Logs what became of a message from `ip`. A line with an `error` says `fail`. `bets_level` is the level of lines
    /// about several bets.
    pub(super) fn log(&self, ip: IpAddr, bets_level: Level, error: Option<&str>) {
        match self {
            Self::Protocol | Self::Opening => log(Level::Info, "protocol", &[("ip", &ip)], error),
            Self::Bet(None) => log(Level::Info, "apuesta_almacenada", &[], error),
            Self::Bet(Some((document, number))) => {
                log(Level::Info, "apuesta_almacenada", &[("dni", document), ("numero", number)], error);
            }
            Self::Bets(count) => log(bets_level, "apuesta_recibida", &[("cantidad", count)], error),
            Self::End(agency) => log(Level::Info, "end_message", &[("agency_id", agency)], error),
            Self::Result(agency) => log(Level::Info, "result_request", &[("agency_id", agency)], error),
        }
    }

    /// What counts a refusal by a handler.
    pub(super) fn counter(&self) -> Counter {
        match self {
            Self::Protocol => Counter::Protocol,
            Self::Bet(_) | Self::Bets(_) => Counter::Bets,
            Self::Opening | Self::End(_) | Self::Result(_) => Counter::Agency,
        }
    }
}

fn log(level: Level, action: &str, fields: &[Field<'_>], error: Option<&str>) {
    if let Some(error) = &error {
        let fields = [fields, &[("error", error)]].concat();
        event(level, action, Outcome::Fail, &fields);
    } else {
        event(level, action, Outcome::Success, fields);
    }
}

pub(super) fn log_accepted(level: Level, ip: IpAddr) {
    event(level, "accept_connections", Outcome::Success, &[("ip", &ip)]);
}

/// Logs why a client without a session could not be served.
pub(super) fn log_client(ip: IpAddr, error: &dyn Display) {
    info("client", Outcome::Fail, &[("ip", &ip), ("error", error)]);
}

/// How often a session that makes progress logs it.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// A session, and what has been logged about it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) agency: AgencyId,
    /// How many bets of the agency are on disk.
    pub(super) stored: u64,
    /// How many frames of bets were refused.
    pub(super) refused: u64,
    reported: u64,
    report_at: Instant,
}

impl Session {
    pub(super) fn new(agency: AgencyId, stored: u64) -> Self {
        Self { agency, stored, refused: 0, reported: stored, report_at: Instant::now() + REPORT_INTERVAL }
    }

    /// When the next progress line is due, if there is progress.
    pub(super) fn next_report(&self) -> Option<Instant> {
        (self.stored != self.reported).then_some(self.report_at)
    }

    /// Logs the progress if that is due.
    pub(super) fn report(&mut self, now: Instant) {
        if self.next_report().is_some_and(|due| now >= due) {
            self.reported = self.stored;
            self.report_at = now + REPORT_INTERVAL;
            let fields: [Field<'_>; 2] = [("agency_id", &self.agency), ("stored", &self.stored)];
            info("session_progress", Outcome::InProgress, &fields);
        }
    }

    pub(super) fn log_closed(&self, outcome: Outcome, reason: &dyn Display) {
        let Self { agency, stored, refused, .. } = self;
        info(
            "session_closed",
            outcome,
            &[("agency_id", agency), ("stored", stored), ("refused", refused), ("reason", reason)],
        );
    }
}

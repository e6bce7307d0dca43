//! Sessions: many frames over one connection, of one agency, answered in the order in which they came.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::classic::{log_bets, log_end, log_result_refused};
use super::dialog::{Deferred, Dialog, Mode, Question, log_protocol};
use super::rows::push_rows;
use crate::ipc::message::{Refusal, Request};
use crate::ipc::shared_counters::Counter;
use crate::logging::{Field, Level, Outcome, info};
use crate::lottery::AgencyId;
use crate::protocol::frame::FrameType;
use crate::protocol::message::{ClientMessage, MessageError, SESSION_VERSION};
use crate::protocol::record::count_records;
use crate::system::process::interrupt_nobody;

/// How often a session that goes forward says how far it is.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// An open session.
#[derive(Debug)]
pub struct Session {
    agency: AgencyId,
    stored: u64,
    refused: u64,
    reported: u64,
    report_at: Instant,
}

impl Session {
    /// A session that has just been opened; says so in the log.
    #[must_use]
    pub fn opened(agency: AgencyId, stored: u64, ip: IpAddr) -> Self {
        let fields: [Field<'_>; 3] = [("agency_id", &agency), ("stored", &stored), ("ip", &ip)];
        info("session_opened", Outcome::Success, &fields);
        Self::new(agency, stored)
    }

    fn new(agency: AgencyId, stored: u64) -> Self {
        Self { agency, stored, refused: 0, reported: stored, report_at: Instant::now() + REPORT_EVERY }
    }

    /// The agency has so many bets on disk.
    pub fn stored(&mut self, stored: u64) {
        self.stored = self.stored.max(stored);
    }

    /// A frame of bets was refused.
    pub fn refused(&mut self) {
        self.refused += 1;
    }

    /// When there is something to say.
    #[must_use]
    pub fn next_report(&self) -> Option<Instant> {
        (self.stored != self.reported).then_some(self.report_at)
    }

    /// Says how far it is, if it is time.
    pub fn report(&mut self, now: Instant) {
        if self.next_report().is_none_or(|at| now < at) {
            return;
        }
        self.reported = self.stored;
        self.report_at = now + REPORT_EVERY;
        info(
            "session_progress",
            Outcome::InProgress,
            &[("agency_id", &self.agency), ("stored", &self.stored)],
        );
    }

    /// Says how it ended.
    pub fn closed(&self, outcome: Outcome, reason: &str) {
        let fields: [Field<'_>; 4] = [
            ("agency_id", &self.agency),
            ("stored", &self.stored),
            ("refused", &self.refused),
            ("reason", &reason),
        ];
        info("session_closed", outcome, &fields);
    }
}

/// Takes the `OPEN_SESSION` that a connection began with.
///
/// # Errors
/// The storage service can't be asked.
pub fn open(dialog: &mut Dialog<'_>, version: u8, agency: u32) -> io::Result<()> {
    if version != SESSION_VERSION {
        dialog
            .refuse_and_end(format!("session version {version} is not spoken here, only {SESSION_VERSION}"));
        return Ok(());
    }
    let agencies = dialog.view.agencies;
    let Some(agency) = AgencyId::new(agency).filter(|agency| agency.get() <= agencies) else {
        dialog.view.counters.add(Counter::Agency);
        dialog.end_refused(Refusal::NoSuchAgency { agencies }.to_string());
        return Ok(());
    };
    interrupt_nobody();
    dialog.view.confinement.enter_session()?;
    super::probe("session");
    // Frames behind this one are taken already, as the storage service answers in order.
    dialog.mode = Mode::Session(Session::new(agency, 0));
    dialog.ask(Request::OpenSession { agency }, Question::Open(agency))
}

/// Takes a frame of an open session.
///
/// # Errors
/// The storage service can't be asked.
pub fn take(dialog: &mut Dialog<'_>, message: Result<ClientMessage<'_>, MessageError>) -> io::Result<()> {
    let Mode::Session(Session { agency, .. }) = dialog.mode else { return Ok(()) };
    let others = "this session is of another agency";
    match message {
        Ok(ClientMessage::SessionBets { first, records }) => bets(dialog, agency, first, records),
        Ok(ClientMessage::End(named)) if is_own(agency, named) => {
            dialog.ask(Request::EndAgency { agency }, Question::End(agency))
        }
        Ok(ClientMessage::End(named)) => {
            log_end(named.unwrap_or(0).into(), Some(others));
            dialog.view.counters.add(Counter::Agency);
            dialog.refuse(others);
            Ok(())
        }
        Ok(ClientMessage::ResultRequest(named)) if is_own(agency, named) => {
            dialog.defer(Deferred::Winners { agency, wait: false })
        }
        Ok(ClientMessage::ResultRequest(named)) => {
            log_result_refused(named.unwrap_or(0).into(), others);
            dialog.view.counters.add(Counter::Agency);
            dialog.refuse(others);
            Ok(())
        }
        Ok(ClientMessage::AwaitResult) => dialog.defer(Deferred::Winners { agency, wait: true }),
        Ok(ClientMessage::OpenSession { .. }) => {
            dialog.refuse_and_end("the session is open already");
            Ok(())
        }
        Ok(ClientMessage::Bet(_) | ClientMessage::MultipleBets(_) | ClientMessage::StatusRequest) => {
            dialog.refuse_and_end("this message has no place in a session");
            Ok(())
        }
        Err(error) => {
            if let MessageError::Payload {
                kind:
                    FrameType::SessionBets | FrameType::End | FrameType::ResultRequest | FrameType::AwaitResult,
                ..
            } = error
            {
                log_protocol(dialog.ip, &error);
                dialog.view.counters.add(Counter::Protocol);
                dialog.refuse(error.to_string());
            } else {
                dialog.refuse_and_end(error.to_string());
            }
            Ok(())
        }
    }
}

fn is_own(agency: AgencyId, named: Option<u8>) -> bool {
    named.is_none_or(|named| u16::from(named) == agency.get())
}

fn bets(dialog: &mut Dialog<'_>, agency: AgencyId, first: u64, records: &[u8]) -> io::Result<()> {
    let mut others = false;
    let checked = push_rows(records, dialog.storage.body(), |bet| others |= bet.agency != agency);
    let error = match checked {
        Ok(count) if !others => {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            return dialog.ask(Request::StoreBets { first: Some(first) }, Question::SessionBets(count));
        }
        Ok(_) => Refusal::OtherAgency.to_string(),
        Err(error) => error.to_string(),
    };
    dialog.view.counters.add(Counter::Bets);
    dialog.storage.clear_body();
    log_bets(Level::Debug, count_records(records), Some(&error));
    if let Mode::Session(session) = &mut dialog.mode {
        session.refused();
    }
    dialog.refuse(error);
    Ok(())
}

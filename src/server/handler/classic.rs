//! Classic messages: one per connection, answered, and the connection is closed.

use std::io;

use super::dialog::{Deferred, Dialog, Question};
use super::rows::push_rows;
use crate::ipc::message::{Refusal, Request};
use crate::ipc::shared_counters::Counter;
use crate::logging::{Field, Level, Outcome, event, info};
use crate::lottery::AgencyId;
use crate::protocol::message::{ClientMessage, MessageError};
use crate::protocol::record::count_records;

/// Takes the one message of the connection.
///
/// # Errors
/// The storage service can't be asked.
pub fn take(dialog: &mut Dialog<'_>, message: Result<ClientMessage<'_>, MessageError>) -> io::Result<()> {
    match message {
        Ok(ClientMessage::Bet(record)) => bet(dialog, record),
        Ok(ClientMessage::MultipleBets(records)) => bets(dialog, records),
        Ok(ClientMessage::End(Some(agency))) => end(dialog, agency),
        Ok(ClientMessage::ResultRequest(Some(agency))) => result(dialog, agency),
        Ok(ClientMessage::StatusRequest) => dialog.defer(Deferred::Status),
        Ok(ClientMessage::End(None) | ClientMessage::ResultRequest(None)) => {
            dialog.refuse_and_end("outside of a session the agency must be named, in 1 byte");
            Ok(())
        }
        Ok(ClientMessage::SessionBets { .. } | ClientMessage::AwaitResult) => {
            dialog.refuse_and_end("there is no session: send OPEN_SESSION first");
            Ok(())
        }
        // A session's first message never comes here.
        Ok(ClientMessage::OpenSession { .. }) => Ok(()),
        Err(error) => {
            dialog.refuse_and_end(error.to_string());
            Ok(())
        }
    }
}

fn bet(dialog: &mut Dialog<'_>, record: &[u8]) -> io::Result<()> {
    let mut bet = None;
    let checked = encode_rows(dialog, record, |document, number| {
        bet = Some((document.to_owned(), number));
    });
    let checked = match checked {
        Ok(2..) => Err("this message takes one bet only".to_owned()),
        other => other,
    };
    match (checked, bet) {
        (Ok(_), Some((document, number))) => {
            dialog.ask(Request::StoreBets { first: None }, Question::Bet { document, number })
        }
        (checked, bet) => {
            dialog.view.counters.add(Counter::Bets);
            dialog.storage.clear_body();
            let error = checked.err().unwrap_or_default();
            log_bet(bet.as_ref().map(|(document, number)| (document.as_str(), *number)), Some(&error));
            dialog.refuse(error);
            Ok(())
        }
    }
}

fn bets(dialog: &mut Dialog<'_>, records: &[u8]) -> io::Result<()> {
    match encode_rows(dialog, records, |_, _| ()) {
        Ok(count) => {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            dialog.ask(Request::StoreBets { first: None }, Question::Bets(count))
        }
        Err(error) => {
            dialog.view.counters.add(Counter::Bets);
            dialog.storage.clear_body();
            log_bets(Level::Info, count_records(records), Some(&error));
            dialog.refuse(error);
            Ok(())
        }
    }
}

/// Validates the records and writes their rows where the next request's go. Returns how many there were.
fn encode_rows(
    dialog: &mut Dialog<'_>,
    records: &[u8],
    mut seen: impl FnMut(&str, u32),
) -> Result<u64, String> {
    let agencies = dialog.view.agencies;
    let rows = dialog.storage.body();
    let mut unknown = false;
    let count = push_rows(records, rows, |bet| {
        seen(bet.document, bet.number);
        unknown |= bet.agency.get() > agencies;
    });
    match count {
        Ok(_) if unknown => Err(Refusal::NoSuchAgency { agencies }.to_string()),
        Ok(count) => Ok(count),
        Err(error) => Err(error.to_string()),
    }
}

fn end(dialog: &mut Dialog<'_>, number: u8) -> io::Result<()> {
    match known(dialog, number) {
        Ok(agency) => dialog.ask(Request::EndAgency { agency }, Question::End(agency)),
        Err(refusal) => {
            log_end(number.into(), Some(&refusal.to_string()));
            Ok(())
        }
    }
}

fn result(dialog: &mut Dialog<'_>, number: u8) -> io::Result<()> {
    match known(dialog, number) {
        Ok(agency) => dialog.defer(Deferred::Winners { agency, wait: false }),
        Err(refusal) => {
            let error = refusal.to_string();
            log_result_refused(number.into(), &error);
            dialog.refuse(error);
            Ok(())
        }
    }
}

fn known(dialog: &Dialog<'_>, number: u8) -> Result<AgencyId, Refusal> {
    let agencies = dialog.view.agencies;
    AgencyId::new(number).filter(|agency| agency.get() <= agencies).ok_or_else(|| {
        dialog.view.counters.add(Counter::Agency);
        Refusal::NoSuchAgency { agencies }
    })
}

/// The line about a classic bet. A record that could not be read has neither document nor number.
pub fn log_bet(bet: Option<(&str, u32)>, error: Option<&str>) {
    let mut fields: Vec<Field<'_>> = Vec::new();
    if let Some((document, number)) = &bet {
        fields.push(("dni", document));
        fields.push(("numero", number));
    }
    if let Some(error) = &error {
        fields.push(("error", error));
    }
    info("apuesta_almacenada", outcome(error), &fields);
}

/// The line about several bets.
pub fn log_bets(level: Level, count: usize, error: Option<&str>) {
    match &error {
        None => event(level, "apuesta_recibida", Outcome::Success, &[("cantidad", &count)]),
        Some(reason) => {
            event(level, "apuesta_recibida", Outcome::Fail, &[("cantidad", &count), ("error", reason)]);
        }
    }
}

/// The line about an END.
pub fn log_end(agency: u32, error: Option<&str>) {
    match &error {
        None => info("end_message", Outcome::Success, &[("agency_id", &agency)]),
        Some(reason) => info("end_message", Outcome::Fail, &[("agency_id", &agency), ("error", reason)]),
    }
}

/// The line about a request for the result of an agency that does not take part.
pub fn log_result_refused(agency: u32, error: &str) {
    info("result_request", Outcome::Fail, &[("agency_id", &agency), ("error", &error)]);
}

fn outcome(error: Option<&str>) -> Outcome {
    if error.is_none() { Outcome::Success } else { Outcome::Fail }
}

//! Classic messages: one per connection, answered, and the connection is closed.

use std::io;

use super::connection::Connection;
use super::dialog::{Dialog, Later, Question, acknowledge, refusal};
use super::log_lines::{log_bet, log_bets, log_end, log_result_refused};
use crate::ipc::refusal::Refusal;
use crate::ipc::reply_pipe::Reply;
use crate::ipc::request_queue::Request;
use crate::ipc::shared_counters::Counter;
use crate::logging::Level;
use crate::lottery::AgencyId;
use crate::protocol::message::{ClientMessage, MessageError};
use crate::protocol::record::{count_records, push_rows};

/// Takes the one message of the connection.
///
/// # Errors
/// The storage service can't be asked.
pub fn take(dialog: &mut Dialog<'_>, message: Result<ClientMessage<'_>, MessageError>) -> io::Result<()> {
    match message {
        Ok(ClientMessage::Bet(record)) => return bet(dialog, record),
        Ok(ClientMessage::MultipleBets(records)) => return bets(dialog, records),
        Ok(ClientMessage::End(Some(agency))) => return end(dialog, agency),
        Ok(ClientMessage::ResultRequest(Some(agency))) => result(dialog, agency),
        Ok(ClientMessage::StatusRequest) => dialog.ask_later(Later::Status),
        Ok(ClientMessage::End(None) | ClientMessage::ResultRequest(None)) => {
            dialog.refuse_and_end("outside of a session the agency must be named, in 1 byte");
        }
        Ok(ClientMessage::SessionBets { .. } | ClientMessage::AwaitResult) => {
            dialog.refuse_and_end("there is no session: send OPEN_SESSION first");
        }
        Ok(ClientMessage::OpenSession { .. }) => {
            dialog.refuse_and_end("a session is opened by a connection's first message");
        }
        Err(error) => dialog.refuse_and_end(error.to_string()),
    }
    Ok(())
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
            let error = checked.err().unwrap_or_default();
            log_bet(bet.as_ref().map(|(document, number)| (document.as_str(), *number)), Some(&error));
            dialog.refuse_bets(error);
            Ok(())
        }
    }
}

fn bets(dialog: &mut Dialog<'_>, records: &[u8]) -> io::Result<()> {
    match encode_rows(dialog, records, |_, _| ()) {
        Ok(count) => dialog.ask(Request::StoreBets { first: None }, Question::Bets(count)),
        Err(error) => {
            log_bets(Level::Info, count_records(records), Some(&error));
            dialog.refuse_bets(error);
            Ok(())
        }
    }
}

/// Validates the records and writes their rows where the next request's go. Returns how many there were.
fn encode_rows(
    dialog: &mut Dialog<'_>,
    records: &[u8],
    mut seen: impl FnMut(&str, u32),
) -> Result<usize, String> {
    let agencies = dialog.view.agencies;
    let mut unknown = false;
    let count = push_rows(records, dialog.storage.body(), |bet| {
        seen(bet.document, bet.number);
        unknown |= bet.agency.get() > agencies;
    });
    match count {
        Ok(_) if unknown => Err(Refusal::NoSuchAgency { agencies }.to_string()),
        Ok(count) => Ok(count),
        Err(error) => Err(error.to_string()),
    }
}

/// Says what became of a bet.
pub fn answer_bet(document: &str, number: u32, reply: &Reply, connection: &mut Connection<'_>) {
    let error = refusal(reply);
    log_bet(Some((document, number)), error.as_deref());
    acknowledge(error.as_deref(), connection);
}

/// Says what became of several bets.
pub fn answer_bets(count: usize, reply: &Reply, connection: &mut Connection<'_>) {
    let error = refusal(reply);
    log_bets(Level::Info, count, error.as_deref());
    acknowledge(error.as_deref(), connection);
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

/// Logs what became of an END: the client is not told.
pub fn answer_end(agency: AgencyId, reply: &Reply) {
    log_end(agency.get().into(), refusal(reply).as_deref());
}

fn result(dialog: &mut Dialog<'_>, number: u8) {
    match known(dialog, number) {
        Ok(agency) => dialog.ask_later(Later::Winners { agency, wait: false }),
        Err(refusal) => {
            let error = refusal.to_string();
            log_result_refused(number.into(), &error);
            dialog.refuse(error);
        }
    }
}

fn known(dialog: &Dialog<'_>, number: u8) -> Result<AgencyId, Refusal> {
    dialog.view.agency(number.into()).inspect_err(|_| dialog.view.counters.add(Counter::Agency))
}

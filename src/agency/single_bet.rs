//! `loteria bet`: one bet, by a classic BET over a connection of its own.

use super::classic::deliver;
use super::error::AgencyError;
use super::pauses::Pauses;
use crate::logging::{self, Level, Outcome};
use crate::lottery::Bet;
use crate::protocol::message::ClientMessage;
use crate::protocol::record::push_record;

/// Brings the bet to the server at `HOST:PORT`, and says in the log what became of it. A server that is not there, or
/// has no room now, is tried again.
///
/// # Errors
/// The server refused it, or it is not known whether it is stored. The log has it already.
pub fn run(bet: &Bet<'_>, address: &str) -> Result<(), AgencyError> {
    let (mut record, mut packet) = (Vec::new(), Vec::new());
    push_record(bet, &mut record);
    ClientMessage::Bet(&record).encode(&mut packet);
    let result = Pauses::default().patiently(|| deliver(address, &packet, || "the bet".to_owned()));
    let (document, number) = (&bet.document, &bet.number);
    match &result {
        Ok(()) => {
            logging::info("apuesta_enviada", Outcome::Success, &[("dni", document), ("numero", number)]);
        }
        Err(error) => logging::event(
            Level::Critical,
            "apuesta_enviada",
            Outcome::Fail,
            &[("dni", document), ("numero", number), ("error", error)],
        ),
    }
    result
}

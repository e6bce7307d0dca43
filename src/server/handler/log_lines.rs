//! What a handler writes to the log, a function for each line. Where there is an `error` the line says `fail`.

use std::fmt::Display;
use std::net::IpAddr;

use crate::logging::{Field, Level, Outcome, event, info};
use crate::lottery::AgencyId;

/// A client came.
pub fn log_accepted(level: Level, ip: IpAddr) {
    event(level, "accept_connections", Outcome::Success, &[("ip", &ip)]);
}

/// The service of a client without a session failed.
pub fn log_client(ip: IpAddr, error: &dyn Display) {
    info("client", Outcome::Fail, &[("ip", &ip), ("error", error)]);
}

/// A message that the protocol does not allow.
pub fn log_protocol(ip: IpAddr, error: &dyn Display) {
    info("protocol", Outcome::Fail, &[("ip", &ip), ("error", error)]);
}

/// A classic bet. A record that could not be read has neither document nor number.
pub fn log_bet(bet: Option<(&str, u32)>, error: Option<&str>) {
    let mut fields: Vec<Field<'_>> = Vec::new();
    if let Some((document, number)) = &bet {
        fields.push(("dni", document));
        fields.push(("numero", number));
    }
    if let Some(error) = &error {
        fields.push(("error", error));
    }
    let outcome = if error.is_none() { Outcome::Success } else { Outcome::Fail };
    info("apuesta_almacenada", outcome, &fields);
}

/// Several bets.
pub fn log_bets(level: Level, count: usize, error: Option<&str>) {
    match &error {
        None => event(level, "apuesta_recibida", Outcome::Success, &[("cantidad", &count)]),
        Some(reason) => {
            event(level, "apuesta_recibida", Outcome::Fail, &[("cantidad", &count), ("error", reason)]);
        }
    }
}

/// An END.
pub fn log_end(agency: u32, error: Option<&str>) {
    match &error {
        None => info("end_message", Outcome::Success, &[("agency_id", &agency)]),
        Some(reason) => info("end_message", Outcome::Fail, &[("agency_id", &agency), ("error", reason)]),
    }
}

/// A result is sent.
pub fn log_result(agency: AgencyId) {
    info("result_request", Outcome::Success, &[("agency_id", &agency)]);
}

/// A result was asked for before the draw.
pub fn log_result_in_progress(level: Level, agency: AgencyId) {
    event(level, "result_request", Outcome::InProgress, &[("agency_id", &agency)]);
}

/// A result was asked for that is not given.
pub fn log_result_refused(agency: u32, error: &str) {
    info("result_request", Outcome::Fail, &[("agency_id", &agency), ("error", &error)]);
}

/// A status was asked for.
pub fn log_status(ip: IpAddr) {
    event(Level::Debug, "status_request", Outcome::Success, &[("ip", &ip)]);
}

/// A session was opened, of an agency that has so many bets on disk.
pub fn log_session_opened(agency: AgencyId, stored: u64, ip: IpAddr) {
    info("session_opened", Outcome::Success, &[("agency_id", &agency), ("stored", &stored), ("ip", &ip)]);
}

/// How far a session is.
pub fn log_session_progress(agency: AgencyId, stored: u64) {
    info("session_progress", Outcome::InProgress, &[("agency_id", &agency), ("stored", &stored)]);
}

/// How a session ended: how many bets of its agency are on disk, how many of its frames of bets were refused.
pub fn log_session_closed(outcome: Outcome, agency: AgencyId, stored: u64, refused: u64, reason: &str) {
    info(
        "session_closed",
        outcome,
        &[("agency_id", &agency), ("stored", &stored), ("refused", &refused), ("reason", &reason)],
    );
}

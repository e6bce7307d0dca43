//! What a handler logs about its client. A line with an `error` says `fail`.

use std::fmt::Display;
use std::net::IpAddr;

use crate::logging::{Field, Level, Outcome, event, info};

/// What a client's message is about.
#[derive(Debug)]
pub(super) enum Subject {
    /// A message that breaks the protocol, or opens no session.
    Protocol,
    /// A classic bet: its document and number, if the record could be read.
    Bet(Option<(String, u32)>),
    /// So many bets.
    Bets(usize),
    /// The END of an agency.
    End(u32),
    /// The result of an agency.
    Result(u32),
}

impl Subject {
    /// Logs what became of a message from `ip`. `bets_level` is the level of lines about several bets.
    pub(super) fn log(&self, ip: IpAddr, bets_level: Level, error: Option<&str>) {
        match self {
            Self::Protocol => log(Level::Info, "protocol", &[("ip", &ip)], error),
            Self::Bet(None) => log(Level::Info, "apuesta_almacenada", &[], error),
            Self::Bet(Some((document, number))) => {
                log(Level::Info, "apuesta_almacenada", &[("dni", document), ("numero", number)], error);
            }
            Self::Bets(count) => log(bets_level, "apuesta_recibida", &[("cantidad", count)], error),
            Self::End(agency) => log(Level::Info, "end_message", &[("agency_id", agency)], error),
            Self::Result(agency) => log(Level::Info, "result_request", &[("agency_id", agency)], error),
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

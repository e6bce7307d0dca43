//! Who may act for whom. Handlers check each message, and storage each request, by the same rules: a handler may have been
//! taken over.
//!
//! | who | may |
//! |---|---|
//! | a client that has proven to be an agency | act for that agency, ask for the status |
//! | a client that has proven to be the operator | ask for the status |
//! | any other client | act for the agencies of `PLAIN_AGENCIES`; ask for the status if it comes from this machine |
//!
//! Without TLS everyone may do everything.

use std::net::IpAddr;

use thiserror::Error;

use crate::ipc::voucher::Peer;
use crate::lottery::{AgencyId, AgencyList};

/// What one client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access<'a> {
    /// The agencies that may come without a certificate. None if TLS is not configured.
    pub(crate) plain: Option<&'a AgencyList>,
    /// Whether the client comes from this machine.
    pub(crate) is_local: bool,
    /// Who it has proven to be.
    pub(crate) proven: Option<Peer>,
}

/// Why a client may not do something. `Display` gives the text that is sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Denied {
    #[error("this server accepts agencies over TLS with a certificate only")]
    NoCertificate,
    #[error("this connection belongs to agency {own}, not {named}")]
    OthersConnection { own: AgencyId, named: AgencyId },
    #[error("this connection belongs to the operator, who may ask for the status only")]
    OperatorsConnection,
}

impl Access<'_> {
    /// Refuses what the client may not do for this agency.
    pub(crate) fn check_agency(&self, agency: AgencyId) -> Result<(), Denied> {
        let Some(plain) = self.plain else { return Ok(()) };
        match self.proven {
            Some(Peer::Agency(own)) if own == agency => Ok(()),
            Some(Peer::Agency(own)) => Err(Denied::OthersConnection { own, named: agency }),
            Some(Peer::Operator) => Err(Denied::OperatorsConnection),
            None if plain.contains(agency) => Ok(()),
            None => Err(Denied::NoCertificate),
        }
    }

    /// Refuses the status to a client that may not have it.
    pub(crate) fn check_status(&self) -> Result<(), Denied> {
        let may_ask = self.plain.is_none() || self.is_local || self.proven.is_some();
        if may_ask { Ok(()) } else { Err(Denied::NoCertificate) }
    }
}

/// Whether an address is one of this machine alone.
pub(crate) fn is_local(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_in_each_form() {
        for local in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(is_local(local.parse().unwrap()), "{local}");
        }
        assert!(!is_local("10.0.0.1".parse().unwrap()));
    }
}

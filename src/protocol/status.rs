//! The JSON object of a STATUS: how the contest goes, for operators and health checks.

use serde::{Deserialize, Serialize};

use crate::lottery::Draw;

/// The object, key by key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// How many agencies take part: 1 to this.
    pub agencies: u16,
    /// How many of them have ended.
    pub ended: u16,
    /// How many bets are on disk.
    pub bets: u64,
    /// Whether the draw has been made.
    pub drawn: bool,
    /// The draw, if it has been made.
    pub draw: Option<Draw>,
    /// Handlers alive, the one that answers included.
    pub handlers: u32,
    /// How many handlers may be alive at once.
    pub max_clients: u32,
    /// Seconds since the server started.
    pub uptime_seconds: f64,
    /// How often the storage service was started again.
    pub storage_restarts: u64,
    /// Each agency, in the order of their numbers.
    pub per_agency: Vec<AgencyStatus>,
}

/// One agency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgencyStatus {
    /// Its number.
    pub agency: u16,
    /// How many of its bets are on disk.
    pub bets: u64,
    /// Whether it has ended.
    pub ended: bool,
}

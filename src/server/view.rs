//! What a handler knows of the server: the state at its fork, and what is shared.

use std::time::{Duration, Instant};

use chrono::FixedOffset;
use nix::unistd::Pid;

use crate::ipc::finished_agencies::FinishedAgencies;
use crate::ipc::refusal::Refusal;
use crate::ipc::shared_counters::SharedCounters;
use crate::lottery::AgencyId;
use crate::system::confinement::Confinement;

/// The server as a handler knows it.
#[derive(Debug)]
pub struct ServerView<'a> {
    /// The process that forked this one.
    pub acceptor: Pid,
    /// What this process gives up before it reads a byte.
    pub confinement: &'a Confinement,
    /// How many agencies take part.
    pub agencies: u16,
    /// Which of them have finished.
    pub finished: &'a FinishedAgencies,
    /// The longest payload that is taken, in bytes.
    pub max_payload: u32,
    /// How long a client may stall.
    pub client_timeout: Duration,
    /// The offset of local time, for the log.
    pub offset: FixedOffset,
    /// What is counted for operators.
    pub counters: &'a SharedCounters,
    /// Handlers that may be alive at once.
    pub max_clients: u32,
    /// When the server started.
    pub started: Instant,
    /// How often the storage service was started again.
    pub storage_restarts: u64,
}

impl ServerView<'_> {
    /// The agency of that number.
    ///
    /// # Errors
    /// It does not take part.
    pub fn agency(&self, number: u32) -> Result<AgencyId, Refusal> {
        let agencies = self.agencies;
        AgencyId::new(number)
            .filter(|agency| agency.get() <= agencies)
            .ok_or(Refusal::NoSuchAgency { agencies })
    }
}

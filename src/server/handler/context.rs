//! What a handler knows of the server: its state at the fork, and what is shared.

use std::io;
use std::time::{Duration, Instant};

use chrono::FixedOffset;
use nix::unistd::Pid;

use super::tls::ServerIdentity;
use crate::ipc::shared_counters::SharedCounters;
use crate::ipc::shared_state::SharedStateView;
use crate::lottery::AgencyList;
use crate::system::confinement::Confinement;
use crate::system::mqueue::QueueSender;
use crate::system::process::schedule_as_batch;
use crate::system::signal::Signals;

#[derive(Debug)]
pub struct HandlerContext<'a> {
    /// The parent of all handlers.
    pub acceptor: Pid,
    /// The acceptor's signals. A handler opens a descriptor of its own for the same.
    pub signals: &'a Signals,
    pub queue: &'a QueueSender,
    pub confinement: &'a Confinement,
    /// The agencies that take part are 1 to this.
    pub agencies: u16,
    pub shared: SharedStateView<'a>,
    /// In bytes.
    pub max_payload: u32,
    /// How long a client may stall.
    pub client_timeout: Duration,
    /// The offset of local time, for the log.
    pub offset: FixedOffset,
    pub counters: &'a SharedCounters,
    /// Connections accepted since the server started.
    pub connections: u64,
    /// Living handlers, with this one.
    pub handlers: u32,
    /// Clients that the acceptor rejected because the system had nothing for them.
    pub busy: u64,
    pub max_clients: u32,
    /// When the server started.
    pub started: Instant,
    pub storage_restarts: u64,
    /// None if TLS is not configured.
    pub tls: Option<TlsContext<'a>>,
}

/// What a handler needs for a client over TLS.
#[derive(Debug, Clone, Copy)]
pub struct TlsContext<'a> {
    /// None while no keeper has read its files.
    pub identity: Option<&'a ServerIdentity>,
    /// The agencies that may come without a certificate.
    pub plain: &'a AgencyList,
}

impl HandlerContext<'_> {
    /// Confines this process. It must have all its descriptors, and must not have read a byte from its client.
    pub(super) fn confine(&self) -> io::Result<()> {
        self.confinement.enter(self.acceptor)
    }

    /// Confines this process further: a session needs few system calls. It also yields the processor to others.
    pub(super) fn confine_session(&self) -> io::Result<()> {
        schedule_as_batch();
        self.confinement.enter_session()
    }
}

//! What the acceptor hands over to a handler.

use std::net::{IpAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use chrono::FixedOffset;
use nix::unistd::Pid;

use super::tls::ServerIdentity;
use crate::config::ServerConfig;
use crate::ipc::keeper::KeeperClient;
use crate::ipc::messages::ClientNumber;
use crate::ipc::shared_counters::SharedCounters;
use crate::ipc::shared_state::SharedStateView;
use crate::system::confinement::Confinement;
use crate::system::mqueue::QueueSender;
use crate::system::signal::Signals;

/// A client that storage knows.
#[derive(Debug)]
pub struct AcceptedClient {
    /// Storage knows the client by this number.
    pub number: ClientNumber,
    pub socket: TcpStream,
    pub ip: IpAddr,
    /// The read end of the client's reply pipe, with the client's token in it.
    pub replies: OwnedFd,
}

/// What a handler knows of the server: its state at the fork, and what is shared.
#[derive(Debug)]
pub struct HandlerContext<'a> {
    pub config: &'a ServerConfig,
    /// The parent of all handlers.
    pub acceptor: Pid,
    /// The acceptor's signals. A handler opens a descriptor of its own for the same.
    pub signals: &'a Signals,
    pub queue: &'a QueueSender,
    pub confinement: &'a Confinement,
    /// The agencies that take part are 1 to this.
    pub agencies: u16,
    pub shared: SharedStateView<'a>,
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
    /// With TLS, once a keeper has read its files.
    pub identity: Option<&'a ServerIdentity>,
    /// The client's socket to the keeper, if there is one.
    pub keeper: Option<Arc<KeeperClient>>,
}

//! The handler: one process per connection. It cuts the client's bytes into frames, validates them, asks storage, and
//! answers. It touches neither the bets nor another client's channels.
//!
//! | file | contents |
//! |---|---|
//! | `event_loop` | the one place where the handler waits; time limits; closing |
//! | `connection` | the client's socket and its buffers |
//! | `conversation` | the client's requests and their replies, in order |
//! | `policy` | what a message means: in a new connection, a classic one, a session |
//! | `status_query` | puts a STATUS together |
//! | `log_lines` | what is logged about a client, and about the progress of a session |
//! | `tls` | the server's side of TLS |
//! | `keeper_gate` | forwards what TLS asks of the server's key and the client's certificate to the keeper |
//! | `context` | what the handler knows of the server; its confinement |

mod connection;
mod context;
mod conversation;
mod event_loop;
mod keeper_gate;
mod log_lines;
mod policy;
mod status_query;
mod tls;

use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::unistd::dup;

use self::connection::Connection;
pub(crate) use self::context::{HandlerContext, TlsContext};
use self::conversation::Conversation;
use self::event_loop::Handler;
use self::log_lines::{log_accepted, log_client};
pub(crate) use self::tls::ServerIdentity;
use crate::ipc::keeper::KeeperClient;
use crate::ipc::messages::ClientNumber;
use crate::ipc::storage_client::StorageClient;
use crate::logging::{self, Level};

/// A client, as the acceptor hands it over.
#[derive(Debug)]
pub struct AcceptedClient {
    /// Storage knows the client by this number.
    pub number: ClientNumber,
    pub socket: TcpStream,
    pub ip: IpAddr,
    /// The read end of the client's reply pipe, with the client's token in it.
    pub replies: OwnedFd,
}

/// Serves the client until the connection is closed. Returns the exit status of the process.
#[must_use]
pub fn run(client: &AcceptedClient, keeper: Option<&Arc<KeeperClient>>, context: &HandlerContext<'_>) -> i32 {
    logging::freeze_offset(context.offset);
    logging::tag_lines("pid", std::process::id());
    match confined(client, keeper, context) {
        Ok(handler) => handler.serve(),
        Err(error) => {
            log_accepted(client.ip, false);
            log_client(Level::Info, client.ip, &error);
        }
    }
    0
}

/// Opens all descriptors, then confines the process.
fn confined<'a>(
    client: &'a AcceptedClient,
    keeper: Option<&Arc<KeeperClient>>,
    context: &'a HandlerContext<'a>,
) -> io::Result<Handler<'a>> {
    // Every child closes standard input and output. These two take their numbers: see `HANDLER_DESCRIPTORS`.
    let signals = context.signals.open_another()?;
    std::mem::forget(dup(&client.replies)?);
    let storage = StorageClient::new(context.queue, client.replies.as_fd())?;
    let connection = Connection::new(&client.socket, context.max_payload);
    let conversation = Conversation::new(storage, context, client.ip);
    context.confine()?;
    Ok(Handler::new(connection, conversation, signals, keeper.cloned()))
}

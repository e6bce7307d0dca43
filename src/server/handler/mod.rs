//! The handler: one process per connection. It cuts the client's bytes into frames, validates them, asks storage, and
//! answers. It touches neither the bets nor another client's channels.
//!
//! | file | contents |
//! |---|---|
//! | `event_loop` | waits for client and storage; time limits; closing |
//! | `connection` | the client's socket and its buffers |
//! | `conversation` | the client's requests and their replies, in order |
//! | `policy` | what a message means: in a new connection, a classic one, a session |
//! | `query` | questions with long replies: the result of an agency, the STATUS |
//! | `log_lines` | what is logged about a client, and about the progress of a session |
//! | `tls` | the server's side of TLS |
//! | `keeper_gate` | forwards what TLS asks of the server's key and the client's certificate to the keeper |
//! | `context` | what the acceptor hands over: the client, and what the handler knows of the server |

mod connection;
mod context;
mod conversation;
mod event_loop;
mod keeper_gate;
mod log_lines;
mod policy;
mod query;
mod tls;

use std::io;
use std::os::fd::AsFd as _;

use nix::unistd::dup;

pub(crate) use self::context::{AcceptedClient, HandlerContext};
use self::conversation::Conversation;
use self::event_loop::Handler;
use self::log_lines::{log_arrival, log_client};
pub(crate) use self::tls::ServerIdentity;
use crate::ipc::storage_client::StorageClient;
use crate::logging::{self, Level};

/// Serves the client until the connection is closed. Returns the exit status of the process.
#[must_use]
pub fn run(client: &AcceptedClient, context: &HandlerContext<'_>) -> i32 {
    logging::freeze_offset(context.offset);
    logging::tag_lines("pid", std::process::id());
    match confined(client, context) {
        Ok(handler) => handler.serve(),
        Err(error) => {
            log_arrival(client.ip, false, None);
            log_client(Level::Info, client.ip, &error);
        }
    }
    0
}

/// Opens all descriptors, then confines the process, which must not have read a byte from its client.
fn confined<'a>(client: &'a AcceptedClient, context: &'a HandlerContext<'a>) -> io::Result<Handler<'a>> {
    // Every child closes standard input and output. These two take their numbers: see `HANDLER_DESCRIPTORS`.
    let signals = context.signals.open_another()?;
    std::mem::forget(dup(&client.replies)?);
    let storage = StorageClient::new(context.queue, client.replies.as_fd())?;
    let conversation = Conversation::new(client, storage, context);
    context.confinement.enter_handler(context.acceptor)?;
    Ok(Handler::new(conversation, signals))
}

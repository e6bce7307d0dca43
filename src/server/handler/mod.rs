//! The handler: one process per connection. It cuts the stream into frames, validates them, asks the storage service,
//! and answers.
//!
//! | file | what is there |
//! |---|---|
//! | [`event_loop`] | the loop: the one place where it waits, for all that can happen |
//! | [`connection`] | the client's socket |
//! | [`dialog`] | what the client asked and what is owed to it, in order |
//! | [`classic`], [`session`] | the messages of each kind, and what becomes of the answers |
//! | [`rows`] | the records of a message become rows |
//! | [`winners`] | results: before the draw, awaited, page by page |
//! | [`goodbye`] | how it ends |
//! | [`log_lines`] | what it writes to the log |
//!
//! It touches neither the bets nor another client's channels.

pub mod classic;
pub mod connection;
pub mod dialog;
pub mod event_loop;
pub mod goodbye;
pub mod log_lines;
pub mod session;
pub mod winners;

use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use self::connection::Connection;
use self::dialog::Dialog;
use self::event_loop::Handler;
use self::log_lines::{log_accepted, log_client};
use super::view::ServerView;
use crate::ipc::reply_pipe::ReplyReader;
use crate::ipc::storage_client::StorageClient;
use crate::logging::{self, Level};
use crate::protocol::record::push_rows;
use crate::system::mqueue::QueueSender;
use crate::system::signal::Signals;

/// The client that a handler is for, as the acceptor hands it over.
#[derive(Debug)]
pub struct AcceptedClient {
    /// Its socket.
    pub socket: TcpStream,
    /// Its address.
    pub ip: IpAddr,
    /// The end of its reply pipe, which has its token.
    pub replies: OwnedFd,
}

/// The process, from its first to its last act. Returns its exit status.
#[must_use]
pub fn run(client: &AcceptedClient, view: &ServerView<'_>, queue: &QueueSender, signals: &Signals) -> i32 {
    logging::freeze_offset(view.offset);
    match confined(client, view, queue, signals) {
        Ok(mut handler) => {
            let ending = handler.serve();
            handler.say_goodbye(&ending);
        }
        Err(error) => {
            log_accepted(Level::Info, client.ip);
            log_client(client.ip, &error);
        }
    }
    0
}

/// Has all its descriptors, then gives up what it does not need, before it reads a byte.
fn confined<'a>(
    client: &'a AcceptedClient,
    view: &'a ServerView<'a>,
    queue: &'a QueueSender,
    signals: &'a Signals,
) -> io::Result<Handler<'a>> {
    let mut replies = ReplyReader::new(client.replies.as_fd());
    let storage = StorageClient::new(replies.take_token()?, queue, replies);
    let connection = Connection::new(&client.socket, view.max_payload)?;
    let handler = Handler::new(connection, Dialog::new(storage, view, client.ip), signals)?;
    probe("before");
    view.confinement.enter(view.acceptor)?;
    probe("handler");
    Ok(handler)
}

/// Finds out, before any handler is forked, what each of them would else find out for itself: which instructions this
/// machine has for searching bytes. In a virtual machine that is a trap to its host, some 10 µs.
pub fn warm_up() {
    let record = b"1\x1fNombre\x1fApellido\x1f1\x1f2000-01-01\x1f1";
    let stored = push_rows(record, &mut Vec::new(), |_| ());
    debug_assert_eq!(stored, Ok(1));
}

/// For the test of what a handler can do at that stage: see `system::probe`.
#[cfg_attr(not(debug_assertions), expect(unused_variables, reason = "a release has no failpoints"))]
fn probe(stage: &str) {
    #[cfg(debug_assertions)]
    fail::fail_point!("handler_probe", |wanted: Option<String>| {
        if wanted.as_deref() == Some(stage) {
            crate::system::probe::try_everything(stage);
        }
    });
}

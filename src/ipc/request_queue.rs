//! The request queue, typed: what handlers ask of storage, and storage's end. The handlers' end is
//! [`StorageClient`](super::storage_client::StorageClient).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use serde::{Deserialize, Serialize};

use super::client::ClientToken;
use super::codec::decode;
use crate::lottery::AgencyId;
use crate::system::mqueue::QueueReceiver;

/// What a handler asks of storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Bind the client to an agency. Reply: `Opened`.
    OpenSession {
        /// The agency.
        agency: AgencyId,
    },
    /// Store the rows that follow. Reply: `Stored`, or in a session `SessionStored`.
    StoreBets {
        /// In a session, the index of the first row among the agency's bets.
        first: Option<u64>,
    },
    /// The agency has no more bets. Reply: `Ended`.
    EndAgency {
        /// The agency.
        agency: AgencyId,
    },
    /// Send a page of the winning documents. Reply: `ResultPage` or `NotDrawn`.
    Result {
        /// The agency.
        agency: AgencyId,
        /// Where the page begins, in bytes.
        offset: u64,
    },
    /// Send the first page of the winning documents once the draw has been made. Reply: `ResultPage`.
    AwaitResult {
        /// The agency.
        agency: AgencyId,
    },
    /// Report the state of the contest. Reply: `StatusPage`.
    Status {
        /// The index of the first agency to report on its own.
        counts_from: u16,
    },
    /// Report what storage counts. Reply: `Statistics`.
    Statistics,
}

/// The head of one message in the queue. A request that is longer than a message goes in parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartHead {
    /// The client whose request it is.
    pub client: ClientToken,
    /// Numbers the client's requests; the reply repeats it.
    pub id: u32,
    /// The request, in its first part only.
    pub request: Option<Request>,
    /// Whether this is the last part.
    pub last: bool,
}

/// Storage's end.
#[derive(Debug)]
pub struct RequestReceiver<'a> {
    queue: &'a QueueReceiver,
    message: Vec<u8>,
}

impl<'a> RequestReceiver<'a> {
    pub(crate) fn new(queue: &'a QueueReceiver) -> Self {
        Self { queue, message: vec![0; queue.message_len()] }
    }

    /// Takes the next part of a request and its bulk bytes; `None` if the queue is empty. Drops malformed messages: no
    /// correct handler sends them.
    pub(crate) fn receive(&mut self) -> io::Result<Option<(PartHead, &[u8])>> {
        loop {
            let Some(length) = self.queue.receive(&mut self.message)? else { return Ok(None) };
            let message = self.message.get(..length).unwrap_or_default();
            if let Ok((head, bulk)) = decode(message) {
                let bulk = length - bulk.len()..length;
                return Ok(Some((head, self.message.get(bulk).unwrap_or_default())));
            }
        }
    }

    /// How many messages the queue holds now.
    pub(crate) fn waiting(&self) -> io::Result<usize> {
        self.queue.waiting()
    }
}

impl AsFd for RequestReceiver<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

//! The typed channels between the server's processes.
//!
//! | channel | writer | reader | contents | lifetime |
//! |---|---|---|---|---|
//! | request queue | all handlers: `storage_client` | storage: `storage_end` | a [`Request`](messages::Request) and its rows, in parts | the server's: a new storage process drops what it finds, because it knows none of those clients |
//! | reply pipe, one per client | acceptor (the client's token), then storage: `storage_end` | that client's handler: `storage_client` | a [`Reply`](messages::Reply) to each request, in the order of the requests | until the handler or storage ends; storage also closes it when the client breaks the protocol, or its session is replaced |
//! | control socket, one per storage process: [`control`] | acceptor and storage | the other | new clients with token and pipe, gone clients, stop; storage is ready | until one of them ends: the other sees end-of-file |
//! | keeper's sockets, one to the acceptor and one per client: `keeper` | acceptor, handlers and the keeper | the other | new clients; signatures, verdicts and vouchers (`voucher`) | until the keeper has answered, or one of them ends |
//! | memory that handlers can't write: `shared_state` | storage, under a robust mutex; acceptor | handlers | which ENDs are on disk; whether clients wait for a place | the server's |
//! | counters, in shared memory: `shared_counters` | handlers | the handler that answers STATUS | what handlers refuse | the server's |
//!
//! [`messages`] has the types that queue and pipes carry, [`codec`] encodes them. A [`channel`] is a pair of sockets.
#![allow(
    missing_docs,
    clippy::missing_errors_doc,
    reason = "some of it is public, but for the fuzz targets alone"
)]

pub(crate) mod channel;
pub mod codec;
pub mod control;
pub mod keeper;
pub mod messages;
pub(crate) mod shared_counters;
pub(crate) mod shared_state;
pub(crate) mod storage_client;
pub(crate) mod storage_end;
pub mod voucher;

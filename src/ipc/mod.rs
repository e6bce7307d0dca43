//! The typed channels between the server's processes.
//!
//! | channel | writer | reader | contents | lifetime |
//! |---|---|---|---|---|
//! | request queue: [`request_queue`] | all handlers | storage | a [`Request`](request_queue::Request) and its rows, in parts | the server's: a new storage process drops what it finds, because it knows none of those clients |
//! | reply pipe, one per client: [`reply_pipe`] | acceptor (the client's token), then storage | that client's handler | a [`Reply`](reply_pipe::Reply) to each request, in the order of the requests | until the handler or storage ends; storage also closes it when the client breaks the protocol |
//! | control socket, one per storage process: [`control`] | acceptor and storage | the other | new clients with token and pipe, gone clients, stop; storage is ready | until one of them ends: the other sees end-of-file |
//! | finished agencies, an array under a robust mutex: `finished_agencies` | storage | handlers | which ENDs are on disk | the server's |
//! | counters, in shared memory: `shared_counters` | acceptor, handlers | the handler that answers STATUS | connections, handlers, refusals | the server's |
//!
//! [`codec`] encodes the heads of messages. [`client`] has the names of a client, [`refusal`] the reasons of a refusal,
//! [`statistics`] what storage counts. `storage_client` is the handler's end of queue and pipe.

pub mod client;
pub mod codec;
pub mod control;
pub(crate) mod finished_agencies;
pub mod refusal;
pub mod reply_pipe;
pub mod request_queue;
pub(crate) mod shared_counters;
pub mod statistics;
pub(crate) mod storage_client;

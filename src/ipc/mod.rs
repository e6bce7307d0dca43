//! The typed channels between the server's processes.
//!
//! | channel | who writes | who reads | what goes over it | when it ends |
//! |---|---|---|---|---|
//! | request queue: [`request_queue`] | all handlers | storage service | a [`Request`](request_queue::Request) in parts, with its rows | with the server: a new storage service finds what its forerunner left, and drops it, as it knows none of those clients |
//! | reply pipe, one per client: [`reply_pipe`] | the acceptor the client's token, first of all; then the storage service | that client's handler | a [`Reply`](reply_pipe::Reply) to each request, in their order, with its documents or counts | with the handler; at the storage service's end, which is how the handler learns of that; when the client sends what no honest handler sends |
//! | control socket, one pair per storage service: [`control`] | acceptor; storage service | the other | [`ToStorage`](control::ToStorage): who came, with token and pipe, who is gone, stop; [`FromStorage`](control::FromStorage): it is ready | with the storage service, or the acceptor: the one that is left sees it |
//! | finished agencies, an array under a robust mutex: [`finished_agencies`] | storage service | handlers | whose END is on disk | with the server |
//! | counters, in shared memory, for operators only: [`shared_counters`] | acceptor, handlers | who is asked for a status | how many came, are there, were refused | with the server |
//!
//! [`codec`] writes the heads of messages. [`client`] has a client's names, [`refusal`] why a request is refused,
//! [`statistics`] what the storage service counts. [`storage_client`] is a handler's view of queue and pipe.

pub mod client;
pub mod codec;
pub mod control;
pub mod finished_agencies;
pub mod refusal;
pub mod reply_pipe;
pub mod request_queue;
pub mod shared_counters;
pub mod statistics;
pub mod storage_client;

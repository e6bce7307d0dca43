//! The typed channels between the server's processes.
//!
//! | channel | from | to | file |
//! |---|---|---|---|
//! | request queue | handlers | storage service | [`request_queue`] |
//! | reply pipe, one per client | storage service | handler | [`reply_pipe`] |
//! | control socket | acceptor | storage service, and back that it is ready | [`control`] |
//! | finished agencies, a shared array | storage service | handlers | [`finished_agencies`] |
//! | counters, in shared memory, for operators only | acceptor, handlers | who is asked for a status | [`shared_counters`] |
//!
//! [`message`] and [`statistics`] have what goes through them. [`storage_client`] is a handler's view of the first two.

pub mod control;
pub mod finished_agencies;
pub mod message;
pub mod reply_pipe;
pub mod request_queue;
pub mod shared_counters;
pub mod statistics;
pub mod storage_client;

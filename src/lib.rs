//! loteria: the central server of a national lottery, and the agency that talks to it.
//!
//! The reasons for this design are in `docs/design.md`, the wire is in [`protocol`].
//!
//! # The processes of the server
//!
//! ```text
//!            TCP            ┌───────────────────────── server ─────────────────────────┐
//!  agency ─────────────┬──▶ │ acceptor ── forks one handler per connection, reaps,     │
//!                      │    │    │        restarts the storage service, stops all      │
//!                      │    │    │ control socket: client came, client gone, stop      │
//!                      │    │    ▼                                                     │
//!                      └──▶ │ handler ──request queue──▶ storage ──▶ bets.csv          │
//!                           │    ▲  ▲                      │   │     bets.csv.state    │
//!                           │    │  └─── reply pipe ───────┘   │                       │
//!                           │    └──── finished agencies ──────┘  (shared, mutex)      │
//!                           └──────────────────────────────────────────────────────────┘
//! ```
//!
//! # The path of one bet
//!
//! | module | step |
//! |---|---|
//! | `agency::session` | encodes a row of the agency's file as a record of a frame |
//! | `server::acceptor` | accepts the connection, announces the client to storage, forks the handler |
//! | `server::handler::event_loop` | waits for bytes; `protocol::frame` cuts them into frames |
//! | `protocol::message`, `protocol::record`, `lottery::bet` | decode the frame into a message and its records into bets, and validate them |
//! | `server::handler::policy`, `lottery::row` | decide what the message means, and encode the bets as CSV rows of a request |
//! | `ipc::storage_client`, `system::mqueue` | send the request through the queue, in parts |
//! | `server::storage::clients` | in the storage process: joins the parts to a request again |
//! | `server::storage::contest`, `server::storage::ledger` | decide the request, check its rows and add them to the group |
//! | `server::storage::ledger`, `server::storage::disk` | write and sync the group |
//! | `ipc::reply_pipe` | carries the reply back to the handler |
//! | `server::handler::conversation` | logs it and sends the answer to the client, in the order of the requests |
//!
//! # Where to find what
//!
//! | you look for | look in |
//! |---|---|
//! | the check of a bet from the wire | `lottery::bet`, called by `protocol::record` |
//! | the check of a row before it is written, and at a start | `lottery::row`, called by `server::storage::ledger` and `server::storage::recovery` |
//! | the rules of the contest: who may send bets, when the draw is made | `server::storage::contest` |
//! | the fork | `server::acceptor`, by `system::process::fork_child` |
//! | what happens when a write or the sync fails | `server::storage::ledger`: it rolls the group back, or ends storage if the outcome is unknown |
//! | what every start does with the files | `server::storage::recovery` |
//! | the messages between the processes | `ipc` |
//! | every `unsafe` block | `system` |
//! | the wire format | `protocol` |
//! | how to add a setting | add a row to the table in `config`, use its field, and document it in `README.md` and `config.ini` (a test compares the three) |
//! | how to add a log line | call `logging::event` and add a row to `docs/operations.md`; a test compares them |

pub mod agency;
pub mod audit;
pub mod cli;
pub mod compose;
pub mod config;
mod demo;
mod failpoint;
pub mod ipc;
mod logging;
pub mod lottery;
pub mod protocol;
pub mod sample;
pub mod server;
mod status;
pub mod system;

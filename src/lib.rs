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
//!                           │    └───── ended agencies ────────┘  (shared, mutex)      │
//!                           └──────────────────────────────────────────────────────────┘
//! ```
//!
//! With TLS the acceptor also forks a keeper, which has the private key and answers handlers.
//!
//! # The path of one bet
//!
//! Each folder of `server` has a table of its files in the documentation of its module.
//!
//! | module | step |
//! |---|---|
//! | `agency::bets_file`, `agency::upload` | read a row of the agency's file, and send it as a record of a frame |
//! | `server::acceptor` | accepts the connection, announces the client to storage, forks the handler |
//! | `server::handler` | waits for bytes; `protocol::frame` cuts them into frames |
//! | `protocol::message`, `protocol::record`, `lottery::bet` | decode the frame into a message and its records into bets, and validate them |
//! | `server::handler`, `lottery::row` | decide what the message means, and encode the bets as CSV rows of a request |
//! | `ipc`, `system::mqueue` | send the request through the queue, in parts |
//! | `server::storage` | in the storage process: joins the parts to a request again |
//! | `server::storage::ledger`, `server::storage::contest` | decide the request, check its rows and add them to the group; then the ledger commits the group |
//! | `server::storage::file_disk` | writes and syncs the group |
//! | `ipc` | carries the reply back to the handler, through the client's pipe |
//! | `server::handler` | logs it and sends the answer to the client, in the order of the requests |
//!
//! # Where to find what
//!
//! | you look for | look in |
//! |---|---|
//! | the check of a bet from the wire | `from_fields()` in `lottery::bet`, called by `protocol::record` |
//! | the check of a row of an agency's file | `push_row()` in `agency::bets_file`, which calls `from_fields()` too |
//! | the check of a row before it is written to the file of bets | `for_each_row()` in `lottery::row`, called by `server::storage::contest` for the rows of a request |
//! | what is said of a file that a spreadsheet has saved | `lottery::foreign` |
//! | the check of a row of the file of bets at a start | `parse_row()` in `lottery::row`, called by `server::storage::row_reader` for each line that `server::storage::recovery` reads |
//! | the rules of the contest: who may send bets, when the draw is made | `server::storage::contest` |
//! | the fork | `launch_handler()`, `launch_storage()` and `launch_keeper()` in `server::acceptor`; all lead to `fork_child()` in `system::process` |
//! | what happens when a write or the sync fails | `store_bets()` in `server::storage::ledger` cuts the file back. After a write it decides the group again, after a sync it refuses all. If the outcome is unknown, the server ends |
//! | who may act for whom | `server::access`, used by handlers and by `server::storage::clients` |
//! | which agency a TLS client is | `identify()` in `server::keeper::credentials` finds out, and the keeper makes a voucher; `prove()` in `server::storage::clients` checks that |
//! | TLS: the client's side, the server's side, the private key | `tls`, `server::handler::tls`, `server::keeper` |
//! | what every start does with the files | `server::storage::recovery` |
//! | the messages between the processes | `ipc` |
//! | what confines which process | the tables of `system::confinement` and `system::seccomp` |
//! | every unsafe block | `system` |
//! | the wire format | `protocol` |
//! | how to add a setting | add a row to a table of `config`, use its field, and document it in `README.md` and `config.ini`; a test compares the three. Add it to `log_config()` in `server` or `agency` and to that line in `docs/operations.md` |
//! | how to add a log line | call `event()` of `logging` and add a row to `docs/operations.md`; a test compares them |
//! | which module may use which | `tests/operators/layers.rs` |

mod agency;
mod audit;
mod certs;
pub mod cli;
mod compose;
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
mod tls;

//! loteria: the central server of a national lottery, and the agency that talks to it.
//!
//! # The processes of the server
//!
//! ```text
//!            TCP            ┌───────────────────────── server ─────────────────────────┐
//!  agency ─────────────┬──▶ │ acceptor ── forks one handler per connection, reaps,     │
//!                      │    │    │        restarts the storage service, stops all      │
//!                      │    │    │ control socket: who came (with the pipe), who left  │
//!                      │    │    ▼                                                     │
//!                      └──▶ │ handler ──request queue──▶ storage ──▶ bets.csv          │
//!                           │    ▲  ▲                      │   │     bets.csv.state    │
//!                           │    │  └─ reply pipe, own ────┘   │                       │
//!                           │    └──── finished agencies ──────┘  (shared, mutex)      │
//!                           └──────────────────────────────────────────────────────────┘
//! ```
//!
//! Where `METRICS_ADDRESS` is set, the acceptor also keeps a process running that answers scrapes over HTTP: a handler in
//! all but whom it serves ([`server::metrics`]).
//!
//! # One bet's path
//!
//! | where | what happens |
//! |---|---|
//! | [`agency::session`] | a row of the agency's file becomes a record of a frame |
//! | [`server::acceptor`] | accepts the connection, tells storage of it, forks the handler |
//! | [`server::handler::event_loop`] | waits for bytes; [`protocol::frame`] cuts them into frames |
//! | [`protocol::message`], [`protocol::record`], [`lottery::bet`] | the frame becomes a message, its records become bets |
//! | [`server::handler::session`] or [`classic`](server::handler::classic) | the bets become rows ([`lottery::row`]) of a request |
//! | [`ipc::storage_client`], [`ipc::request_queue`], [`system::mqueue`] | the request goes into the queue, in parts |
//! | [`server::storage`]: `clients` | the parts become a request again, in another process |
//! | `ledger`, `batch`, `contest` | the request is decided, its rows are checked and join the group |
//! | `disk` | the group is written and synced |
//! | `ledger`, [`ipc::reply_pipe`] | the reply goes back to the handler |
//! | [`server::handler::dialog`], then `session` or `classic` again | it is logged, and becomes a message to the client |
//!
//! # Where each concept lives
//!
//! | concept | home |
//! |---|---|
//! | frame; message | [`protocol::frame`], [`protocol::message`] |
//! | bet; as a record of a frame; as a row of the file | [`lottery::bet`], [`protocol::record`], [`lottery::row`] |
//! | agency: its number; what is known of it | [`lottery::agency_id`], `server::storage::contest` |
//! | contest: who has what, who has ended, what is decided | `server::storage::contest` |
//! | draw | [`lottery::draw`] |
//! | request; reply, and the page of a long one | [`ipc::request_queue`], [`ipc::reply_pipe`] |
//! | client, as storage and acceptor know it; its token | [`ipc::client`] |
//! | group: what one sync puts on disk | `server::storage::ledger` |
//! | handler; child | [`server::handler`], `server::acceptor::children` |
//! | limits: settings; what a handler may do | [`config`], [`confinement`] |
//! | clock | what waits goes by `Instant`. The time of day is what people see: in the log ([`logging`]), the draw, the live view, and the date of an answer over HTTP |

pub mod agency;
mod audit;
pub mod cli;
pub mod compose;
pub mod config;
pub mod confinement;
mod demo;
mod failpoint;
pub mod ipc;
pub mod logging;
pub mod lottery;
pub mod protocol;
pub mod sample;
pub mod server;
pub mod status;
pub mod system;

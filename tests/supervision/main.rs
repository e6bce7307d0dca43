//! The processes of the server: limits, deaths, restarts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by a panic, and says on standard error why it is skipped"
)]

mod acceptor_limits;
mod keeper;
mod killed;
mod notify;
mod places;
mod processes;
mod stopped;

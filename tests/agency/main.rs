//! `loteria agency` and `loteria bet`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by a panic, and says on standard error why it is skipped"
)]

mod bet;
mod classic_mode;
mod other_bets;
mod session_mode;
mod terminal;
mod time_limits;
mod tls;

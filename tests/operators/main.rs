//! What operators see of a running server: `status`, its live view, and the metrics.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by a panic, and says what it skips"
)]

#[path = "../common/mod.rs"]
mod common;

mod metrics;
mod status;
mod watch;

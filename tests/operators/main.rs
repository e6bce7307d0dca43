//! Commands, configuration, log, status, metrics and documents; and the layers of the source.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by a panic, and says on standard error why it is skipped"
)]

mod audit;
mod certs;
mod cli;
mod config;
mod foreign;
mod layers;
mod logs;
mod metrics;
mod monitoring;
mod seal;
mod service;
mod status;
mod watch;

//! The wire: classic messages, draw and results, and what hostile or broken clients send.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by a panic, and says on standard error why it is skipped"
)]

mod certificates;
mod classic;
mod classic_draw;
mod draw;
mod hostile;
mod limits;
mod memory;
mod results;
mod tls;

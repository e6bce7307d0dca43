//! Sessions: single messages, and many messages in flight.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by a panic, and says on standard error why it is skipped"
)]

mod digests;
mod floods;
mod frames;
mod pipelining;
mod replaced;

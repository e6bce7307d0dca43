//! The files after crashes, write errors and restarts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by a panic, and says on standard error why it is skipped"
)]

mod crashes;
mod faults;
mod identity;
mod recovery;
mod seal;

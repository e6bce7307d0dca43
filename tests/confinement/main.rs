//! The confinement of handlers: what one can do that was taken over.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by a panic"
)]

#[cfg(target_arch = "x86_64")]
mod attacker;
#[cfg(target_arch = "x86_64")]
mod attacks;
#[cfg(target_arch = "x86_64")]
mod descriptors;
mod identity;
#[cfg(target_arch = "x86_64")]
mod keeper;
#[cfg(target_arch = "x86_64")]
mod memory;
#[cfg(target_arch = "x86_64")]
mod queue;

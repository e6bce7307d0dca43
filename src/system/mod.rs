//! Safe wrappers of what the operating system offers. All `unsafe` code is here.
#![allow(unsafe_code)]
#![allow(clippy::missing_errors_doc, reason = "the pages of the manual that are named list the errors")]

pub(crate) mod confinement;
pub(crate) mod fd_passing;
pub(crate) mod memory;
pub(crate) mod mqueue;
pub mod process;
pub(crate) mod random;
mod seccomp;
pub(crate) mod shared_mutex;
pub mod signal;
pub(crate) mod socket;

/// Repeats a system call for as long as a signal interrupts it.
pub(crate) fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(nix::errno::Errno::EINTR) => {}
            outcome => return outcome,
        }
    }
}

//! Safe wrappers of what the operating system offers. All `unsafe` code is here.
#![allow(unsafe_code)]

pub(crate) mod confinement;
pub(crate) mod fd_passing;
pub(crate) mod memory;
pub(crate) mod mqueue;
#[cfg(debug_assertions)]
pub(crate) mod probe;
pub mod process;
pub(crate) mod random;
pub(crate) mod shared_mutex;
pub mod signal;

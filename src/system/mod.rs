//! Safe wrappers of what the operating system offers. All `unsafe` code is here.
#![allow(unsafe_code)]

pub mod confinement;
pub mod fd_passing;
pub mod memory;
pub mod mqueue;
#[cfg(debug_assertions)]
pub mod probe;
pub mod process;
pub mod random;
pub mod shared_mutex;
pub mod signal;

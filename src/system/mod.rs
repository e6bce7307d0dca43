//! What the operating system gives, made safe. The only place with `unsafe` code; each block says what makes it sound.
#![allow(unsafe_code)]

pub mod confinement;
pub mod fd_passing;
pub mod mqueue;
#[cfg(debug_assertions)]
pub mod probe;
pub mod process;
pub mod secret_page;
pub mod shared_mutex;
pub mod shared_words;
pub mod signal;

//! What the operating system gives, made safe. The only place with `unsafe` code; each block says what makes it sound.
#![allow(unsafe_code)]



pub mod process;

pub mod signal;

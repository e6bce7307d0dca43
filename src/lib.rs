//! loteria.
pub mod agency;
pub mod cli;
pub mod config;
pub mod demo;
pub mod logging;
pub mod lottery;
pub mod protocol;
pub mod sample;
pub mod server;
pub mod status;
pub mod system;

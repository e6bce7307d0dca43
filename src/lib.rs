//! loteria.
pub mod config;
pub mod ipc;
pub mod logging;
pub mod lottery;
pub mod protocol;
pub mod server;
pub mod system;

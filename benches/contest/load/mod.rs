//! The load: clients of the protocol. Their frames are made before the clock starts, so that the server's time is measured. What
//! clients spend on TLS counts.

pub mod classic;
pub mod session;
pub mod socket;
pub mod stream;

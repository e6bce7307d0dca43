//! The wire, for server and client alike: frames, the records inside of them, and what each message means.

pub mod frame;
pub mod message;
pub mod record;
pub mod status;

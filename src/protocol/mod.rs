//! The wire protocol, for server and client: frames, the records in them, and the messages.
// For rustdoc alone, so that a build does not need the folder `docs`.
#![cfg_attr(doc, doc = "", doc = include_str!("../../docs/protocol.md"))]

pub mod frame;
pub mod message;
pub mod record;
pub mod status;

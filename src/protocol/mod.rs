//! The wire protocol, for server and client: frames, the records in them, and the messages.
// For rustdoc alone, so that a build does not need the folder `docs`.
#![cfg_attr(doc, doc = "", doc = include_str!("../../docs/protocol.md"))]
#![allow(
    missing_docs,
    clippy::missing_errors_doc,
    reason = "some of it is public, but for tests, benchmarks and fuzz targets alone"
)]

pub mod frame;
pub mod message;
pub mod record;
pub mod status;

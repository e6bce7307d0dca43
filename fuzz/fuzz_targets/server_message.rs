//! Messages of a server, decoded as an agency does.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loteria::protocol::frame::{Frame, HEADER_LEN};
use loteria::protocol::message::ServerMessage;

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, payload)) = bytes.split_first() else { return };
    let Ok(message) = ServerMessage::decode(Frame { kind, payload }) else { return };
    let mut frame = Vec::new();
    message.encode(&mut frame);
    assert_eq!(frame[0], kind);
    let again = ServerMessage::decode(Frame { kind, payload: &frame[HEADER_LEN..] });
    assert_eq!(again, Ok(message));
});

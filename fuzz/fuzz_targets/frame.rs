//! Frames: a stream has the same frames whatever pieces it arrives in.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loteria::protocol::frame::{FrameBuffer, FrameError, push_frame};

const MAX_PAYLOAD: u32 = 300;

/// The frames of a stream that arrives in pieces, encoded again, and the error that ended it.
fn frames<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Option<FrameError>) {
    let mut buffer = FrameBuffer::new(MAX_PAYLOAD);
    let mut out = Vec::new();
    for mut piece in pieces {
        while !piece.is_empty() {
            let space = buffer.space();
            assert!(!space.is_empty());
            let count = space.len().min(piece.len());
            space[..count].copy_from_slice(&piece[..count]);
            buffer.received(count);
            piece = &piece[count..];
            loop {
                let has_frame = buffer.has_frame();
                match buffer.next_frame() {
                    Ok(Some(frame)) => {
                        assert!(frame.payload.len() <= MAX_PAYLOAD as usize);
                        push_frame(frame.kind, &[frame.payload], &mut out);
                    }
                    Ok(None) => {
                        assert!(!has_frame);
                        break;
                    }
                    Err(error) => return (out, Some(error)),
                }
                assert!(has_frame);
            }
        }
    }
    (out, None)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (size, stream) = input;
    let whole = frames(std::iter::once(stream));
    assert_eq!(whole, frames(stream.chunks(usize::from(size) + 1)));
    assert!(stream.starts_with(&whole.0));
});

//! Frames: how the bytes of a TCP stream are split into messages.
//!
//! | field | size | meaning |
//! |---|---|---|
//! | type | 1 byte | one of [`kind`] |
//! | length | 4 bytes, unsigned, big endian | the payload's length in bytes |
//! | payload | length bytes | depends on the type |

use thiserror::Error;

/// The length in bytes of a frame's header: type and length.
pub const HEADER_LEN: usize = 5;

/// The types of messages. The type is the first byte of a frame.
pub mod kind {
    pub const BET: u8 = 0x01;
    pub const MULTIPLE_BETS: u8 = 0x02;
    pub const ERROR: u8 = 0x03;
    pub const BET_ACK: u8 = 0x04;
    pub const END: u8 = 0x05;
    pub const RESULT_REQUEST: u8 = 0x06;
    pub const RESULT: u8 = 0x07;
    pub const IN_PROGRESS: u8 = 0x08;
    pub const OPEN_SESSION: u8 = 0x09;
    pub const SESSION_OPENED: u8 = 0x0A;
    pub const SESSION_BETS: u8 = 0x0B;
    pub const SESSION_STORED: u8 = 0x0C;
    pub const AWAIT_RESULT: u8 = 0x0D;
    pub const STATUS_REQUEST: u8 = 0x0E;
    pub const STATUS: u8 = 0x0F;

    /// All other types are unknown.
    pub(crate) const KNOWN: std::ops::RangeInclusive<u8> = BET..=STATUS;
}

/// One message, not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// One of [`kind`], if the frame is from a [`FrameBuffer`].
    pub kind: u8,
    pub payload: &'a [u8],
}

/// An invalid header. The rest of the stream cannot be split into frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    #[error("unknown message type 0x{0:02x}")]
    UnknownType(u8),
    #[error("a payload of {len} bytes is longer than the limit of {max}")]
    TooLong { len: u32, max: u32 },
}

/// Encodes the header of a frame whose payload has `len` bytes.
#[must_use]
pub fn header(kind: u8, len: u32) -> [u8; HEADER_LEN] {
    let [a, b, c, d] = len.to_be_bytes();
    [kind, a, b, c, d]
}

/// Appends a frame whose payload is the concatenation of `parts`, which together must be shorter than 4 GiB.
pub fn push_frame(kind: u8, parts: &[&[u8]], out: &mut Vec<u8>) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.extend_from_slice(&header(kind, u32::try_from(len).unwrap_or(u32::MAX)));
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Bytes that were received and not yet taken as frames. The buffer grows with the bytes that have come, not with the length
/// in a header, up to one frame with the longest payload.
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Whether the last read filled the buffer.
    was_filled: bool,
    max_payload: u32,
}

/// Holds one classic message of 8 kB. A process that serves one message touches no more pages than it needs.
const FIRST_CAPACITY: usize = 8 * 1024;
/// Holds several batches, so that one read takes them all.
const READ_AHEAD: usize = 64 * 1024;

impl FrameBuffer {
    #[must_use]
    pub fn new(max_payload: u32) -> Self {
        Self { bytes: Vec::new(), start: 0, end: 0, was_filled: false, max_payload }
    }

    /// Returns room to receive into, never empty. Then call [`Self::received`].
    pub fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let is_full = self.end == self.bytes.len();
        // A client that filled the buffer sends faster than it is read: larger reads save system calls.
        if is_full || (self.was_filled && self.bytes.len() < READ_AHEAD) {
            let longest = (self.max_payload as usize).saturating_add(HEADER_LEN).max(READ_AHEAD);
            let wanted = (self.bytes.len() * 2).clamp(FIRST_CAPACITY, longest.max(FIRST_CAPACITY));
            if wanted > FIRST_CAPACITY {
                // Only what is used of it takes memory. Growing by steps would leave holes in the heap.
                self.bytes.reserve_exact(longest.saturating_sub(self.bytes.len()));
            }
            // The owner takes a whole frame before it asks for more room, so `longest` bytes are enough.
            self.bytes.resize(wanted.max(self.end + 1), 0);
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// Marks the first `count` bytes of [`Self::space`] as filled.
    pub fn received(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
        self.was_filled = self.end == self.bytes.len();
    }

    /// Returns whether the buffer holds nothing, not even a part of a frame.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Returns whether [`Self::next_frame`] would return a frame or an error.
    #[must_use]
    pub fn has_frame(&self) -> bool {
        !matches!(self.peek(), Ok(None))
    }

    /// Takes the next frame, if it has come whole. An error means an invalid header; the payload need not have come.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let Some((kind, len)) = self.peek()? else { return Ok(None) };
        let from = self.start + HEADER_LEN;
        self.start = from + len;
        Ok(self.bytes.get(from..from + len).map(|payload| Frame { kind, payload }))
    }

    /// Returns type and payload length of the next frame, if it has come whole.
    fn peek(&self) -> Result<Option<(u8, usize)>, FrameError> {
        let waiting = self.bytes.get(self.start..self.end).unwrap_or_default();
        let Some(&kind) = waiting.first() else { return Ok(None) };
        if !kind::KNOWN.contains(&kind) {
            return Err(FrameError::UnknownType(kind));
        }
        let Some(&[_, a, b, c, d]) = waiting.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let len = u32::from_be_bytes([a, b, c, d]);
        if len > self.max_payload {
            return Err(FrameError::TooLong { len, max: self.max_payload });
        }
        let whole = waiting.len() - HEADER_LEN >= len as usize;
        Ok(whole.then_some((kind, len as usize)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn feed(buffer: &mut FrameBuffer, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = buffer.space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            buffer.received(count);
            bytes = &bytes[count..];
        }
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_the_stream_is_cut(
            frames in proptest::collection::vec((1_u8..16, proptest::collection::vec(any::<u8>(), 0..3000)), 0..8),
            cuts in proptest::collection::vec(1_usize..5000, 1..20),
        ) {
            let mut stream = Vec::new();
            for (kind, payload) in &frames {
                push_frame(*kind, &[payload], &mut stream);
            }
            let mut buffer = FrameBuffer::new(3000);
            let mut got = Vec::new();
            let mut cuts = cuts.iter().cycle();
            let mut rest = &stream[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                feed(&mut buffer, now);
                rest = later;
                while let Some(frame) = buffer.next_frame().unwrap() {
                    got.push((frame.kind, frame.payload.to_vec()));
                }
            }
            prop_assert_eq!(got, frames);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, max: u16) {
            let mut buffer = FrameBuffer::new(u32::from(max));
            feed(&mut buffer, &bytes);
            while let Ok(Some(frame)) = buffer.next_frame() {
                prop_assert!(frame.payload.len() <= usize::from(max));
            }
        }
    }
}

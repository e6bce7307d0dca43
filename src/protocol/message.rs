//! Messages: what a frame means. [`ClientMessage`] is what a client sends, [`ServerMessage`] what it gets back.

use std::array::TryFromSliceError;

use thiserror::Error;

use super::frame::{Frame, kind, push_frame};
use crate::lottery::{AgencyId, Digest};

/// The newest version of the session messages. Version 1 is the same without digests.
pub const SESSION_VERSION: u8 = 2;

/// What a client sends. Bet records are not parsed yet: see [`super::record`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientMessage<'a> {
    /// `0x01`: one bet record.
    Bet(&'a [u8]),
    /// `0x02`: bet records.
    MultipleBets(&'a [u8]),
    /// `0x05`: the agency has no more bets. A session may leave the agency out.
    End(Option<u8>),
    /// `0x06`: asks for the winning documents. A session may leave the agency out.
    ResultRequest(Option<u8>),
    /// `0x09`: opens a session of that agency.
    OpenSession { version: u8, agency: u32 },
    /// `0x0B`: bet records of the session's agency.
    SessionBets {
        /// The index of the first record among the agency's bets, from 0.
        first: u64,
        records: &'a [u8],
    },
    /// `0x0D`: asks for the winning documents once the draw has been made.
    AwaitResult,
    /// `0x0E`: asks for the state of the contest.
    StatusRequest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MessageError {
    #[error("unknown message type 0x{0:02x} from a client")]
    NotFromClient(u8),
    #[error("message 0x{kind:02x}: the payload must be {expected}")]
    Payload { kind: u8, expected: &'static str },
}

impl<'a> ClientMessage<'a> {
    pub fn decode(frame: Frame<'a>) -> Result<Self, MessageError> {
        let Frame { kind, payload } = frame;
        let bad = |expected| MessageError::Payload { kind, expected };
        let empty = |message| if payload.is_empty() { Ok(message) } else { Err(bad("empty")) };
        let agency = || match payload {
            [] => Ok(None),
            &[agency] => Ok(Some(agency)),
            _ => Err(bad("the agency, 1 byte")),
        };
        match kind {
            kind::BET => Ok(Self::Bet(payload)),
            kind::MULTIPLE_BETS => Ok(Self::MultipleBets(payload)),
            kind::END => agency().map(Self::End),
            kind::RESULT_REQUEST => agency().map(Self::ResultRequest),
            kind::OPEN_SESSION => match *payload {
                [version, a, b, c, d] => {
                    Ok(Self::OpenSession { version, agency: u32::from_be_bytes([a, b, c, d]) })
                }
                _ => Err(bad("a version, 1 byte, and an agency, 4 bytes")),
            },
            kind::SESSION_BETS => {
                let (first, records) =
                    payload.split_first_chunk().ok_or(bad("an index, 8 bytes, and bet records"))?;
                Ok(Self::SessionBets { first: u64::from_be_bytes(*first), records })
            }
            kind::AWAIT_RESULT => empty(Self::AwaitResult),
            kind::STATUS_REQUEST => empty(Self::StatusRequest),
            _ => Err(MessageError::NotFromClient(kind)),
        }
    }

    /// Appends the message as a frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Bet(record) => push_frame(kind::BET, &[record], out),
            Self::MultipleBets(records) => push_frame(kind::MULTIPLE_BETS, &[records], out),
            Self::End(agency) => push_frame(kind::END, &[agency.as_slice()], out),
            Self::ResultRequest(agency) => push_frame(kind::RESULT_REQUEST, &[agency.as_slice()], out),
            Self::OpenSession { version, agency } => {
                push_frame(kind::OPEN_SESSION, &[&[version], &agency.to_be_bytes()], out);
            }
            Self::SessionBets { first, records } => {
                push_frame(kind::SESSION_BETS, &[&first.to_be_bytes(), records], out);
            }
            Self::AwaitResult => push_frame(kind::AWAIT_RESULT, &[], out),
            Self::StatusRequest => push_frame(kind::STATUS_REQUEST, &[], out),
        }
    }
}

/// What an agency may still do, as `SESSION_OPENED` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum AgencyState {
    Open = 0,
    Ended = 1,
    Drawn = 2,
}

/// What a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerMessage<'a> {
    /// `0x03`: refused, with a readable reason, which is never empty.
    Error(&'a str),
    /// `0x04`: the bets or the END are on disk.
    BetAck,
    /// `0x07`: the winning documents, separated by `0x1E`.
    Result(&'a [u8]),
    /// `0x08`: the draw has not been made yet.
    InProgress,
    /// `0x0A`: the session is open. `stored` bets of the agency are on disk.
    SessionOpened {
        agency: AgencyId,
        stored: u64,
        state: AgencyState,
        max_payload: u32,
        /// Of the stored bets, from version 2 on.
        digest: Option<Digest>,
    },
    /// `0x0C`: the bets of a `SESSION_BETS` are on disk, and `stored` of the agency.
    SessionStored {
        stored: u64,
        /// Of the stored bets, from version 2 on.
        digest: Option<Digest>,
    },
    /// `0x0F`: one JSON object.
    Status(&'a [u8]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the server answered with a frame of type 0x{0:02x} that does not belong here")]
pub struct NotAReply(pub u8);

impl<'a> ServerMessage<'a> {
    /// Appends the message as a frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Error(reason) => push_frame(kind::ERROR, &[reason.as_bytes()], out),
            Self::BetAck => push_frame(kind::BET_ACK, &[b"OK"], out),
            Self::Result(documents) => push_frame(kind::RESULT, &[documents], out),
            Self::InProgress => push_frame(kind::IN_PROGRESS, &[], out),
            Self::SessionOpened { agency, stored, state, max_payload, digest } => push_frame(
                kind::SESSION_OPENED,
                &[
                    &u32::from(agency.get()).to_be_bytes(),
                    &stored.to_be_bytes(),
                    &[state as u8],
                    &max_payload.to_be_bytes(),
                    digest_bytes(digest.as_ref()),
                ],
                out,
            ),
            Self::SessionStored { stored, digest } => {
                let digest = digest_bytes(digest.as_ref());
                push_frame(kind::SESSION_STORED, &[&stored.to_be_bytes(), digest], out);
            }
            Self::Status(json) => push_frame(kind::STATUS, &[json], out),
        }
    }

    pub fn decode(frame: Frame<'a>) -> Result<Self, NotAReply> {
        let Frame { kind, payload } = frame;
        let message = match kind {
            kind::ERROR => std::str::from_utf8(payload).ok().map(Self::Error),
            kind::BET_ACK => Some(Self::BetAck),
            kind::RESULT => Some(Self::Result(payload)),
            kind::IN_PROGRESS => Some(Self::InProgress),
            kind::SESSION_OPENED => decode_opened(payload),
            kind::SESSION_STORED => decode_stored(payload),
            kind::STATUS => Some(Self::Status(payload)),
            _ => None,
        };
        message.ok_or(NotAReply(kind))
    }
}

fn decode_opened(mut payload: &[u8]) -> Option<ServerMessage<'static>> {
    let rest = &mut payload;
    Some(ServerMessage::SessionOpened {
        agency: AgencyId::new(u32::from_be_bytes(take(rest)?))?,
        stored: u64::from_be_bytes(take(rest)?),
        state: match take(rest)? {
            [0] => AgencyState::Open,
            [1] => AgencyState::Ended,
            [2] => AgencyState::Drawn,
            _ => return None,
        },
        max_payload: u32::from_be_bytes(take(rest)?),
        digest: decode_digest(rest).ok()?,
    })
}

fn decode_stored(mut payload: &[u8]) -> Option<ServerMessage<'static>> {
    let stored = u64::from_be_bytes(take(&mut payload)?);
    Some(ServerMessage::SessionStored { stored, digest: decode_digest(payload).ok()? })
}

/// Takes the first bytes of a payload.
fn take<const N: usize>(payload: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = payload.split_first_chunk()?;
    *payload = rest;
    Some(*first)
}

/// Decodes the digest at the end of a payload. Version 1 has none.
fn decode_digest(bytes: &[u8]) -> Result<Option<Digest>, TryFromSliceError> {
    if bytes.is_empty() { Ok(None) } else { bytes.try_into().map(|bytes| Some(Digest(bytes))) }
}

fn digest_bytes(digest: Option<&Digest>) -> &[u8] {
    digest.map_or(&[], |digest| &digest.0)
}

#[cfg(test)]
mod tests {
    use super::super::frame::HEADER_LEN;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_frame_makes_a_decoder_panic(kind in 0_u8..17, payload: Vec<u8>) {
            let frame = Frame { kind, payload: &payload };
            if let Ok(message) = ClientMessage::decode(frame) {
                let (mut once, mut again) = (Vec::new(), Vec::new());
                push_frame(frame.kind, &[frame.payload], &mut once);
                message.encode(&mut again);
                prop_assert_eq!(once, again);
            }
            if let Ok(message) = ServerMessage::decode(frame) {
                let mut again = Vec::new();
                message.encode(&mut again);
                let again = Frame { kind, payload: &again[HEADER_LEN..] };
                prop_assert_eq!(ServerMessage::decode(again), Ok(message));
            }
        }
    }
}

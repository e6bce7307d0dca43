//! The part of the protocol that the baselines need.

use std::io::{self, BufReader, Read};
use std::net::TcpStream;

pub const MULTIPLE_BETS: u8 = 0x02;
pub const BET_ACK: u8 = 0x04;
pub const END: u8 = 0x05;
pub const RESULT_REQUEST: u8 = 0x06;
pub const RESULT: u8 = 0x07;
pub const OPEN_SESSION: u8 = 0x09;
pub const SESSION_OPENED: u8 = 0x0A;
pub const SESSION_BETS: u8 = 0x0B;
pub const SESSION_STORED: u8 = 0x0C;
pub const AWAIT_RESULT: u8 = 0x0D;

const FIELD_SEPARATOR: u8 = 0x1F;
const FIELDS: usize = 6;
const MAX_PAYLOAD: u32 = 1 << 20;

/// Reads the frames of a client.
pub struct Frames<'a> {
    reader: BufReader<&'a TcpStream>,
    payload: Vec<u8>,
}

impl<'a> Frames<'a> {
    pub fn of(socket: &'a TcpStream) -> Self {
        Self { reader: BufReader::with_capacity(64 * 1024, socket), payload: Vec::new() }
    }

    /// Waits for the next frame; returns its type and payload.
    pub fn next(&mut self) -> io::Result<(u8, &[u8])> {
        let mut header = [0; 5];
        self.reader.read_exact(&mut header)?;
        let [kind, a, b, c, d] = header;
        let length = u32::from_be_bytes([a, b, c, d]);
        if length > MAX_PAYLOAD {
            return Err(malformed());
        }
        self.payload.resize(length as usize, 0);
        self.reader.read_exact(&mut self.payload)?;
        Ok((kind, &self.payload))
    }

    /// Whether bytes of the next frame have been received.
    pub fn has_more(&self) -> bool {
        !self.reader.buffer().is_empty()
    }
}

pub fn malformed() -> io::Error {
    io::Error::from(io::ErrorKind::InvalidData)
}

pub fn push_frame(kind: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(payload);
}

/// Appends the answer to an `OPEN_SESSION`; returns its agency.
pub fn open_session(payload: &[u8], out: &mut Vec<u8>) -> io::Result<u32> {
    let &[_version, a, b, c, d] = payload else { return Err(malformed()) };
    let mut answer = [0; 17];
    let (agency, rest) = answer.split_at_mut(4);
    agency.copy_from_slice(&[a, b, c, d]);
    if let Some(max_payload) = rest.last_chunk_mut() {
        *max_payload = MAX_PAYLOAD.to_be_bytes();
    }
    push_frame(SESSION_OPENED, &answer, out);
    Ok(u32::from_be_bytes([a, b, c, d]))
}

/// The records of a `SESSION_BETS`, which follow the index of the first.
pub fn session_records(payload: &[u8]) -> io::Result<&[u8]> {
    payload.get(8..).ok_or_else(malformed)
}

/// Appends the CSV rows of records, which must have six fields. Returns their number.
pub fn push_rows(records: &[u8], rows: &mut Vec<u8>) -> io::Result<u64> {
    let text = std::str::from_utf8(records).map_err(io::Error::other)?;
    let mut count = 0;
    for record in text.split('\x1e') {
        let mut parts = record.as_bytes().split(|byte| *byte == FIELD_SEPARATOR);
        let mut fields: [&[u8]; FIELDS] = [&[]; FIELDS];
        for field in &mut fields {
            *field = parts.next().ok_or_else(malformed)?;
        }
        if parts.next().is_some() {
            return Err(malformed());
        }
        push_row(fields.into_iter(), rows);
        count += 1;
    }
    Ok(count)
}

/// Appends one CSV row.
pub fn push_row<'a>(fields: impl Iterator<Item = &'a [u8]>, rows: &mut Vec<u8>) {
    for (index, field) in fields.enumerate() {
        if index > 0 {
            rows.push(b',');
        }
        if field.iter().any(|byte| matches!(byte, b',' | b'"' | b'\r' | b'\n')) {
            push_quoted(field, rows);
        } else {
            rows.extend_from_slice(field);
        }
    }
    rows.extend_from_slice(b"\r\n");
}

fn push_quoted(field: &[u8], rows: &mut Vec<u8>) {
    rows.push(b'"');
    for &byte in field {
        if byte == b'"' {
            rows.push(b'"');
        }
        rows.push(byte);
    }
    rows.push(b'"');
}

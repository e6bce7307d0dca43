//! A client that sends and expects exact bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use super::{A_WHILE, Bet, PATIENCE, digest_of, records};

/// The types of frames, written down apart from the program's own: a wrong one there must fail a test.
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
}

/// A frame.
pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&[kind], &length.to_be_bytes()[..], payload].concat()
}

/// The frame that opens a session.
pub fn open_frame(version: u8, agency: u32) -> Vec<u8> {
    frame(kind::OPEN_SESSION, &[&[version], &agency.to_be_bytes()[..]].concat())
}

/// The frame that stores bets in a session.
pub fn bets_frame(first: u64, bets: &[Bet]) -> Vec<u8> {
    frame(kind::SESSION_BETS, &[&first.to_be_bytes()[..], &records(bets)].concat())
}

/// Stores each bet by a BET message.
#[track_caller]
pub fn store_each(port: u16, bets: &[Bet]) {
    for bet in bets {
        Client::connect(port).classic(kind::BET, &bet.record(), kind::BET_ACK, b"OK");
    }
}

/// The content of `SESSION_OPENED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    pub agency: u32,
    pub stored: u64,
    pub state: u8,
    pub max_payload: u32,
}

impl Opened {
    fn parse(payload: &[u8]) -> Self {
        Self {
            agency: u32::from_be_bytes(payload[..4].try_into().unwrap()),
            stored: u64::from_be_bytes(payload[4..12].try_into().unwrap()),
            state: payload[12],
            max_payload: u32::from_be_bytes(payload[13..17].try_into().unwrap()),
        }
    }
}

/// The length of the records that fit into one frame of a session by default.
const LONGEST: usize = 65_536 - 8;

/// One connection.
#[derive(Debug)]
pub struct Client {
    pub stream: TcpStream,
}

impl Client {
    /// Connects to a server of this machine.
    pub fn connect(port: u16) -> Self {
        Self::try_connect(port).unwrap()
    }

    /// Connects, unless no server listens.
    pub fn try_connect(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends one frame.
    pub fn send_frame(&mut self, kind: u8, payload: &[u8]) {
        self.send(&frame(kind, payload));
    }

    /// Closes the sending side of the connection.
    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Reads the next frame.
    pub fn read_frame(&mut self) -> (u8, Vec<u8>) {
        self.try_read_frame().unwrap()
    }

    /// Reads the next frame, unless the connection ends.
    pub fn try_read_frame(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        let mut header = [0; 5];
        self.stream.read_exact(&mut header)?;
        let [kind, a, b, c, d] = header;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap()];
        self.stream.read_exact(&mut payload)?;
        Ok((kind, payload))
    }

    /// Reads the next frame, which must be this one.
    #[track_caller]
    pub fn expect(&mut self, kind: u8, payload: &[u8]) {
        let (got, bytes) = self.read_frame();
        assert!(
            got == kind && bytes == payload,
            "expected 0x{kind:02x} {:?}, got 0x{got:02x} {:?}",
            String::from_utf8_lossy(payload),
            String::from_utf8_lossy(&bytes)
        );
    }

    /// Reads the next frame, which must be an ERROR. Returns its reason.
    #[track_caller]
    pub fn expect_error(&mut self) -> String {
        let (got, reason) = self.read_frame();
        let reason = String::from_utf8(reason).expect("a readable reason");
        assert_eq!(got, kind::ERROR, "{reason}");
        assert!(!reason.is_empty());
        reason
    }

    /// The server must close its side and send no further byte.
    #[track_caller]
    pub fn expect_eof(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("an orderly close");
        assert_eq!(rest, b"", "bytes before the end");
    }

    /// The server must close the connection and send no further byte. A reset is fine: the server may have left bytes unread.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => assert_eq!(rest, b"", "bytes before the end"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
    }

    /// The server must send nothing for a while.
    #[track_caller]
    pub fn expect_silence(&mut self) {
        self.stream.set_read_timeout(Some(A_WHILE)).unwrap();
        let mut byte = [0];
        let got = self.stream.read(&mut byte).map_err(|error| error.kind());
        assert_eq!(got, Err(ErrorKind::WouldBlock), "{byte:?}");
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }

    /// Opens a session.
    #[track_caller]
    pub fn open_session(&mut self, agency: u32) -> Opened {
        self.try_open_session(agency).unwrap()
    }

    /// Opens a session, unless the connection ends.
    #[track_caller]
    pub(crate) fn try_open_session(&mut self, agency: u32) -> std::io::Result<Opened> {
        self.stream.write_all(&open_frame(1, agency))?;
        let (got, payload) = self.try_read_frame()?;
        assert_eq!((got, payload.len()), (kind::SESSION_OPENED, 17), "{}", String::from_utf8_lossy(&payload));
        Ok(Opened::parse(&payload))
    }

    /// Opens a session of version 2. Also returns the digest of the stored bets.
    #[track_caller]
    pub fn open_session_2(&mut self, agency: u32) -> (Opened, u64) {
        self.send(&open_frame(2, agency));
        let (got, payload) = self.read_frame();
        assert_eq!((got, payload.len()), (kind::SESSION_OPENED, 25), "{}", String::from_utf8_lossy(&payload));
        let (opened, digest) = payload.split_at(17);
        (Opened::parse(opened), u64::from_be_bytes(digest.try_into().unwrap()))
    }

    /// Sends bets in a session. `first` is the index of the first one.
    pub fn send_bets(&mut self, first: u64, bets: &[Bet]) {
        self.send(&bets_frame(first, bets));
    }

    /// Reads the next frame, which must say that the agency has this many bets stored.
    #[track_caller]
    pub fn expect_stored(&mut self, stored: u64) {
        self.expect(kind::SESSION_STORED, &stored.to_be_bytes());
    }

    /// The same in a session of version 2: exactly these bets are stored.
    #[track_caller]
    pub fn expect_bets(&mut self, stored: &[Bet]) {
        let count = stored.len() as u64;
        let pair = [count.to_be_bytes(), digest_of(stored).to_be_bytes()];
        self.expect(kind::SESSION_STORED, &pair.concat());
    }

    /// Stores bets in a session, in frames that are not too long, and waits for the acknowledgements.
    #[track_caller]
    pub fn store(&mut self, first: u64, bets: &[Bet]) {
        let per_frame = if records(bets).len() < LONGEST { bets.len() } else { bets.len().min(200) };
        let mut stored = first;
        for bets in bets.chunks(per_frame.max(1)) {
            self.send_bets(stored, bets);
            stored += bets.len() as u64;
            self.expect_stored(stored);
        }
    }

    /// Sends the END of a session.
    #[track_caller]
    pub fn end_agency(&mut self) {
        self.send_frame(kind::END, b"");
        self.expect(kind::BET_ACK, b"OK");
    }

    /// Sends a classic message and expects this reply and the end of the connection.
    #[track_caller]
    pub fn classic(mut self, kind: u8, payload: &[u8], reply: u8, reply_payload: &[u8]) {
        self.send_frame(kind, payload);
        self.expect(reply, reply_payload);
        self.expect_eof();
    }

    /// Sends a classic message and expects an ERROR and the end of the connection. Returns the reason.
    #[track_caller]
    pub fn refused(mut self, kind: u8, payload: &[u8]) -> String {
        self.send_frame(kind, payload);
        let reason = self.expect_error();
        self.expect_eof();
        reason
    }

    /// Sends a classic END, which has no reply.
    #[track_caller]
    pub fn classic_end(mut self, agency: u8) {
        self.send_frame(kind::END, &[agency]);
        self.expect_eof();
    }
}

/// Asks a server for its STATUS.
pub fn status(port: u16) -> serde_json::Value {
    let mut client = Client::connect(port);
    client.send_frame(kind::STATUS_REQUEST, b"");
    let (got, json) = client.read_frame();
    assert_eq!(got, kind::STATUS);
    client.expect_eof();
    serde_json::from_slice(&json).unwrap()
}

//! Agency 3 and a fake server: the test itself reads and writes the server's frames.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use super::agencies::Agency;
use super::terminal::OnTerminal;
use super::{PATIENCE, await_some, digest_after, frame, kind};

/// The fake server and the folder of the agency.
#[derive(Debug)]
pub struct Stage {
    pub listener: TcpListener,
    pub folder: tempfile::TempDir,
}

impl Stage {
    /// Listens, and writes these rows into the agency's file.
    pub fn new(rows: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("agency-3.csv"), rows).unwrap();
        Self { listener, folder }
    }

    /// Starts the agency with these variables in its environment.
    pub fn agency(&self, variables: &[(&str, &str)]) -> Agency {
        Agency::start(self.folder.path(), 3, &self.address(), &Self::settings(variables))
    }

    /// The same on a terminal.
    pub fn agency_on_terminal(&self, variables: &[(&str, &str)]) -> OnTerminal {
        let variables = Self::settings(variables);
        let command = Agency::command(self.folder.path(), 3, &self.address(), &variables);
        OnTerminal::start(command, (400, 200))
    }

    fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    /// The variables of a test, and small batches.
    fn settings<'a>(variables: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        [&[("CLI_BATCH_MAXAMOUNT", "10")], variables].concat()
    }

    /// Accepts its next connection.
    pub fn accept(&self) -> Peer {
        await_some("a connection", || self.try_accept())
    }

    /// Accepts its next connection. None if it has not connected.
    pub fn try_accept(&self) -> Option<Peer> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) => panic!("{error}"),
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(Peer { stream })
    }

    /// Accepts a connection and opens a session with `stored` bets.
    pub fn accept_session(&self, stored: u64, state: u8, max_payload: u32) -> Peer {
        let mut peer = self.accept();
        peer.expect_opening();
        peer.open(stored, state, max_payload);
        peer
    }
}

/// One connection of the agency.
#[derive(Debug)]
pub struct Peer {
    pub stream: TcpStream,
}

impl Peer {
    /// Reads the `OPEN_SESSION` of agency 3, in version 2.
    pub fn expect_opening(&mut self) {
        assert_eq!(self.frame(), Some((kind::OPEN_SESSION, vec![2, 0, 0, 0, 3])));
    }

    /// Sends `SESSION_OPENED`, with the digest of the first `stored` of `rows`.
    pub fn open(&mut self, stored: u64, state: u8, max_payload: u32) {
        let head = [&3_u32.to_be_bytes()[..], &stored.to_be_bytes(), &[state], &max_payload.to_be_bytes()];
        self.send(kind::SESSION_OPENED, &[&head.concat()[..], &digest(stored).to_be_bytes()].concat());
    }

    /// Reads the next frame. None if the agency has closed the connection.
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 5];
        match self.stream.read(&mut header[..1]) {
            Ok(0) => return None,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
            got => assert_eq!(got.unwrap(), 1),
        }
        self.stream.read_exact(&mut header[1..]).unwrap();
        let mut payload = vec![0; u32::from_be_bytes(header[1..].try_into().unwrap()) as usize];
        self.stream.read_exact(&mut payload).unwrap();
        Some((header[0], payload))
    }

    /// Sends a frame.
    pub fn send(&mut self, kind: u8, payload: &[u8]) {
        self.stream.write_all(&frame(kind, payload)).unwrap();
    }

    /// Reads the next `SESSION_BETS`. Returns the index of its first bet and the documents.
    pub fn bets(&mut self) -> (u64, Vec<String>) {
        let (got, payload) = self.frame().unwrap();
        assert_eq!(got, kind::SESSION_BETS);
        let (first, records) = payload.split_at(8);
        (u64::from_be_bytes(first.try_into().unwrap()), documents(records))
    }

    /// Sends `SESSION_STORED`, with the digest of the first `stored` of `rows`.
    pub fn acknowledge(&mut self, stored: u64) {
        self.send(kind::SESSION_STORED, &[stored.to_be_bytes(), digest(stored).to_be_bytes()].concat());
    }

    /// Plays a whole session: acknowledges bets from `stored` to `total` and the END, and sends a result.
    pub fn finish(&mut self, mut stored: u64, total: u64, winners: &[u8]) {
        while stored < total {
            let (first, documents) = self.bets();
            assert_eq!(first, stored);
            for document in documents {
                assert_eq!(document, stored.to_string());
                stored += 1;
            }
            self.acknowledge(stored);
        }
        self.end(total);
        self.give_result(winners);
    }

    /// Reads and acknowledges END and the first bet, which the agency then sends again if it has one. The answer says that
    /// `stored` bets are stored.
    pub fn end(&mut self, stored: u64) {
        assert_eq!(self.frame(), Some((kind::END, vec![])));
        self.send(kind::BET_ACK, b"OK");
        if stored > 0 {
            assert_eq!(self.bets(), (0, vec!["0".to_owned()]));
            self.acknowledge(stored);
        }
    }

    /// Reads `AWAIT_RESULT`, sends a result, and expects the end of the connection.
    pub fn give_result(&mut self, winners: &[u8]) {
        assert_eq!(self.frame(), Some((kind::AWAIT_RESULT, vec![])));
        self.send(kind::RESULT, winners);
        assert_eq!(self.frame(), None);
    }
}

/// The documents of bet records, which must be those of `rows`.
pub fn documents(records: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(records).unwrap();
    let document = |record: &str| {
        let fields: Vec<&str> = record.split('\x1f').collect();
        assert_eq!((fields.len(), fields[0], fields[1]), (6, "3", "Ana, \"Nita\""));
        fields[3].to_owned()
    };
    text.split('\x1e').map(document).collect()
}

/// The digest of agency 3 once the first `count` of `rows` are stored.
pub fn digest(count: u64) -> u64 {
    let rows = rows(usize::try_from(count).unwrap());
    rows.split_inclusive('\n').fold(0, |digest, row| digest_after(digest, format!("3,{row}").as_bytes()))
}

/// Rows of an agency's file. The documents count from 0.
pub fn rows(count: usize) -> String {
    let row = |index| format!("\"Ana, \"\"Nita\"\"\",Núñez,{index},1990-02-28,7574\r\n");
    (0..count).map(row).collect::<Vec<_>>().concat()
}

//! A stand-in for the original Python server, run in threads of the test.
//!
//! It answers one classic message per connection. It never closes a connection: the original's parent process keeps
//! every accepted socket open. It gives no answer to an END or to a type that it does not know.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use super::{frame, kind};

/// What the server does with a connection whose first message has an unknown type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnknown {
    KeepOpen,
    Close,
}

/// A running stand-in. Its threads end with the test process.
#[derive(Debug)]
pub struct OriginalServer {
    pub address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    agencies: usize,
    /// The fields of each bet, in the order of arrival.
    bets: Vec<Vec<String>>,
    ended: Vec<u8>,
    last_end: Option<Instant>,
    open: Vec<TcpStream>,
}

impl OriginalServer {
    /// Starts one that makes the draw when this many agencies have ended.
    pub fn start(agencies: usize, on_unknown: OnUnknown) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State { agencies, ..State::default() }));
        let shared = state.clone();
        spawn(move || {
            for stream in listener.incoming() {
                let state = shared.clone();
                spawn(move || serve(stream.unwrap(), &state, on_unknown));
            }
        });
        Self { address, state }
    }

    /// The number of bets it has from this agency.
    pub fn bets_of(&self, agency: usize) -> usize {
        let state = self.state.lock().unwrap();
        state.bets.iter().filter(|bet| bet[0] == agency.to_string()).count()
    }

    /// The time of the draw, which is that of the last agency's first END.
    pub fn last_end(&self) -> Instant {
        self.state.lock().unwrap().last_end.expect("the draw")
    }
}

fn spawn(body: impl FnOnce() + Send + 'static) {
    thread::Builder::new().spawn(body).unwrap();
}

fn serve(mut stream: TcpStream, state: &Mutex<State>, on_unknown: OnUnknown) {
    let mut header = [0; 5];
    // The original reads the header with a single `recv`.
    if stream.read(&mut header).unwrap_or(0) < header.len() {
        return;
    }
    let [kind, length @ ..] = header;
    let mut payload = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut payload).unwrap();
    let mut state = state.lock().unwrap();
    if !matches!(kind, kind::MULTIPLE_BETS | kind::END | kind::RESULT_REQUEST)
        && on_unknown == OnUnknown::Close
    {
        return;
    }
    if let Some(reply) = state.take(kind, &payload) {
        stream.write_all(&reply).ok();
    }
    state.open.push(stream);
}

impl State {
    fn take(&mut self, kind: u8, payload: &[u8]) -> Option<Vec<u8>> {
        match kind {
            kind::MULTIPLE_BETS => {
                let records = std::str::from_utf8(payload).unwrap().split('\x1e');
                self.bets.extend(records.map(|record| record.split('\x1f').map(str::to_owned).collect()));
                Some(frame(kind::BET_ACK, b"OK"))
            }
            kind::END => {
                if !self.ended.contains(&payload[0]) {
                    self.ended.push(payload[0]);
                    self.last_end = Some(Instant::now());
                }
                None
            }
            kind::RESULT_REQUEST if self.ended.len() < self.agencies => Some(frame(kind::IN_PROGRESS, b"")),
            kind::RESULT_REQUEST => {
                let agency = payload[0].to_string();
                let won = self.bets.iter().filter(|bet| bet[0] == agency && bet[5] == "7574");
                let documents: Vec<&str> = won.map(|bet| &*bet[3]).collect();
                Some(frame(kind::RESULT, documents.join("\x1e").as_bytes()))
            }
            _ => None,
        }
    }
}

//! One process with a thread for each session. A session appends its rows to a shared buffer and waits until they are on
//! disk. The first session that finds nobody syncing writes and syncs the buffer for all. It validates and has a draw.

use std::fs::File;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::wire::{
    AWAIT_RESULT, BET_ACK, END, Frames, OPEN_SESSION, RESULT, SESSION_BETS, SESSION_STORED, malformed,
    open_session, push_frame, push_row, session_records,
};

const WINNING_NUMBER: u32 = 7574;

pub fn run(listener: &TcpListener, bets: &Path, agencies: usize) -> io::Result<()> {
    let file = File::options().create(true).append(true).open(bets)?;
    let log = &Log { file, agencies, shared: Mutex::default(), changed: Condvar::new() };
    std::thread::scope(|scope| {
        loop {
            let (socket, _) = listener.accept()?;
            // An error ends this client's thread only.
            scope.spawn(move || serve(&socket, log).ok());
        }
    })
}

struct Log {
    file: File,
    agencies: usize,
    shared: Mutex<Shared>,
    changed: Condvar,
}

#[derive(Default)]
struct Shared {
    /// Rows that are not yet written.
    pending: Vec<u8>,
    /// The buffer of the last write, to be used again.
    spare: Vec<u8>,
    /// Batches appended so far, and batches on disk.
    added: u64,
    synced: u64,
    syncing: bool,
    ended: usize,
    /// Agency and document.
    winners: Vec<(u32, String)>,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the rows are on disk.
    fn store(&self, rows: &[u8], winners: &mut Vec<(u32, String)>) -> io::Result<()> {
        let mut shared = self.lock();
        shared.pending.extend_from_slice(rows);
        shared.winners.append(winners);
        shared.added += 1;
        let mine = shared.added;
        while shared.synced < mine {
            shared = if shared.syncing {
                self.changed.wait(shared).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.sync(shared)?
            };
        }
        Ok(())
    }

    fn sync<'a>(&'a self, mut shared: MutexGuard<'a, Shared>) -> io::Result<MutexGuard<'a, Shared>> {
        shared.syncing = true;
        let group = shared.added;
        let spare = std::mem::take(&mut shared.spare);
        let mut rows = std::mem::replace(&mut shared.pending, spare);
        drop(shared);
        (&self.file).write_all(&rows)?;
        self.file.sync_data()?;
        rows.clear();
        let mut shared = self.lock();
        shared.spare = rows;
        shared.syncing = false;
        shared.synced = group;
        self.changed.notify_all();
        Ok(shared)
    }

    fn end(&self) {
        self.lock().ended += 1;
        self.changed.notify_all();
    }

    /// Waits until all agencies have ended; returns the agency's winning documents.
    fn result(&self, agency: u32) -> Vec<u8> {
        let waiting = self.changed.wait_while(self.lock(), |shared| shared.ended < self.agencies);
        let shared = waiting.unwrap_or_else(PoisonError::into_inner);
        let own = shared.winners.iter().filter(|(of, _)| *of == agency);
        own.map(|(_, document)| document.as_str()).collect::<Vec<_>>().join("\x1e").into_bytes()
    }
}

fn serve(socket: &TcpStream, log: &Log) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut client = socket;
    let mut frames = Frames::of(socket);
    let (mut agency, mut stored) = (0, 0);
    let (mut rows, mut winners, mut answer) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        answer.clear();
        match frames.next()? {
            (OPEN_SESSION, payload) => agency = open_session(payload, &mut answer)?,
            (SESSION_BETS, payload) => {
                rows.clear();
                let records = session_records(payload)?;
                stored += take_bets(records, agency, &mut rows, &mut winners)?;
                log.store(&rows, &mut winners)?;
                push_frame(SESSION_STORED, &u64::to_be_bytes(stored), &mut answer);
            }
            (END, _) => {
                log.end();
                push_frame(BET_ACK, b"OK", &mut answer);
            }
            (AWAIT_RESULT, _) => push_frame(RESULT, &log.result(agency), &mut answer),
            _ => return Err(malformed()),
        }
        client.write_all(&answer)?;
    }
}

/// Validates records, appends their rows and collects the winners. Returns the number of records.
fn take_bets(
    records: &[u8],
    agency: u32,
    rows: &mut Vec<u8>,
    winners: &mut Vec<(u32, String)>,
) -> io::Result<u64> {
    let text = std::str::from_utf8(records).map_err(io::Error::other)?;
    let mut count = 0;
    for record in text.split('\x1e') {
        let fields: Vec<&str> = record.split('\x1f').collect();
        let [of, _, _, document, birthdate, number] = *fields.as_slice() else { return Err(malformed()) };
        let number = number.parse::<u32>().map_err(io::Error::other)?;
        if of.parse() != Ok(agency) || !looks_like_a_date(birthdate) {
            return Err(malformed());
        }
        if number == WINNING_NUMBER {
            winners.push((agency, document.to_owned()));
        }
        push_row(fields.iter().map(|field| field.as_bytes()), rows);
        count += 1;
    }
    Ok(count)
}

fn looks_like_a_date(text: &str) -> bool {
    let within = |part: Option<&str>, most| {
        part.and_then(|digits| digits.parse::<u32>().ok()).is_some_and(|value| (1..=most).contains(&value))
    };
    let bytes = text.as_bytes();
    bytes.len() == 10
        && bytes.get(4) == Some(&b'-')
        && bytes.get(7) == Some(&b'-')
        && within(text.get(5..7), 12)
        && within(text.get(8..), 31)
}

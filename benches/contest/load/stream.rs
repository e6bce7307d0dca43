//! Generated bets: as frames that a client sends, and as rows of a file on which a server starts.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use loteria::lottery::row::encode_row;
use loteria::lottery::{AgencyId, Bet};
use loteria::protocol::message::ClientMessage;
use loteria::protocol::record::{RECORD_SEPARATOR, push_record};

/// Bets in one message.
const BATCH: u64 = 136;
/// One in so many bets wins.
const BETS_PER_WINNER: u64 = 5000;
const WINNING_NUMBER: u32 = 7574;
const NAMES: [(&str, &str); 4] = [
    ("Santiago Lionel", "Lorca"),
    ("Ana María", "Fernández"),
    ("Nicolás", "Echeverría"),
    ("Milagros Rocío", "Sosa"),
];

/// The agencies 1 to `count`.
pub fn agencies(count: u16) -> impl Iterator<Item = AgencyId> {
    (1..=count).filter_map(AgencyId::new)
}

/// Calls `take` with each bet of the agency in the range of indexes.
fn for_each_bet(
    agency: AgencyId,
    indexes: Range<u64>,
    mut take: impl FnMut(u64, &Bet<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let birthdates: Vec<String> =
        (0..84).map(|n| format!("19{}-{:02}-{:02}", 15 + n, n % 12 + 1, n % 28 + 1)).collect();
    let looks = birthdates.iter().zip(NAMES.iter().cycle()).cycle();
    for (index, (birthdate, (first_name, last_name))) in indexes.zip(looks) {
        let wins = index % BETS_PER_WINNER == BETS_PER_WINNER - 1;
        let loser = u32::try_from(index * 7919 % 7500).unwrap_or(0);
        let bet = Bet {
            agency,
            first_name,
            last_name,
            document: &document_of(agency, index).to_string(),
            birthdate,
            number: if wins { WINNING_NUMBER } else { loser },
        };
        take(index, &bet)?;
    }
    Ok(())
}

fn document_of(agency: AgencyId, index: u64) -> u64 {
    u64::from(agency.get()) * 10_000_000 + index
}

/// The payload of the RESULT for an agency with so many bets.
pub fn winners(agency: AgencyId, bets: u64) -> Vec<u8> {
    let indexes = (0..bets / BETS_PER_WINNER).map(|winner| (winner + 1) * BETS_PER_WINNER - 1);
    let documents = indexes.map(|index| document_of(agency, index).to_string());
    documents.collect::<Vec<_>>().join("\x1e").into_bytes()
}

/// One frame of a stream.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// The end of the frame in `Stream::bytes`.
    pub end: usize,
    /// The number of bets that the agency has after it.
    pub stored: u64,
}

/// The frames that one agency sends.
#[derive(Debug)]
pub struct Stream {
    /// The agency.
    pub agency: AgencyId,
    /// The number of bets that the agency has before it.
    pub begin: u64,
    /// All frames in sequence.
    pub bytes: Vec<u8>,
    /// Where each frame ends.
    pub batches: Vec<Batch>,
}

impl Stream {
    /// `SESSION_BETS` frames of the bets in the range of indexes.
    pub fn for_session(agency: AgencyId, indexes: Range<u64>) -> io::Result<Self> {
        Self::of(agency, indexes, |first, records| ClientMessage::SessionBets { first, records })
    }

    /// `MULTIPLE_BETS` frames.
    pub fn for_classic(agency: AgencyId, bets: u64) -> io::Result<Self> {
        Self::of(agency, 0..bets, |_, records| ClientMessage::MultipleBets(records))
    }

    fn of(
        agency: AgencyId,
        indexes: Range<u64>,
        message: impl Fn(u64, &[u8]) -> ClientMessage<'_>,
    ) -> io::Result<Self> {
        let mut stream = Self { agency, begin: indexes.start, bytes: Vec::new(), batches: Vec::new() };
        let mut records = Vec::new();
        let mut first = indexes.start;
        while first < indexes.end {
            let stored = (first + BATCH).min(indexes.end);
            records.clear();
            for_each_bet(agency, first..stored, |index, bet| {
                if index > first {
                    records.push(RECORD_SEPARATOR);
                }
                push_record(bet, &mut records);
                Ok(())
            })?;
            message(first, &records).encode(&mut stream.bytes);
            stream.batches.push(Batch { end: stream.bytes.len(), stored });
            first = stored;
        }
        Ok(stream)
    }

    /// The number of bets in it.
    pub fn bets(&self) -> u64 {
        self.stored() - self.begin
    }

    /// The number of bets that the agency has after it.
    pub fn stored(&self) -> u64 {
        self.batches.last().map_or(self.begin, |batch| batch.stored)
    }

    /// The bytes of a range of batches.
    pub fn frames(&self, batches: Range<usize>) -> &[u8] {
        let end_of = |count: usize| {
            count.checked_sub(1).and_then(|last| self.batches.get(last)).map_or(0, |batch| batch.end)
        };
        self.bytes.get(end_of(batches.start)..end_of(batches.end)).unwrap_or_default()
    }
}

/// The number of bets in all streams.
pub fn total_bets(streams: &[Stream]) -> u64 {
    streams.iter().map(Stream::bets).sum()
}

/// Writes commands for `psql` that store the agency's bets: each takes one batch, which is one transaction.
pub fn write_copy_commands(path: &Path, agency: AgencyId, bets: u64) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut rows = Vec::new();
    let mut first = 0;
    while first < bets {
        let next = (first + BATCH).min(bets);
        rows.clear();
        for_each_bet(agency, first..next, |_, bet| {
            encode_row(bet, &mut rows);
            Ok(())
        })?;
        file.write_all(b"COPY bets FROM stdin (FORMAT csv);\n")?;
        file.write_all(&rows)?;
        file.write_all(b"\\.\r\n")?;
        first = next;
    }
    file.flush()
}

/// Writes and syncs a file of bets in which the agencies take turns.
pub fn write_file(path: &Path, agency_count: u16, bets_each: u64) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut rows = Vec::new();
    let mut first = 0;
    while first < bets_each {
        let next = (first + BATCH * 50).min(bets_each);
        for agency in agencies(agency_count) {
            rows.clear();
            for_each_bet(agency, first..next, |_, bet| {
                encode_row(bet, &mut rows);
                Ok(())
            })?;
            file.write_all(&rows)?;
        }
        first = next;
    }
    file.into_inner()?.sync_all()
}

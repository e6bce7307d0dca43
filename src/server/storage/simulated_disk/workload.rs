//! A contest of three agencies, group by group, and what must stand in the files, counted by other means than the
//! ledger's: the `csv` crate and plain JSON.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::LazyLock;

use serde_json::Value;

use super::super::contest::Contest;
use super::super::state_file::Stored;
use super::image::Image;
use crate::lottery::seal::Hasher;
use crate::lottery::{AgencyId, Digest};

pub const AGENCIES: u16 = 3;
pub const WINNER: u32 = 7574;

/// What a client asks. A session has a name and an agency. Bets are named by their place in their agency's stream.
#[derive(Debug, Clone)]
pub enum Ask {
    /// The session opens.
    Open((char, u16)),
    /// The session's next bets.
    Bets((char, u16), Range<u64>),
    /// The session's agency has no more bets.
    End((char, u16)),
    /// A classic client's bets, of any agencies.
    Classic(Vec<(u16, Range<u64>)>),
    ClassicEnd(u16),
    Result(u16),
    Status,
}

impl Ask {
    /// Returns the bets that it brings, and their agencies.
    pub fn bets(&self) -> Vec<(u16, Range<u64>)> {
        match self {
            Self::Bets((_, agency), bets) => vec![(*agency, bets.clone())],
            Self::Classic(bets) => bets.clone(),
            _ => vec![],
        }
    }

    /// Returns the agency that it ends.
    pub fn ends(&self) -> Option<u16> {
        match self {
            Self::End((_, agency)) | Self::ClassicEnd(agency) => Some(*agency),
            _ => None,
        }
    }
}

/// Returns the requests of each group, and what is answered where nothing goes wrong.
pub fn groups() -> Vec<Vec<(Ask, &'static str)>> {
    use Ask::{Bets, Classic, ClassicEnd, End, Open, Result, Status};
    let [a, b, c] = [('a', 1), ('b', 2), ('c', 1)];
    let gap = "the first bet would be number 6, but the next to store is 4";
    let has_ended = "agency 3 has already sent END";
    let drawn = "the draw has already been made";
    vec![
        vec![(Open(a), "opened with 0"), (Open(b), "opened with 0")],
        vec![(Bets(a, 0..2), "stored 2"), (Bets(b, 0..1), "stored 1"), (Bets(a, 0..1), "stored 2")],
        vec![
            (Classic(vec![(3, 0..1)]), "stored"),
            (Bets(a, 1..4), "stored 4"),
            (Bets(a, 6..7), gap),
            (Result(3), "not drawn"),
        ],
        vec![(Open(c), "opened with 4"), (Bets(c, 0..4), "stored 4"), (Bets(a, 2..4), "stored 4")],
        vec![
            (Classic(vec![(2, 1..2), (3, 1..2), (2, 2..3)]), "stored"),
            (Bets(b, 1..4), "stored 4"),
            (Bets(c, 0..4), "stored 4"),
        ],
        vec![(ClassicEnd(3), "ended"), (Bets(a, 4..6), "stored 6"), (ClassicEnd(4), "no such agency")],
        vec![(Classic(vec![(2, 4..5), (3, 2..3)]), has_ended), (ClassicEnd(3), "ended"), (Status, "status")],
        vec![(Bets(c, 6..7), "stored 7"), (Bets(b, 3..5), "stored 5"), (Bets(a, 6..7), "stored 7")],
        vec![(End(b), "ended"), (ClassicEnd(2), "ended"), (Status, "status")],
        vec![(Bets(a, 0..7), "stored 7"), (Result(1), "not drawn")],
        vec![(Bets(a, 6..7), "stored 7"), (End(c), "ended"), (Result(2), "result"), (Status, "status")],
        vec![
            (Bets(a, 0..7), "stored 7"),
            (Bets(a, 7..8), drawn),
            (End(a), "ended"),
            (Result(1), "result"),
            (Result(2), "result"),
            (Result(3), "result"),
        ],
    ]
}

/// Returns the requests of each group.
pub fn asks() -> Vec<Vec<Ask>> {
    groups().into_iter().map(|group| group.into_iter().map(|(ask, _)| ask).collect()).collect()
}

/// The bets of the groups above, in the order in which they have to stand in the file.
const STORED: &[(u16, Range<u64>)] = &[
    (1, 0..2),
    (2, 0..1),
    (3, 0..1),
    (1, 2..4),
    (2, 1..2),
    (3, 1..2),
    (2, 2..4),
    (1, 4..6),
    (1, 6..7),
    (2, 4..5),
];

/// Encodes the row of a bet as another program does.
pub fn row(agency: u16, index: u64) -> Vec<u8> {
    let texts = ["Ana", "O\"Neil, Jr", "2,,,,2000-02-29,1", "\"", "x y,", "", ",", "ñ"];
    let text = |offset: u64| texts[usize::try_from(index + offset).unwrap() % texts.len()];
    let number = if index.is_multiple_of(2) { u64::from(WINNER) } else { index };
    let document = format!("{agency}{}{index}", text(4));
    let [first, last] = [text(agency.into()), text(2)];
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    writer
        .write_record([&agency.to_string(), first, last, &document, "1999-03-17", &number.to_string()])
        .unwrap();
    writer.into_inner().unwrap()
}

/// Lists each bet of some runs.
fn each(bets: &[(u16, Range<u64>)]) -> impl Iterator<Item = (u16, u64)> {
    bets.iter().flat_map(|(agency, range)| range.clone().map(|index| (*agency, index)))
}

pub static TRUTH: LazyLock<Truth> = LazyLock::new(Truth::new);

/// The file as it has to become, and each row of it.
#[derive(Debug)]
pub struct Truth {
    pub file: Vec<u8>,
    /// Where the row ends, its agency, and its document if it wins.
    rows: Vec<(usize, u16, Option<Vec<u8>>)>,
    /// The row of each bet, also of those that are never stored.
    all: HashMap<(u16, u64), Vec<u8>>,
}

impl Truth {
    fn new() -> Self {
        let all: HashMap<_, _> =
            each(&[(1, 0..8), (2, 0..8), (3, 0..8)]).map(|bet| (bet, row(bet.0, bet.1))).collect();
        let file: Vec<u8> = each(STORED).flat_map(|bet| all[&bet].clone()).collect();
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&*file);
        let mut end = 0;
        let rows = reader.byte_records().zip(each(STORED)).map(|(record, bet)| {
            let record = record.unwrap();
            end += all[&bet].len();
            let field = |index: usize| std::str::from_utf8(&record[index]).unwrap();
            let wins = field(5) == WINNER.to_string();
            (end, field(0).parse().unwrap(), wins.then(|| record[3].to_vec()))
        });
        let rows = rows.collect();
        Self { file, rows, all }
    }

    pub fn encode(&self, bets: &[(u16, Range<u64>)]) -> Vec<u8> {
        each(bets).flat_map(|bet| &self.all[&bet]).copied().collect()
    }

    /// Computes the digest of the agency's first `count` bets.
    pub fn digest(&self, agency: u16, count: u64) -> Digest {
        let stored = each(STORED).filter(|bet| bet.0 == agency).take(usize::try_from(count).unwrap());
        stored.fold(Digest::default(), |digest, bet| digest.with_row(&self.all[&bet]))
    }

    pub fn winners(&self, agency: u16) -> Vec<u8> {
        let of_agency = self.rows.iter().filter(|row| row.1 == agency);
        of_agency.filter_map(|row| row.2.clone()).collect::<Vec<_>>().join(&0x1e)
    }
}

/// What the files say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The length of the bets file.
    pub length: usize,
    pub counts: HashMap<u16, u64>,
    pub ended: BTreeSet<u64>,
    pub draw: Option<Value>,
}

impl View {
    /// Reads the files as a process sees them. The bets must be a first part of the expected ones: whole rows, each
    /// once, in order.
    pub fn of(image: &Image) -> Self {
        let bets = image.bets.cached();
        assert!(TRUTH.file.starts_with(&bets), "{}", String::from_utf8_lossy(&bets));
        let rows: Vec<_> = TRUTH.rows.iter().filter(|row| row.0 <= bets.len()).collect();
        assert_eq!(rows.last().map_or(0, |row| row.0), bets.len(), "whole rows only");
        let count = |agency| rows.iter().filter(|row| row.1 == agency).count() as u64;
        let state = image.state.cached().map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap());
        let ended = state["ended"].as_array().into_iter().flatten();
        for ended in ended.clone() {
            let agency = ended["agency"].as_u64().unwrap().try_into().unwrap();
            let digest = TRUTH.digest(agency, count(agency)).to_string();
            assert_eq!((&ended["bets"], &ended["digest"]), (&count(agency).into(), &digest.into()));
        }
        if state["draw"].is_object() {
            let mut hasher = Hasher::default();
            hasher.add(&bets);
            let seal = hasher.seal(rows.len() as u64);
            assert_eq!(state["draw"]["seal"], serde_json::to_value(seal).unwrap());
        }
        Self {
            length: bets.len(),
            counts: (1..=AGENCIES).map(|agency| (agency, count(agency))).collect(),
            ended: ended.map(|ended| ended["agency"].as_u64().unwrap()).collect(),
            draw: Some(state["draw"].clone()).filter(|draw| !draw.is_null()),
        }
    }

    pub fn count(&self, agency: u16) -> u64 {
        self.counts.get(&agency).copied().unwrap_or(0)
    }

    pub fn has_ended(&self, agency: u16) -> bool {
        self.ended.contains(&agency.into())
    }

    /// Asserts that nothing is missing that `earlier` had.
    pub fn assert_keeps(&self, earlier: &View) {
        assert!(self.length >= earlier.length, "bets are lost: {self:?} after {earlier:?}");
        assert!(self.ended.is_superset(&earlier.ended), "an END is lost: {self:?} after {earlier:?}");
        assert!(earlier.draw.is_none() || self.draw == earlier.draw, "the draw: {self:?} after {earlier:?}");
    }

    /// Asserts that nothing is there that `most` has not.
    pub fn assert_within(&self, most: &View) {
        assert!(self.length <= most.length, "bets of nowhere: {self:?}, at most {most:?}");
        assert!(self.ended.is_subset(&most.ended), "an END of nowhere: {self:?}, at most {most:?}");
        assert!(self.draw.is_none() || most.draw.is_some(), "a draw too early: {self:?}, at most {most:?}");
    }

    pub fn assert_is(&self, contest: &Contest) {
        assert_eq!(contest.bets(), self.counts.values().sum::<u64>());
        for number in 1..=AGENCIES {
            let count = self.count(number);
            let stored = Stored { bets: count, digest: TRUTH.digest(number, count) };
            assert_eq!(contest.stored(id(number)), Ok(stored));
        }
        let ended: BTreeSet<u64> = contest.ended_agencies().map(|agency| agency.get().into()).collect();
        assert_eq!(ended, self.ended);
        assert_eq!(contest.draw.as_ref().map(|draw| serde_json::to_value(draw).unwrap()), self.draw);
    }
}

pub fn id(agency: u16) -> AgencyId {
    AgencyId::new(agency).unwrap()
}

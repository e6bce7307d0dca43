//! Bets, as records on the wire and as rows of the bets file.

/// The winning number, by default.
pub const WINNING: u32 = 7574;

/// The six fields of a bet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bet {
    pub agency: u32,
    pub first_name: String,
    pub last_name: String,
    pub document: String,
    pub birthdate: String,
    pub number: u32,
}

impl Bet {
    /// One bet of an agency's made-up stream. No two are equal, and none wins.
    pub fn made_up(agency: u32, index: u32) -> Self {
        Self {
            agency,
            first_name: format!("Ana \"{index}\""),
            last_name: "Peña, hija".to_owned(),
            document: (u64::from(agency) * 10_000_000 + u64::from(index)).to_string(),
            birthdate: format!("19{:02}-{:02}-{:02}", index % 100, index % 12 + 1, index % 28 + 1),
            number: index % 1000,
        }
    }

    /// The bet as a record of the wire.
    pub fn record(&self) -> Vec<u8> {
        self.fields().join("\x1f").into_bytes()
    }

    fn fields(&self) -> [String; 6] {
        [
            self.agency.to_string(),
            self.first_name.clone(),
            self.last_name.clone(),
            self.document.clone(),
            self.birthdate.clone(),
            self.number.to_string(),
        ]
    }
}

/// A part of the agency's made-up stream.
pub fn bets(agency: u32, indexes: std::ops::Range<u32>) -> Vec<Bet> {
    indexes.map(|index| Bet::made_up(agency, index)).collect()
}

/// A bet that wins.
pub fn winner(agency: u32, document: &str) -> Bet {
    Bet { document: document.to_owned(), number: WINNING, ..Bet::made_up(agency, 0) }
}

/// The bets as records, with their separators.
pub fn records(bets: &[Bet]) -> Vec<u8> {
    bets.iter().map(Bet::record).collect::<Vec<_>>().join(&b"\x1e"[..])
}

/// The bets file that contains exactly these bets.
pub fn rows(bets: &[Bet]) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new()
        .has_headers(false)
        .terminator(csv::Terminator::CRLF)
        .quote_style(csv::QuoteStyle::Necessary)
        .from_writer(Vec::new());
    for bet in bets {
        writer.write_record(bet.fields()).unwrap();
    }
    writer.into_inner().unwrap()
}

/// The digest of an agency's bets once this row follows those with that digest.
pub fn digest_after(digest: u64, row: &[u8]) -> u64 {
    twox_hash::XxHash3_64::oneshot_with_seed(digest, row)
}

/// The digest of an agency with exactly these bets.
pub fn digest_of(bets: &[Bet]) -> u64 {
    rows(bets).split_inclusive(|byte| *byte == b'\n').fold(0, digest_after)
}

/// The bets of a file. Panics unless it contains only whole rows.
pub fn parse_rows(bytes: &[u8]) -> Vec<Bet> {
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).terminator(csv::Terminator::CRLF).from_reader(bytes);
    let parsed: Vec<Bet> = reader
        .records()
        .map(|record| {
            let record = record.expect("a row of six fields");
            assert_eq!(record.len(), 6, "{record:?}");
            Bet {
                agency: record[0].parse().unwrap(),
                first_name: record[1].to_owned(),
                last_name: record[2].to_owned(),
                document: record[3].to_owned(),
                birthdate: record[4].to_owned(),
                number: record[5].parse().unwrap(),
            }
        })
        .collect();
    assert!(rows(&parsed) == bytes, "the file contains something besides whole rows");
    parsed
}

/// The bets of one agency.
pub fn of_agency(bets: &[Bet], agency: u32) -> Vec<Bet> {
    bets.iter().filter(|bet| bet.agency == agency).cloned().collect()
}

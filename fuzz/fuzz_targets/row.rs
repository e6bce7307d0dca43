//! Rows of the bets file: a row is accepted only if the encoder writes the same bytes for the same bet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loteria::lottery::Bet;
use loteria::lottery::row::{RowError, encode_row, parse_row};

fuzz_target!(|bytes: &[u8]| {
    let row = match parse_row(bytes) {
        Ok(row) => row,
        Err(RowError::Unfinished | RowError::UnfinishedQuotes) => return,
        Err(error) => {
            // Further bytes do not make an invalid row valid.
            assert_eq!(parse_row(&[bytes, b",\"\r\n"].concat()), Err(error));
            return;
        }
    };
    let whole = &bytes[..row.len];
    assert_eq!(parse_row(whole).as_ref(), Ok(&row));
    for end in 0..whole.len() {
        let part = parse_row(&whole[..end]);
        assert!(matches!(part, Err(RowError::Unfinished | RowError::UnfinishedQuotes)), "{end}: {part:?}");
    }
    if let Some(fields) = plain_fields(whole) {
        let bet = Bet::from_fields(fields).expect("a row is a bet");
        let mut again = Vec::new();
        encode_row(&bet, &mut again);
        assert_eq!(whole, again);
    }
});

/// The fields of a row without quotes.
fn plain_fields(row: &[u8]) -> Option<[&str; 6]> {
    let text = std::str::from_utf8(row).ok()?.strip_suffix("\r\n")?;
    if text.contains('"') {
        return None;
    }
    text.split(',').collect::<Vec<_>>().try_into().ok()
}

//! The records of a message become rows of the file, in one pass.

use crate::lottery::Bet;
use crate::lottery::row::encode_row;
use crate::protocol::record::{FIELD_SEPARATOR, RecordError, for_each_bet};

/// Validates the records and appends their rows. `see` gets each bet. Returns how many there were.
///
/// # Errors
/// The first thing that is wrong; the rows before it have been appended.
pub fn push_rows(
    records: &[u8],
    rows: &mut Vec<u8>,
    mut see: impl FnMut(&Bet<'_>),
) -> Result<usize, RecordError> {
    // Looked for in all records at once, which is far faster than in each field. Most messages have none of them, and
    // then a record is a row but for its separators.
    let plain = !records.iter().fold(false, |found, byte| found | matches!(byte, b',' | b'"'));
    rows.reserve(records.len() + records.len() / 16);
    for_each_bet(records, |bet, record| {
        see(bet);
        if !(plain && push_plain(bet, record, rows)) {
            encode_row(bet, rows);
        }
    })
}

/// Appends the row of a record whose fields need no quotes. False, and nothing is appended, where it would not be the
/// one form that a bet has in the file: a number has leading zeros.
fn push_plain(bet: &Bet<'_>, record: &[u8], rows: &mut Vec<u8>) -> bool {
    let mut separator = record.iter().position(|byte| *byte == FIELD_SEPARATOR).unwrap_or(record.len());
    let texts = [bet.first_name, bet.last_name, bet.document, bet.birthdate];
    let number = separator + texts.iter().map(|text| text.len() + 1).sum::<usize>() + 1;
    let is_zero = |at: usize| record.get(at) == Some(&b'0');
    if is_zero(0) || (is_zero(number) && record.len() > number + 1) {
        return false;
    }
    let start = rows.len();
    rows.extend_from_slice(record);
    let row = rows.get_mut(start..).unwrap_or_default();
    for length in texts.map(str::len).into_iter().chain([0]) {
        if let Some(byte) = row.get_mut(separator) {
            *byte = b',';
        }
        separator += length + 1;
    }
    rows.extend_from_slice(b"\r\n");
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lottery::bet::FIELDS;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_are_the_same_on_both_ways(
            bets in proptest::collection::vec(
                ("0{0,2}[1-9][0-9]{0,3}", "[ab,\"]{0,4}|[a-zñ]{0,20}", "[a-z ]{0,9}", "[0-9]{0,9}", "0{0,2}[0-9]{1,4}"),
                1..5,
            ),
        ) {
            let fields: Vec<[&str; FIELDS]> =
                bets.iter().map(|(a, f, l, d, n)| [&**a, &**f, &**l, &**d, "2000-02-29", &**n]).collect();
            let records: Vec<String> = fields.iter().map(|fields| fields.join("\x1f")).collect();
            let mut expected = Vec::new();
            for fields in fields {
                encode_row(&Bet::from_fields(fields).unwrap(), &mut expected);
            }
            let mut rows = b"before".to_vec();
            let mut seen = 0;
            let count = push_rows(records.join("\x1e").as_bytes(), &mut rows, |_| seen += 1).unwrap();
            prop_assert_eq!((count, seen), (bets.len(), bets.len()));
            prop_assert_eq!(&rows[6..], &expected[..]);
        }
    }
}

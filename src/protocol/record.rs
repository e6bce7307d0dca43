//! Bet records: how bets are written in a payload.
//!
//! Records are separated by `0x1E`, the six fields of a record by `0x1F`; text is UTF-8.

use thiserror::Error;

use crate::lottery::bet::FIELDS;
use crate::lottery::row::{encode_row_with, needs_quotes, push_decimal};
use crate::lottery::{Bet, BetError};

/// Stands between two records, and between two documents of a result.
pub const RECORD_SEPARATOR: u8 = 0x1E;
/// Stands between two fields of a record.
pub const FIELD_SEPARATOR: u8 = 0x1F;

/// The rows of a payload have fewer than this times its bytes. They are longest where the texts are nothing but quotes: a
/// text of `n` quotes has `2 * n + 2` bytes in a row, but its record has at least 17 other bytes.
pub(crate) const LONGEST_ROWS: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    #[error("there is no bet in the message")]
    Empty,
    #[error("the bets are not UTF-8 text")]
    Utf8,
    #[error("bet {}: {error}", .index + 1)]
    Bet {
        /// From 0.
        index: usize,
        error: BetError,
    },
}

/// Returns how many records a payload has, good or bad.
#[must_use]
pub fn count_records(payload: &[u8]) -> usize {
    let separators: usize = payload.iter().map(|byte| usize::from(*byte == RECORD_SEPARATOR)).sum();
    if payload.is_empty() { 0 } else { separators + 1 }
}

/// Validates every record of a payload and calls `take` for each bet. Returns how many there were. After an error, `take` was
/// called for the bets before it.
pub fn for_each_bet<'a>(payload: &'a [u8], mut take: impl FnMut(&Bet<'a>)) -> Result<usize, RecordError> {
    if payload.is_empty() {
        return Err(RecordError::Empty);
    }
    let text = std::str::from_utf8(payload).map_err(|_| RecordError::Utf8)?;
    let (mut start, mut index) = (0, 0);
    while start <= text.len() {
        let bet = next_bet(text, &mut start).map_err(|error| RecordError::Bet { index, error })?;
        take(&bet);
        index += 1;
    }
    Ok(index)
}

/// Validates every record of a payload and appends their rows to `rows`. Calls `see` for each bet. Returns how many there
/// were. After an error, the rows before it were appended.
pub fn push_rows(
    payload: &[u8],
    rows: &mut Vec<u8>,
    mut see: impl FnMut(&Bet<'_>),
) -> Result<usize, RecordError> {
    // Most messages hold no text that needs quotes. One check of all records is faster than one of each text.
    let may_quote = needs_quotes(payload);
    rows.reserve(if may_quote { LONGEST_ROWS * payload.len() } else { payload.len() + payload.len() / 16 });
    for_each_bet(payload, |bet| {
        see(bet);
        encode_row_with(bet, |text| may_quote && needs_quotes(text), rows);
    })
}

/// Parses the record at `start`, and moves `start` to the next record, or beyond the end of the text.
fn next_bet<'a>(text: &'a str, start: &mut usize) -> Result<Bet<'a>, BetError> {
    let mut fields = [""; FIELDS];
    for (index, field) in fields.iter_mut().enumerate() {
        let rest = text.get(*start..).ok_or(BetError::FieldCount)?;
        let separator = rest.bytes().position(|byte| matches!(byte, RECORD_SEPARATOR | FIELD_SEPARATOR));
        let length = separator.unwrap_or(rest.len());
        *field = rest.get(..length).unwrap_or_default();
        let ends_record = rest.as_bytes().get(length) != Some(&FIELD_SEPARATOR);
        if ends_record != (index + 1 == FIELDS) {
            return Err(BetError::FieldCount);
        }
        *start += length + 1;
    }
    Bet::from_fields(fields)
}

/// Appends the record of a bet. The caller has to append the separator before it.
pub fn push_record(bet: &Bet<'_>, out: &mut Vec<u8>) {
    push_decimal(bet.agency.get().into(), out);
    for text in [bet.first_name, bet.last_name, bet.document, bet.birthdate] {
        out.push(FIELD_SEPARATOR);
        out.extend_from_slice(text.as_bytes());
    }
    out.push(FIELD_SEPARATOR);
    push_decimal(bet.number, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lottery::row::encode_row;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_that_was_written_is_read_back(
            agency in 1_u16.., first in "\\PC{0,60}", document in "\\PC{0,60}", number: u32,
        ) {
            let (a, n) = (agency.to_string(), number.to_string());
            let bet = Bet::from_fields([&a, &first, "x", &document, "2000-02-29", &n]).unwrap();
            let mut payload = Vec::new();
            push_record(&bet, &mut payload);
            payload.push(RECORD_SEPARATOR);
            push_record(&bet, &mut payload);
            let mut got = Vec::new();
            for_each_bet(&payload, |bet| got.push(format!("{bet:?}"))).unwrap();
            prop_assert_eq!(got, vec![format!("{bet:?}"); 2]);
        }

        #[test]
        fn the_rows_of_a_message_are_those_of_its_bets(
            fields in proptest::collection::vec(("0{0,2}[1-9][0-9]{0,3}", "[ab,\"]{0,4}|[a-zñ]{0,20}"), 1..5),
        ) {
            let records: Vec<String> = fields
                .iter()
                .map(|(agency, name)| [agency, name, "", "1", "2000-02-29", "007"].join("\x1f"))
                .collect();
            let mut expected = b"before".to_vec();
            for record in &records {
                for_each_bet(record.as_bytes(), |bet| encode_row(bet, &mut expected)).unwrap();
            }
            let mut rows = b"before".to_vec();
            let payload = records.join("\x1e");
            let count = push_rows(payload.as_bytes(), &mut rows, |_| ());
            prop_assert_eq!(count, Ok(count_records(payload.as_bytes())));
            prop_assert_eq!(count, Ok(fields.len()));
            prop_assert_eq!(rows, expected);
        }

        #[test]
        fn no_separators_make_it_panic(payload in "[01\\x1e\\x1f-]{0,40}") {
            if let Ok(count) = for_each_bet(payload.as_bytes(), |_| ()) {
                prop_assert_eq!(count, count_records(payload.as_bytes()));
            }
        }
    }
}

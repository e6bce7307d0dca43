//! A bet as a row of `bets.csv`: the bytes of `CPython`'s `csv.writer` with its defaults (`QUOTE_MINIMAL`, CRLF).
//!
//! | field | bytes |
//! |---|---|
//! | agency | decimal, 1 to 65535, no leading zeros |
//! | first name, last name, document | UTF-8, see [`check_text`](super::bet::check_text); in quotes, with each quote doubled, if it holds `,` or `"` |
//! | birthdate | `YYYY-MM-DD` |
//! | number | decimal, 0 to 4294967295, no leading zeros |
//!
//! Fields are separated by `,`; a row ends with CRLF. No field holds a line break, so a row is one line.
//!
//! [`encode_row`] and [`parse_row`] are each other's inverse, and every row goes through them: a handler encodes, the
//! storage service parses what it is about to append, recovery and audits parse what they find. So nothing that was
//! appended can be found damaged later.

use std::borrow::Cow;

use thiserror::Error;

use super::agency_id::AgencyId;
use super::bet::{Bet, BetError, FIELDS, MAX_TEXT, parse_decimal};

/// The longest row, in bytes: agency, three texts of nothing but quotes, birthdate, number, commas and CRLF.
pub const MAX_ROW: usize = 5 + 3 * (2 + 2 * MAX_TEXT) + 10 + 10 + 5 + 2;

/// What the contest needs of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<'a> {
    /// The whole line, CRLF included.
    pub bytes: &'a [u8],
    pub agency: AgencyId,
    pub number: u32,
    /// The document, without quotes around it.
    pub document: Cow<'a, str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RowError {
    /// It ends with LF alone, or has no end.
    #[error("the line does not end with CRLF")]
    LineEnd,
    #[error("the line is longer than {MAX_ROW} bytes, the longest row")]
    TooLong,
    #[error("the line is not UTF-8 text")]
    Utf8,
    #[error("the line does not have the 6 fields of a bet, separated by commas")]
    FieldCount,
    /// Quotes where `csv.writer` writes none, none where it writes them, or one that is not closed.
    #[error("a quote is out of place: only a field that holds a comma or a quote is in quotes, as a whole")]
    Quotes,
    /// Without this check, two different rows could be the same bet.
    #[error("the agency or the number has leading zeros")]
    LeadingZeros,
    #[error("{0}")]
    Bet(#[from] BetError),
}

/// Appends the row of a bet.
pub fn encode_row(bet: &Bet<'_>, out: &mut Vec<u8>) {
    encode_row_with(bet, needs_quotes, out);
}

/// Appends the row of a bet. `needs_quotes` tells whether a text has to be in quotes. A caller that has checked many bets at
/// once need not check each text again.
#[inline]
pub(crate) fn encode_row_with(bet: &Bet<'_>, needs_quotes: impl Fn(&[u8]) -> bool, out: &mut Vec<u8>) {
    push_decimal(bet.agency.get().into(), out);
    out.push(b',');
    for text in [bet.first_name, bet.last_name, bet.document].map(str::as_bytes) {
        if needs_quotes(text) {
            push_quoted(text, out);
        } else {
            out.extend_from_slice(text);
        }
        out.push(b',');
    }
    out.extend_from_slice(bet.birthdate.as_bytes());
    out.push(b',');
    push_decimal(bet.number, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal: three times as fast as `write!`, and it is needed twice for each bet.
pub(crate) fn push_decimal(mut number: u32, out: &mut Vec<u8>) {
    let mut digits = [0; 10];
    let mut start = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        start -= 1;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(start..).unwrap_or_default());
}

/// Returns whether one of the bytes must be in quotes.
pub(crate) fn needs_quotes(bytes: &[u8]) -> bool {
    // No early exit, and `u8` instead of `bool`: only so does the compiler use vector instructions.
    bytes.iter().fold(0, |found, byte| found | u8::from(*byte == b',') | u8::from(*byte == b'"')) != 0
}

fn push_quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Parses one line, its CRLF included.
pub fn parse_row(line: &[u8]) -> Result<Row<'_>, RowError> {
    let mut rows = Rows::new(line)?;
    let row = rows.next_row()?;
    if rows.at == line.len() { Ok(row) } else { Err(RowError::LineEnd) }
}

/// Parses bytes that have to be whole rows and nothing else, and calls `take` for each. After an error, `take` may have been
/// called for the rows before it.
pub fn for_each_row<'a, E: From<RowError>>(
    rows: &'a [u8],
    mut take: impl FnMut(Row<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut rows = Rows::new(rows)?;
    while rows.at < rows.text.len() {
        take(rows.next_row()?)?;
    }
    Ok(())
}

/// Returns the agency with which each line begins, `None` if it begins with none. The rest of a line is not parsed.
pub(crate) fn agencies_of(rows: &[u8]) -> impl Iterator<Item = Option<AgencyId>> {
    let agency =
        |line: &[u8]| line.split(|byte| *byte == b',').next().and_then(parse_decimal).and_then(AgencyId::new);
    rows.split_inclusive(|byte| *byte == b'\n').map(agency)
}

/// Rows one after the other.
struct Rows<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Rows<'a> {
    fn new(rows: &'a [u8]) -> Result<Self, RowError> {
        Ok(Self { text: std::str::from_utf8(rows).map_err(|_| RowError::Utf8)?, at: 0 })
    }

    fn next_row(&mut self) -> Result<Row<'a>, RowError> {
        let start = self.at;
        let mut fields = [""; FIELDS];
        for (index, field) in fields.iter_mut().enumerate() {
            let ends_line;
            (*field, ends_line) = self.next_field()?;
            if ends_line != (index + 1 == FIELDS) {
                return Err(RowError::FieldCount);
            }
        }
        let [agency, first_name, last_name, document, birthdate, number] = fields;
        let number = number.strip_suffix('\r').ok_or(RowError::LineEnd)?;
        if has_leading_zeros(agency) || has_leading_zeros(number) {
            return Err(RowError::LeadingZeros);
        }
        let [first_name, last_name, document] =
            [unquote(first_name)?, unquote(last_name)?, unquote(document)?];
        let bet = Bet::from_fields([agency, &first_name, &last_name, &document, birthdate, number])?;
        let bytes = self.text.as_bytes().get(start..self.at).unwrap_or_default();
        Ok(Row { bytes, agency: bet.agency, number: bet.number, document })
    }

    /// Returns the next field, with the quotes around it, and whether the line ends with it.
    fn next_field(&mut self) -> Result<(&'a str, bool), RowError> {
        let start = self.at;
        let (mut end, mut mark) = self.next_mark().ok_or(RowError::LineEnd)?;
        if mark == b'"' {
            if end != start {
                return Err(RowError::Quotes);
            }
            (end, mark) = self.end_of_quoted()?;
        }
        let field = self.text.get(start..end).ok_or(RowError::Quotes)?;
        Ok((field, mark == b'\n'))
    }

    /// Returns the mark behind a quoted field whose first quote was passed.
    fn end_of_quoted(&mut self) -> Result<(usize, u8), RowError> {
        loop {
            match self.next_mark() {
                Some((_, b',')) => {}
                Some((quote, b'"')) => match self.next_mark() {
                    Some((next, b'"')) if next == quote + 1 => {}
                    Some((next, mark)) if next == quote + 1 => return Ok((next, mark)),
                    _ => return Err(RowError::Quotes),
                },
                _ => return Err(RowError::Quotes),
            }
        }
    }

    /// Passes the next comma, quote or line feed, and returns its place.
    fn next_mark(&mut self) -> Option<(usize, u8)> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let (length, mark) = rest.iter().enumerate().find(|(_, byte)| matches!(byte, b',' | b'"' | b'\n'))?;
        let place = self.at + length;
        self.at = place + 1;
        Some((place, *mark))
    }
}

fn has_leading_zeros(digits: &str) -> bool {
    digits.len() > 1 && digits.starts_with('0')
}

fn unquote(field: &str) -> Result<Cow<'_, str>, RowError> {
    let Some(quoted) = field.strip_prefix('"') else { return Ok(Cow::Borrowed(field)) };
    let text = quoted.strip_suffix('"').unwrap_or(quoted).replace("\"\"", "\"");
    if needs_quotes(text.as_bytes()) { Ok(Cow::Owned(text)) } else { Err(RowError::Quotes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row_of(fields: [&str; FIELDS]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_row(&Bet::from_fields(fields).unwrap(), &mut out);
        out
    }

    #[test]
    fn no_row_is_longer_than_the_longest_one() {
        let text = "\"".repeat(MAX_TEXT);
        let row = row_of(["65535", &text, &text, &text, "1999-03-17", "4294967295"]);
        assert_eq!(row.len(), MAX_ROW);
        assert_eq!(parse_row(&row).unwrap().document, text);
    }

    #[test]
    fn a_line_that_is_not_a_row_is_refused() {
        let control =
            BetError::Text { field: "first name", error: crate::lottery::TextError::ControlCharacter };
        for (line, error) in [
            (&b""[..], RowError::LineEnd),
            (b"1,a,b,c,1999-03-17,7", RowError::LineEnd),
            (b"1,a,b,c,1999-03-17,7\r", RowError::LineEnd),
            (b"1,a,b,c,1999-03-17,7\n", RowError::LineEnd),
            (b"\r\n", RowError::FieldCount),
            (b"1,a,b,c,1999-03-17\r\n", RowError::FieldCount),
            (b"1,a,b,c,1999-03-17,7,8\r\n", RowError::FieldCount),
            (b"1,a,b,c,1999-03-17,7,\r\n", RowError::FieldCount),
            (b"1,a\"b,b,c,1999-03-17,7\r\n", RowError::Quotes),
            (b"1,\"a\"b,b,c,1999-03-17,7\r\n", RowError::Quotes),
            (b"1,\"a,\" ,b,c,1999-03-17,7\r\n", RowError::Quotes),
            (b"1,\"a\",b,c,1999-03-17,7\r\n", RowError::Quotes),
            (b"1,\"\",b,c,1999-03-17,7\r\n", RowError::Quotes),
            (b"1,a,b,c,1999-03-17,7\r\n1,a,b,c,1999-03-17,7\r\n", RowError::LineEnd),
            (b"1,\"a,b,c,1999-03-17,7\r\n", RowError::Quotes),
            (b"1,\"a\"\",b,c,1999-03-17,7\r\n", RowError::Quotes),
            (b"1,\xff,b,c,1999-03-17,7\r\n", RowError::Utf8),
            (b"1,a\rb,b,c,1999-03-17,7\r\n", control.into()),
            (b"1,a\0,b,c,1999-03-17,7\r\n", control.into()),
            (b"0,a,b,c,1999-03-17,7\r\n", BetError::Agency.into()),
            (b"01,a,b,c,1999-03-17,7\r\n", RowError::LeadingZeros),
            (b"1,a,b,c,1999-03-17,07\r\n", RowError::LeadingZeros),
            (b"65536,a,b,c,1999-03-17,7\r\n", BetError::Agency.into()),
            (b"1,a,b,c,1999-02-29,7\r\n", BetError::Birthdate.into()),
            (b"1,a,b,c,1999-03-17,\r\n", BetError::Number.into()),
            (b"1,a,b,c,1999-03-17,4294967296\r\n", BetError::Number.into()),
        ] {
            assert_eq!(parse_row(line), Err(error), "{}", String::from_utf8_lossy(line));
        }
    }

    proptest! {
        #[test]
        fn a_row_that_was_encoded_is_parsed_back_and_is_what_the_csv_crate_writes(
            agency in 1_u16.., first in "\\PC{0,60}|[a,\"]{0,6}", last in "[a,\"]{0,6}",
            document in "\\PC{0,60}|[a,\"]{0,6}", number: u32,
        ) {
            let (agency, number) = (agency.to_string(), number.to_string());
            let fields = [&*agency, &*first, &*last, &*document, "1999-03-17", &*number];
            let row = row_of(fields);
            let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(vec![]);
            writer.write_record(fields).unwrap();
            prop_assert_eq!(&row, &writer.into_inner().unwrap());

            let parsed = parse_row(&row).unwrap();
            prop_assert_eq!(parsed.agency.to_string(), agency);
            prop_assert_eq!(parsed.number.to_string(), number);
            prop_assert_eq!(parsed.document, document);
            prop_assert!(agencies_of(&row.repeat(2)).eq([Some(parsed.agency); 2]));
        }

        #[test]
        fn what_is_parsed_is_what_would_be_written(
            text in "[12],[ab,\"é]{0,9},[\"a]{0,4},9?,1999-03-1[67],[0-9]{1,2}", bytes: Option<Vec<u8>>,
        ) {
            let line = [&*bytes.unwrap_or(text.into()), b"\r\n"].concat();
            if parse_row(&line).is_ok() {
                let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&*line);
                let record = reader.records().next().unwrap().unwrap();
                let fields: Vec<&str> = record.iter().collect();
                prop_assert_eq!(row_of(fields.try_into().unwrap()), line);
            }
        }
    }
}

//! A bet as a row of `bets.csv`: the bytes of `CPython`'s `csv.writer` with its defaults (`QUOTE_MINIMAL`, CRLF).
//!
//! [`encode_row`] and [`parse_row`] are each other's inverse, and all rows go through them: a handler encodes, the
//! storage service parses what it is about to append, recovery parses what it finds. What one accepts the others
//! do, so nothing that was appended can be found damaged later.
//!
//! | field | bytes |
//! |---|---|
//! | agency | decimal, 1 to 65535, no leading zeros |
//! | first name, last name, document | UTF-8; in quotes, with each quote doubled, if it holds `,` `"` CR or LF |
//! | birthdate | `YYYY-MM-DD` |
//! | number | decimal, 0 to 4294967295, no leading zeros |
//!
//! Fields are separated by `,`; a row ends with CRLF.

use std::borrow::Cow;

use memchr::{Memchr2, memchr, memchr_iter, memchr2_iter};
use thiserror::Error;

use super::bet::{FIELDS, is_real_date, parse_decimal};
use super::{AgencyId, Bet};

/// What a row says that the contest needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<'a> {
    /// The bet's agency.
    pub agency: AgencyId,
    /// The number that was bet on.
    pub number: u32,
    /// The document, unquoted.
    pub document: Cow<'a, [u8]>,
    /// The length of the row in bytes, CRLF included.
    pub len: usize,
    /// Whether one of its fields is in quotes, and may so hold line breaks.
    pub quoted: bool,
}

impl<'a> Row<'a> {
    fn of(fields: Fields<'a>, len: usize, quoted: bool) -> Result<Self, RowError> {
        let [agency, _, _, document, birthdate, number] = fields;
        let agency = canonical_decimal(agency).and_then(AgencyId::new).ok_or(RowError::Agency)?;
        if !is_real_date(birthdate) {
            return Err(RowError::Birthdate);
        }
        let number = canonical_decimal(number).ok_or(RowError::Number)?;
        Ok(Self { agency, number, document: unquote(document), len, quoted })
    }
}

/// Why bytes are not a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RowError {
    /// The bytes end before the row does; more could make it whole.
    #[error("the row is not finished")]
    Unfinished,
    /// As `Unfinished`, inside of a quoted field: what follows may be anything.
    #[error("a quoted field is not finished")]
    UnfinishedQuotes,
    /// Not six fields, or quotes that stand where none can.
    #[error("not a row of 6 CSV fields that ends with CRLF")]
    Malformed,
    /// The first field is no agency.
    #[error(
        "the first field is not an agency's number from 1 to 65535, without zeros or anything else before it"
    )]
    Agency,
    /// The fifth field is no date.
    #[error("the fifth field is not a date YYYY-MM-DD")]
    Birthdate,
    /// The last field is no number.
    #[error("the last field is not a number from 0 to 4294967295, without zeros before it")]
    Number,
    /// It holds a character that separates fields or bets on the wire: a result would be cut there.
    #[error("the row holds the control character 0x1e or 0x1f, which no bet can hold")]
    Separator,
    /// The row is not UTF-8.
    #[error("the row is not UTF-8")]
    Utf8,
}

/// Appends the row of a bet.
pub fn encode_row(bet: &Bet<'_>, out: &mut Vec<u8>) {
    encode_row_with(bet, needs_quotes, out);
}

/// Appends the row of a bet. `needs_quotes` tells whether a text does: a caller that has checked many bets at once need not
/// check each text again.
#[inline]
pub(crate) fn encode_row_with(bet: &Bet<'_>, needs_quotes: impl Fn(&[u8]) -> bool, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(bet.agency.get()).as_bytes());
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
    out.extend_from_slice(itoa::Buffer::new().format(bet.number).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Whether the bytes hold one that has to stand within quotes.
pub(crate) fn needs_quotes(bytes: &[u8]) -> bool {
    // No early exit, so that the compiler uses vector instructions.
    bytes.iter().fold(false, |found, byte| found | matches!(byte, b',' | b'"' | b'\r' | b'\n'))
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

/// Parses the row that `bytes` begin with. UTF-8 is the caller's to check, who can do it for many rows at once.
///
/// # Errors
/// What is wrong with it; `Unfinished` where more bytes may complete it.
#[inline]
pub fn parse_row(bytes: &[u8]) -> Result<Row<'_>, RowError> {
    let (fields, len, quoted) = split_row(bytes)?;
    Row::of(fields, len, quoted)
}

/// Parses bytes that have to be whole rows and nothing else, and hands each on with its place: where it begins. UTF-8 is
/// the caller's to check.
///
/// # Errors
/// What is wrong with the first row that is not one; those before it have been handed on.
pub fn for_each_row<'a, E: From<RowError>>(
    rows: &'a [u8],
    mut take: impl FnMut(usize, Row<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut at = 0;
    if is_plain(rows) {
        let mut lines = PlainRows { rows, at, marks: memchr2_iter(b',', b'\n', rows) };
        while let Some(row) = lines.next_row()? {
            at += row.len;
            take(at - row.len, row)?;
        }
        return Ok(());
    }
    while let Some(rest) = rows.get(at..).filter(|rest| !rest.is_empty()) {
        let row = parse_row(rest)?;
        at += row.len;
        take(at - row.len, row)?;
    }
    Ok(())
}

/// Whether there are no quotes, and no CR that is not before an LF as far as their numbers tell; each LF is looked at
/// later. Looked for in all rows at once, which is far faster than in each.
fn is_plain(rows: &[u8]) -> bool {
    memchr(b'"', rows).is_none() && memchr_iter(b'\r', rows).count() == memchr_iter(b'\n', rows).count()
}

/// Rows without quotes, in which every comma and line feed means what it seems.
struct PlainRows<'a> {
    rows: &'a [u8],
    at: usize,
    marks: Memchr2<'a>,
}

impl<'a> PlainRows<'a> {
    fn next_row(&mut self) -> Result<Option<Row<'a>>, RowError> {
        let begin = self.at;
        if begin == self.rows.len() {
            return Ok(None);
        }
        let mut fields = [self.rows; FIELDS];
        for (index, field) in fields.iter_mut().enumerate() {
            let end = self.marks.next().ok_or(RowError::Unfinished)?;
            let last = index + 1 == FIELDS;
            if self.rows.get(end) != Some(if last { &b'\n' } else { &b',' }) {
                return Err(RowError::Malformed);
            }
            *field = self.rows.get(self.at..end).ok_or(RowError::Malformed)?;
            self.at = end + 1;
        }
        let [.., number] = &mut fields;
        *number = number.strip_suffix(b"\r").ok_or(RowError::Malformed)?;
        Row::of(fields, self.at - begin, false).map(Some)
    }
}

/// Whether one of the lines after the first would be a whole row, if it stood alone.
///
/// Of bytes that end within quotes it can't be told whether they are what a write left of one long row, or rows behind
/// one that was damaged, if they hold such a line.
#[must_use]
pub fn holds_whole_line(bytes: &[u8]) -> bool {
    memchr_iter(b'\n', bytes).any(|end| bytes.get(end + 1..).is_some_and(|line| parse_row(line).is_ok()))
}

type Fields<'a> = [&'a [u8]; FIELDS];

/// The fields of the first row, its length, and whether it has quotes.
fn split_row(bytes: &[u8]) -> Result<(Fields<'_>, usize, bool), RowError> {
    let end = memchr(b'\n', bytes);
    let line = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or(bytes);
    if memchr(b'"', line).is_some() {
        return split_quoted_row(bytes).map(|(fields, len)| (fields, len, true));
    }
    if end.is_none() {
        return Err(RowError::Unfinished);
    }
    let Some((b'\r', line)) = line.split_last() else { return Err(RowError::Malformed) };
    if memchr(b'\r', line).is_some() {
        return Err(RowError::Malformed);
    }
    let mut fields = [line; FIELDS];
    let mut start = 0;
    let mut commas = memchr_iter(b',', line);
    for (index, field) in fields.iter_mut().enumerate() {
        let stop = if index + 1 < FIELDS { commas.next().ok_or(RowError::Malformed)? } else { line.len() };
        *field = line.get(start..stop).ok_or(RowError::Malformed)?;
        start = stop + 1;
    }
    // The last field is a number: a seventh field would show there as a comma, but say what it is.
    if commas.next().is_some() { Err(RowError::Malformed) } else { Ok((fields, line.len() + 2, false)) }
}

/// As `split_row`, for a row with quotes, in which a field may hold line breaks.
fn split_quoted_row(bytes: &[u8]) -> Result<(Fields<'_>, usize), RowError> {
    let mut fields: Fields<'_> = [bytes; FIELDS];
    let mut start = 0;
    for (index, field) in fields.iter_mut().enumerate() {
        let rest = bytes.get(start..).ok_or(RowError::Unfinished)?;
        let len = field_len(rest)?;
        *field = rest.get(..len).ok_or(RowError::Unfinished)?;
        let expected: &[u8] = if index + 1 < FIELDS { b"," } else { b"\r\n" };
        let after = rest.get(len..).unwrap_or_default();
        if !after.starts_with(expected) {
            return Err(if expected.starts_with(after) { RowError::Unfinished } else { RowError::Malformed });
        }
        start += len + expected.len();
    }
    Ok((fields, start))
}

/// The length of the field, quotes included, that `bytes` begin with.
fn field_len(bytes: &[u8]) -> Result<usize, RowError> {
    if bytes.first() != Some(&b'"') {
        let end = bytes.iter().position(|byte| matches!(byte, b',' | b'\r' | b'\n' | b'"'));
        return end.ok_or(RowError::Unfinished);
    }
    let mut at = 1;
    loop {
        let quote = bytes.get(at..).and_then(|rest| memchr(b'"', rest)).ok_or(RowError::UnfinishedQuotes)?;
        at += quote + 1;
        match bytes.get(at) {
            Some(b'"') => at += 1,
            Some(_) => return Ok(at),
            None => return Err(RowError::Unfinished),
        }
    }
}

/// A decimal number as the file has it: no leading zeros, so that one bet has one form.
fn canonical_decimal(digits: &[u8]) -> Option<u32> {
    if digits.len() > 1 && digits.first() == Some(&b'0') { None } else { parse_decimal(digits) }
}

fn unquote(field: &[u8]) -> Cow<'_, [u8]> {
    let Some(inner) = field.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return Cow::Borrowed(field);
    };
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        text.push(byte);
        if byte == b'"' {
            bytes.next();
        }
    }
    Cow::Owned(text)
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

    fn plain() -> Vec<u8> {
        row_of(["1", "Santiago Lionel", "Lorca", "30904465", "1999-03-17", "2201"])
    }

    #[test]
    fn a_row_is_what_pythons_writer_writes() {
        assert_eq!(plain(), b"1,Santiago Lionel,Lorca,30904465,1999-03-17,2201\r\n");
        let row = row_of(["05", "O\"Neil, Jr", "a\rb", "x\ny", "1999-03-17", "007"]);
        assert_eq!(row, b"5,\"O\"\"Neil, Jr\",\"a\rb\",\"x\ny\",1999-03-17,7\r\n");
        assert_eq!(row_of(["1", "", " x ", "\u{1e}", "1999-03-17", "0"]), b"1,, x ,\x1e,1999-03-17,0\r\n");
    }

    #[test]
    fn a_prefix_of_a_row_is_unfinished_never_malformed() {
        for row in [plain(), row_of(["5", "O\"Neil, Jr", "a\r\nb", "\"", "1999-03-17", "7"])] {
            for cut in 0..row.len() {
                let got = parse_row(&row[..cut]);
                assert!(
                    matches!(got, Err(RowError::Unfinished | RowError::UnfinishedQuotes)),
                    "{cut}: {got:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_not_a_row_is_refused() {
        for (bytes, error) in [
            (&b"1,a,b,c,1999-03-17\r\n"[..], RowError::Malformed),
            (b"1,a,b,c,1999-03-17,7,8\r\n", RowError::Malformed),
            (b"1,a,b,c,1999-03-17,7\n", RowError::Malformed),
            (b"\r\n", RowError::Malformed),
            (b"\n", RowError::Malformed),
            (b"1,a\"b,b,c,1999-03-17,7\r\n", RowError::Malformed),
            (b"1,\"a\"b,b,c,1999-03-17,7\r\n", RowError::Malformed),
            (b"1,a\rb,b,c,1999-03-17,7\r\n", RowError::Malformed),
            (b"0,a,b,c,1999-03-17,7\r\n", RowError::Agency),
            (b"01,a,b,c,1999-03-17,7\r\n", RowError::Agency),
            (b"65536,a,b,c,1999-03-17,7\r\n", RowError::Agency),
            (b"1,a,b,c,1999-02-29,7\r\n", RowError::Birthdate),
            (b"1,a,b,c,1999-03-17,07\r\n", RowError::Number),
            (b"1,a,b,c,1999-03-17,\r\n", RowError::Number),
            (b"1,a,b,c,1999-03-17,4294967296\r\n", RowError::Number),
        ] {
            assert_eq!(parse_row(bytes).unwrap_err(), error, "{}", String::from_utf8_lossy(bytes));
        }
    }

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[a,\"\r\n\\x1e]{0,6}"]
    }

    proptest! {
        #[test]
        fn a_row_that_was_encoded_is_parsed_back_and_is_what_the_csv_crate_writes(
            agency in 1_u16.., first in any_text(), last in any_text(), document in any_text(), number: u32,
            rest: Vec<u8>,
        ) {
            let (agency, number) = (agency.to_string(), number.to_string());
            let fields = [&*agency, &*first, &*last, &*document, "1999-03-17", &*number];
            let row = row_of(fields);
            let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(vec![]);
            writer.write_record(fields).unwrap();
            prop_assert_eq!(&row, &writer.into_inner().unwrap());

            let len = row.len();
            let bytes = [row, rest].concat();
            let parsed = parse_row(&bytes).unwrap();
            prop_assert_eq!(parsed.len, len);
            prop_assert_eq!(parsed.agency.to_string(), agency);
            prop_assert_eq!(parsed.number.to_string(), number);
            prop_assert_eq!(parsed.document.as_ref(), document.as_bytes());
        }

        #[test]
        fn many_rows_are_what_each_of_them_is(
            rows in proptest::collection::vec("1,[ab]{0,3},[\"\r]?,9?,1999-03-17,[0-9]{1,2}\r\n", 0..4),
            damage in proptest::option::of((any::<proptest::sample::Index>(), "[,\"\r\n0-9-]")),
        ) {
            let mut bytes = rows.concat().into_bytes();
            if let Some((place, byte)) = damage.filter(|_| !bytes.is_empty()) {
                let place = place.index(bytes.len());
                bytes[place] = byte.as_bytes()[0];
            }
            let mut one_by_one = Vec::new();
            let mut at = 0;
            let good = loop {
                if at == bytes.len() {
                    break true;
                }
                let Ok(row) = parse_row(&bytes[at..]) else { break false };
                at += row.len;
                one_by_one.push((at - row.len, row.clone()));
            };
            let mut together = Vec::new();
            let all: Result<(), RowError> = for_each_row(&bytes, |at, row| {
                together.push((at, row));
                Ok(())
            });
            prop_assert_eq!(all.is_ok(), good);
            if good {
                prop_assert_eq!(together, one_by_one);
            }
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            if let Ok(row) = parse_row(&bytes) {
                prop_assert!(row.len <= bytes.len());
            }
        }
    }
}

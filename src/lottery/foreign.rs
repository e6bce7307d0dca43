//! Recognises what a spreadsheet, an editor or a failing disk has made of a file of bets: the cause, and its remedy.
//!
//! Only lines that were refused are looked at: nothing here decides what is accepted.

use std::path::Path;

use thiserror::Error;

use super::bet::FIELDS;
use super::row::parse_row;

/// Names a possible cause for people, where a file has as many bets as it should but other ones.
pub(crate) fn other_bets_hint(as_many: bool) -> &'static str {
    if as_many {
        "; a spreadsheet, for instance, drops leading zeros (007 becomes 7) and may sort rows"
    } else {
        ""
    }
}

/// Which file a line is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BetsOf {
    /// `bets.csv`: each bet has one form only.
    Server,
    /// An agency's file: any CSV, without the agency's column.
    Agency,
}

/// What is foreign in a line, or in the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Foreign {
    #[error("the file is a spreadsheet or compressed, not CSV")]
    Binary,
    #[error("the file is UTF-16, not UTF-8")]
    Utf16,
    #[error("the line has zero bytes, as after a disk error or a copy that failed")]
    ZeroBytes,
    #[error("the line is not UTF-8 text, but perhaps Latin-1 or Windows-1252")]
    Encoding,
    #[error("a byte order mark precedes the line")]
    ByteOrderMark,
    #[error("a quote that opens in this line is not closed in it")]
    OpenQuote,
    #[error("the line ends with CR alone, not with CRLF")]
    CrAlone,
    #[error("the line does not end with CRLF")]
    LineEnd,
    #[error("the line is empty")]
    Empty,
    #[error("the line is a header")]
    Header,
    #[error("the fields are separated by semicolons, not by commas")]
    Semicolons,
    #[error("the fields are separated by tabs, not by commas")]
    Tabs,
    #[error("there are spaces around a field")]
    Spaces,
    #[error("the line ends with a comma")]
    TrailingComma,
    #[error("the number is formatted, as in 7,574 or 7.574E3")]
    Number,
    #[error("the birthdate is not written YYYY-MM-DD")]
    Date,
    #[error("fields are in quotes without a comma or a quote in them")]
    Quotes,
}

impl Foreign {
    /// Recognises what is foreign in a line that was refused. It may lack its end.
    pub(crate) fn of(line: &[u8], file: BetsOf) -> Option<Self> {
        Self::of_bytes(line).or_else(|| Self::of_text(str::from_utf8(line).ok()?, file))
    }

    /// Recognises what is foreign in the bytes behind the last row of `bets.csv`. The beginning of a row is not foreign: a
    /// server may have been killed while it wrote the row.
    pub(crate) fn of_tail(tail: &[u8]) -> Option<Self> {
        Self::of(tail, BetsOf::Server).filter(|foreign| match foreign {
            Self::Binary | Self::ByteOrderMark => true,
            Self::Utf16 => tail.first().is_some_and(|byte| *byte >= 0xfe),
            Self::CrAlone => tail.iter().position(|byte| *byte == b'\r') < tail.len().checked_sub(1),
            _ => false,
        })
    }

    /// Returns whether no line of the file can be read.
    pub(crate) fn is_of_whole_file(self) -> bool {
        matches!(self, Self::Binary | Self::Utf16)
    }

    /// Returns whether its bets are still there, in another form.
    pub(crate) fn is_reversible(self) -> bool {
        !matches!(self, Self::ZeroBytes | Self::OpenQuote)
    }

    /// Tells people how to make the file right again.
    pub(crate) fn remedy(self, path: &Path, line: u64) -> String {
        let file = shell_word(path);
        match self {
            Self::Binary => "export it as CSV in UTF-8".to_owned(),
            Self::Utf16 => convert("UTF-16", &file),
            Self::ZeroBytes => "replace the line by that of a good copy".to_owned(),
            Self::Encoding => format!("if the whole file is, {}", convert("WINDOWS-1252", &file)),
            Self::ByteOrderMark => format!("remove it (sed -i 's/^\\xef\\xbb\\xbf//' {file})"),
            Self::OpenQuote => "close it; no text may hold a line break".to_owned(),
            Self::CrAlone => "save the file with CRLF".to_owned(),
            Self::LineEnd => format!("write CRLF (sed -i -e 's/\\r*$/\\r/' -e '$a\\' {file})"),
            Self::Empty => format!("remove it (sed -i '/^[ ,;\\t\\r]*$/d' {file})"),
            Self::Header => format!("remove it (sed -i '{line}{{/[0-9]\"*\\r*$/!d;}}' {file})"),
            Self::Semicolons | Self::Tabs => {
                "save the file with commas, in UTF-8, with dates as YYYY-MM-DD".to_owned()
            }
            Self::Spaces => "remove them".to_owned(),
            Self::TrailingComma => format!("remove it (sed -i 's/,*\\(\\r*\\)$/\\1/' {file})"),
            Self::Number => "write digits alone".to_owned(),
            Self::Date => "write it so, for instance 1984-11-14".to_owned(),
            Self::Quotes => "save the file without them".to_owned(),
        }
    }

    fn of_bytes(line: &[u8]) -> Option<Self> {
        // ZIP, which xlsx and ods are; gzip; xls.
        const MAGIC: [&[u8]; 3] = [b"PK\x03\x04", b"\x1f\x8b", b"\xd0\xcf\x11\xe0"];
        // In UTF-16 about every second byte is zero.
        let zeros = line.split(|byte| *byte == 0).count() - 1;
        let is_every_second = 3 * zeros > line.len() && !line.windows(2).any(|pair| pair == [0, 0]);
        if MAGIC.iter().any(|magic| line.starts_with(magic)) {
            Some(Self::Binary)
        } else if is_every_second || line.starts_with(b"\xff\xfe") || line.starts_with(b"\xfe\xff") {
            Some(Self::Utf16)
        } else if zeros > 0 {
            Some(Self::ZeroBytes)
        } else {
            // A long line may have been cut within a character.
            let is_wrong = str::from_utf8(line).is_err_and(|error| error.error_len().is_some());
            is_wrong.then_some(Self::Encoding)
        }
    }

    fn of_text(text: &str, file: BetsOf) -> Option<Self> {
        let (is_strict, columns) = match file {
            BetsOf::Server => (true, FIELDS),
            BetsOf::Agency => (false, FIELDS - 1),
        };
        let marked = text.strip_prefix('\u{feff}');
        if is_strict && marked.is_some() {
            return Some(Self::ByteOrderMark);
        }
        let text = marked.unwrap_or(text).trim_end_matches(['\r', '\n']);
        let Some(fields) = split(text, ',') else { return Some(Self::OpenQuote) };
        let has_columns = |mark| split(text, mark).is_some_and(|fields| fields.len() >= columns);
        match text.split_once('\r') {
            Some((first, _)) if is_strict && is_row(first) => Some(Self::CrAlone),
            _ if is_strict && is_row(text) => Some(Self::LineEnd),
            _ if text.trim_matches([' ', ',', ';', '\t']).is_empty() => Some(Self::Empty),
            _ if text.starts_with("sep=") => Some(Self::Header),
            _ if fields.len() < columns && has_columns(';') => Some(Self::Semicolons),
            _ if fields.len() < columns && has_columns('\t') => Some(Self::Tabs),
            _ => Self::of_fields(&fields, columns, is_strict),
        }
    }

    fn of_fields(fields: &[&str], columns: usize, is_strict: bool) -> Option<Self> {
        let (row, more) = fields.split_at_checked(columns)?;
        let &[first, .., date, number] = row else { return None };
        let [first, date, number] = [first, date, number].map(|field| field.trim_matches('"'));
        let is_padded = |field: &str| field.trim() != field;
        let is_group = |field: &&str| field.len() == 3 && is_digits(field);
        if fields.iter().any(|field| field.starts_with(" \"")) {
            return Some(Self::Spaces);
        }
        match more {
            [] => {}
            more if more.iter().all(|field| field.is_empty()) => return Some(Self::TrailingComma),
            more if is_digits(number) && more.iter().all(is_group) => return Some(Self::Number),
            _ => return None,
        }
        if is_word(date) && is_word(number) {
            Some(Self::Header)
        } else if is_padded(date) || is_padded(number) || (is_strict && is_padded(first)) {
            Some(Self::Spaces)
        } else if is_formatted(number) {
            Some(Self::Number)
        } else if has_digit(date) && !is_dashed(date) {
            Some(Self::Date)
        } else {
            (is_strict && row.iter().any(|field| is_quoted_in_vain(field))).then_some(Self::Quotes)
        }
    }
}

/// Splits a line as a tolerant CSV reader does, except that quotes stay. Returns `None` if a quote is not closed.
fn split(line: &str, separator: char) -> Option<Vec<&str>> {
    let (mut begins, mut is_quoted, mut is_open) = (true, false, false);
    let ends_field = |c| {
        is_quoted = if begins { c == '"' } else { is_quoted };
        is_open ^= is_quoted && c == '"';
        begins = c == separator && !is_open;
        begins
    };
    let fields = line.split(ends_field).collect();
    (!is_open).then_some(fields)
}

fn is_row(line: &str) -> bool {
    parse_row(format!("{line}\r\n").as_bytes()).is_ok()
}

fn has_digit(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_word(text: &str) -> bool {
    !has_digit(text) && text.contains(char::is_alphabetic)
}

/// Returns whether a number has signs, groups, decimals or an exponent.
fn is_formatted(number: &str) -> bool {
    let is_sign = |c: char| matches!(c, '.' | ',' | '\'' | '+' | '-' | 'e' | 'E') || c.is_whitespace();
    has_digit(number) && !is_digits(number) && number.chars().all(|c| c.is_ascii_digit() || is_sign(c))
}

/// Returns whether a date has the dashes of `YYYY-MM-DD` in their places.
fn is_dashed(date: &str) -> bool {
    matches!(date.as_bytes(), [_, _, _, _, b'-', _, _, b'-', _, _])
}

fn is_quoted_in_vain(field: &str) -> bool {
    let inner = field.strip_prefix('"').and_then(|field| field.strip_suffix('"'));
    inner.is_some_and(|inner| !inner.contains([',', '"']))
}

fn convert(encoding: &str, file: &str) -> String {
    format!("convert it (iconv -f {encoding} -t UTF-8 {file} > {file}.utf8) and put the result in its place")
}

/// Writes a path as one word of a command.
pub(crate) fn shell_word(path: &Path) -> String {
    let path = path.to_string_lossy();
    let is_plain = |c: char| {
        c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | ',' | ':' | '=' | '@' | '%')
    };
    if !path.is_empty() && path.chars().all(is_plain) {
        path.into_owned()
    } else {
        format!("'{}'", path.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server may have begun to write when it was killed is no foreign file.
    #[test]
    fn no_beginning_of_a_row_is_foreign() {
        let row = "1,a;b;c;d;e;f,\"Paz, hija\",é,1999-03-17,7574\r\n".as_bytes();
        for length in 1..row.len() {
            for zeros in 0..3 {
                let tail = [&row[..length], &[0; 3][..zeros]].concat();
                assert_eq!(Foreign::of_tail(&tail), None, "{length} bytes and {zeros} zeros");
            }
        }
    }

    #[test]
    fn a_path_is_one_word_of_a_command() {
        for (path, word) in
            [("./bets.csv", "./bets.csv"), ("my bets", "'my bets'"), ("a'b", r"'a'\''b'"), ("", "''")]
        {
            assert_eq!(shell_word(Path::new(path)), word);
        }
    }
}

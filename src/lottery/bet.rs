//! A bet: six fields, validated.

use chrono::NaiveDate;
use thiserror::Error;

use super::agency_id::AgencyId;

/// How many fields a bet has, in a record of the wire and in a row of the file.
pub(crate) const FIELDS: usize = 6;
/// The longest text field, in bytes.
pub(crate) const MAX_TEXT: usize = 255;

/// A bet whose fields are valid. Its texts are borrowed, from a message or a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bet<'a> {
    pub agency: AgencyId,
    /// This text and the next two are as [`check_text`] wants them.
    pub first_name: &'a str,
    pub last_name: &'a str,
    pub document: &'a str,
    /// A real date, exactly `YYYY-MM-DD`.
    pub birthdate: &'a str,
    pub number: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BetError {
    #[error("a bet has 6 fields: agency, first name, last name, document, birthdate and number")]
    FieldCount,
    #[error("the agency must be a decimal number from 1 to 65535")]
    Agency,
    #[error("the {field} {error}")]
    Text { field: &'static str, error: TextError },
    #[error("the birthdate must be a real date, written YYYY-MM-DD")]
    Birthdate,
    #[error("the number must be a decimal number from 0 to 4294967295")]
    Number,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TextError {
    /// A limit on texts bounds the length of a row.
    #[error("must be at most {MAX_TEXT} bytes long")]
    TooLong,
    /// Without line breaks in its texts, a row is one line.
    #[error("must not hold a control character (U+0000 to U+001F, U+007F), such as a tab or a line break")]
    ControlCharacter,
}

impl<'a> Bet<'a> {
    /// Validates the six fields, in the order of a record. An error is about the first that is wrong.
    pub fn from_fields(fields: [&'a str; FIELDS]) -> Result<Self, BetError> {
        let [agency, first_name, last_name, document, birthdate, number] = fields;
        let agency = parse_decimal(agency.as_bytes()).and_then(AgencyId::new).ok_or(BetError::Agency)?;
        for (field, text) in [("first name", first_name), ("last name", last_name), ("document", document)] {
            check_text(text).map_err(|error| BetError::Text { field, error })?;
        }
        if !is_real_date(birthdate.as_bytes()) {
            return Err(BetError::Birthdate);
        }
        let number = parse_decimal(number.as_bytes()).ok_or(BetError::Number)?;
        Ok(Self { agency, first_name, last_name, document, birthdate, number })
    }
}

/// Checks a first name, last name or document. Handlers, storage, recovery and the agency all call it.
pub(crate) fn check_text(text: &str) -> Result<(), TextError> {
    if text.len() > MAX_TEXT {
        return Err(TextError::TooLong);
    }
    // No early exit, so that the compiler uses vector instructions.
    if text.bytes().fold(false, |found, byte| found | byte.is_ascii_control()) {
        return Err(TextError::ControlCharacter);
    }
    Ok(())
}

/// Parses a number of ASCII digits only: no sign, no space, but leading zeros are allowed.
pub(crate) fn parse_decimal(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u32, |value, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value.checked_mul(10)?.checked_add(u32::from(digit))
    })
}

/// Returns whether the text is exactly `YYYY-MM-DD` and such a day exists, in the years 1 to 9999 (those of Python's
/// `datetime.date`, which reads the file).
pub(crate) fn is_real_date(text: &[u8]) -> bool {
    let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return false };
    let (Some(year), Some(month), Some(day)) =
        (parse_decimal(&[y1, y2, y3, y4]), parse_decimal(&[m1, m2]), parse_decimal(&[d1, d2]))
    else {
        return false;
    };
    // Every month has 28 days; only a later day needs the calendar.
    let is_in_any_year = (1..=12).contains(&month) && (1..=28).contains(&day);
    year > 0 && (is_in_any_year || NaiveDate::from_ymd_opt(year.cast_signed(), month, day).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_birthdate_is_a_real_day() {
        for good in ["2000-02-29", "0001-01-01", "9999-12-31", "2024-02-29"] {
            assert!(is_real_date(good.as_bytes()), "{good}");
        }
        let no_days = "1900-02-29 2023-02-29 2000-13-01 2000-00-10 2000-01-00 2000-04-31 0000-01-01";
        let not_written_so = "2000-1-1 20000101 2000-01-01\t \t2000-01-01 2000/01/01 2000-01-0a";
        for bad in no_days.split(' ').chain(not_written_so.split(' ')).chain([""]) {
            assert!(!is_real_date(bad.as_bytes()), "{bad:?}");
        }
    }
}

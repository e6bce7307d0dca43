//! A list of agencies, as people write it: `2,5-7`, or `all`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::agency_id::{AgencyId, MAX_AGENCIES};
use super::bet::parse_decimal;

/// The agencies of a list, in ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgencyList(Vec<RangeInclusive<u16>>);

/// A text that is no list of agencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoList;

impl AgencyList {
    /// Whether the agency is in the list.
    #[must_use]
    pub fn contains(&self, agency: AgencyId) -> bool {
        self.0.iter().any(|range| range.contains(&agency.get()))
    }

    /// Whether no agency is in the list.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for AgencyList {
    type Err = NoList;

    fn from_str(text: &str) -> Result<Self, NoList> {
        let number =
            |text: &str| parse_decimal(text.trim().as_bytes()).and_then(AgencyId::new).map(AgencyId::get);
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(first..=last)
        };
        match text.trim() {
            "" => Ok(Self::default()),
            "all" => Ok(Self(vec![1..=MAX_AGENCIES])),
            list => list.split(',').map(range).collect::<Option<_>>().map(Self).ok_or(NoList),
        }
    }
}

impl fmt::Display for AgencyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for range in &self.0 {
            f.write_str(separator)?;
            match (*range.start(), *range.end()) {
                (1, MAX_AGENCIES) => f.write_str("all")?,
                (first, last) if first == last => write!(f, "{first}")?,
                (first, last) => write!(f, "{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_numbers_and_ranges() {
        let list: AgencyList = " 2, 5-7 ".parse().unwrap();
        let has = |number: u16| list.contains(AgencyId::new(number).unwrap());
        assert_eq!([1, 2, 3, 4, 5, 6, 7, 8].map(has), [false, true, false, false, true, true, true, false]);
        assert_eq!(list.to_string(), "2,5-7");
        assert!("all".parse::<AgencyList>().unwrap().contains(AgencyId::new(65_535).unwrap()));
        assert!("".parse::<AgencyList>().unwrap().is_empty());
        for text in ["x", "0", "1,", "7-5", "1-", "-1", "65536", "1;2", "1-2-3", "all,1"] {
            assert_eq!(text.parse::<AgencyList>(), Err(NoList), "{text}");
        }
    }
}

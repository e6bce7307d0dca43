//! A list of agencies, as people write it: `2,5-7`, or `all`.

use std::fmt;
use std::ops::RangeInclusive;

use super::agency_id::{AgencyId, MAX_AGENCIES};
use super::bet::parse_decimal;

/// The agencies of a list, in ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgencyList(Vec<RangeInclusive<u16>>);

impl AgencyList {
    /// Parses a list. Returns `None` if the text is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number =
            |text: &str| parse_decimal(text.trim().as_bytes()).and_then(AgencyId::new).map(AgencyId::get);
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(first..=last)
        };
        match text.trim() {
            "" => Some(Self::default()),
            "all" => Some(Self(vec![1..=MAX_AGENCIES])),
            list => list.split(',').map(range).collect::<Option<_>>().map(Self),
        }
    }

    pub(crate) fn contains(&self, agency: AgencyId) -> bool {
        self.0.iter().any(|range| range.contains(&agency.get()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for AgencyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |range: &RangeInclusive<u16>| match (*range.start(), *range.end()) {
            (1, MAX_AGENCIES) => "all".to_owned(),
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        f.write_str(&self.0.iter().map(text).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_numbers_and_ranges() {
        let list = AgencyList::parse(" 2, 5-7 ").unwrap();
        let has = |number: u16| list.contains(AgencyId::new(number).unwrap());
        assert_eq!([1, 2, 3, 4, 5, 6, 7, 8].map(has), [false, true, false, false, true, true, true, false]);
        assert_eq!(list.to_string(), "2,5-7");
        assert!(AgencyList::parse("all").unwrap().contains(AgencyId::new(65_535).unwrap()));
        assert!(AgencyList::parse("").unwrap().is_empty());
        for text in ["x", "0", "1,", "7-5", "1-", "-1", "65536", "1;2", "1-2-3", "all,1"] {
            assert_eq!(AgencyList::parse(text), None, "{text}");
        }
    }
}

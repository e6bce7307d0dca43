//! The number of an agency.

use std::fmt;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

/// The highest number an agency can have, and so the largest `CLIENTS_AMOUNT`.
pub(crate) const MAX_AGENCIES: u16 = u16::MAX;

/// An agency's number: 1 to 65,535. It need not take part in the contest: those that do are 1 to `CLIENTS_AMOUNT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AgencyId(NonZeroU16);

impl AgencyId {
    /// Returns `None` for 0 and for numbers above 65,535.
    pub fn new(number: impl TryInto<u16>) -> Option<Self> {
        number.try_into().ok().and_then(NonZeroU16::new).map(Self)
    }

    #[must_use]
    pub fn get(self) -> u16 {
        self.0.get()
    }

    /// Returns the agency's place in an array of all agencies, from 0.
    pub(crate) fn index(self) -> usize {
        usize::from(self.get()) - 1
    }
}

impl fmt::Display for AgencyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many agencies [`list`] names.
const NAMED: usize = 5;

/// Lists agencies for people: `1, 2, 3, 4, 5 and 7 more`. Returns `None` if there are none.
pub(crate) fn list(mut agencies: impl Iterator<Item = AgencyId>) -> Option<String> {
    let named: Vec<String> = agencies.by_ref().take(NAMED).map(|agency| agency.to_string()).collect();
    let named = (!named.is_empty()).then(|| named.join(", "))?;
    match agencies.count() {
        0 => Some(named),
        more => Some(format!("{named} and {more} more")),
    }
}

//! What confines a handler, as a value: what STATUS and the log tell of it. How it is applied, [`crate::system::confinement`]
//! knows.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How much of a layer is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Extent {
    /// Nothing: this kernel or container lacks it.
    None,
    /// What this kernel has of it.
    Partial,
    /// All of it.
    Full,
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Partial => "partial",
            Self::Full => "full",
        })
    }
}

/// What confines a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// The handler is no root, and has a user number that no other process has: full. It is no root: partial.
    pub identity: Extent,
    /// It can make no descriptor and no process.
    pub limits: Extent,
    /// It can reach no file, no network and no other process.
    pub landlock: Extent,
    /// In a session, it has only the system calls that it needs.
    pub seccomp: Extent,
}

impl InForce {
    /// Where no layer can be had.
    pub const NOTHING: Self =
        Self { identity: Extent::None, limits: Extent::None, landlock: Extent::None, seccomp: Extent::None };

    /// As an exit status, by which a child tells it: a digit of base 3 for each layer.
    #[must_use]
    pub fn to_status(self) -> i32 {
        let digits = [self.identity, self.limits, self.landlock, self.seccomp];
        digits.into_iter().fold(0, |status, extent| status * 3 + extent as i32)
    }

    /// What [`Self::to_status`] made that of.
    #[must_use]
    pub fn from_status(status: i32) -> Self {
        let digit = |place: u32| match status / 3_i32.pow(place) % 3 {
            2 => Extent::Full,
            1 => Extent::Partial,
            _ => Extent::None,
        };
        Self { identity: digit(3), limits: digit(2), landlock: digit(1), seccomp: digit(0) }
    }
}

impl fmt::Display for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity, limits, landlock, seccomp } = self;
        write!(f, "identity {identity}, limits {limits}, landlock {landlock}, seccomp {seccomp}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tried_is_told_by_the_exit_status() {
        let extents = [Extent::None, Extent::Partial, Extent::Full];
        for identity in extents {
            for landlock in extents {
                let tried = InForce { identity, limits: Extent::Full, landlock, seccomp: Extent::Full };
                assert_eq!(InForce::from_status(tried.to_status()), tried);
                assert!((0..81).contains(&tried.to_status()));
            }
        }
    }
}

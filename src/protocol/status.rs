//! The JSON object that a STATUS message carries.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Serialize};

use crate::lottery::{AgencyId, Draw, Seal};
use crate::system::confinement::ConfinementReport;

/// The state of a contest and of the server that runs it. `docs/protocol.md` has the meaning of each key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub agencies: u16,
    pub ended: u16,
    pub bets: u64,
    pub drawn: bool,
    pub draw: Option<Draw>,
    /// Connections that are being served, including the one that asks.
    pub handlers: u32,
    pub max_clients: u32,
    pub uptime_seconds: f64,
    pub storage_restarts: u64,
    pub confinement: ConfinementReport,
    // Older servers do not send these.
    #[serde(default)]
    pub connections: u64,
    #[serde(default)]
    pub status_requests: u64,
    #[serde(default)]
    pub batches: u64,
    #[serde(default)]
    pub refusals: Vec<Refusals>,
    /// The bets of each group that was synced since storage started.
    #[serde(default)]
    pub group_bets: Summary,
    /// The duration of each of those syncs, in seconds.
    #[serde(default)]
    pub sync_seconds: Summary,
    pub per_agency: Vec<AgencyStatus>,
    /// The end of the server's certificate, in seconds since 1970. None without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_until: Option<i64>,
}

impl Status {
    /// Returns the seal of the draw, once it has been made.
    pub(crate) fn seal(&self) -> Option<Seal> {
        self.draw.as_ref()?.seal
    }

    /// Returns how many connections are being served, without the one that asked for this.
    pub(crate) fn clients(&self) -> u32 {
        self.handlers.saturating_sub(1)
    }
}

/// Writes a time in seconds since 1970 as text, such as `2027-01-15T08:00:00Z`.
pub(crate) fn utc_text(seconds: i64) -> String {
    DateTime::from_timestamp(seconds, 0)
        .map_or("never".to_owned(), |time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// How often one kind of process refused requests for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// `acceptor`, `handler` or `storage`.
    pub by: Cow<'static, str>,
    pub reason: Cow<'static, str>,
    /// Since the server started; for `storage`, since that process started.
    pub count: u64,
}

/// The state of one agency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgencyStatus {
    pub agency: AgencyId,
    pub bets: u64,
    pub ended: bool,
}

/// Count and sum of the values that were observed. The difference of two gives the mean of the values between them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub count: u64,
    pub sum: f64,
}

impl Summary {
    /// Adds one value.
    pub(crate) fn observe(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
    }

    /// Returns the mean, unless there were no values.
    #[expect(clippy::cast_precision_loss, reason = "a mean needs no more precision")]
    pub(crate) fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// Returns what was observed after `earlier`: everything if storage has started to count anew.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        match self.count.checked_sub(earlier.count) {
            Some(count) => Self { count, sum: self.sum - earlier.sum },
            None => *self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_what_came_between_unless_counting_began_anew() {
        let (mut before, mut after) = (Summary::default(), Summary::default());
        assert_eq!(before.mean(), None);
        before.observe(1.0);
        for value in [1.0, 5.0, 7.0] {
            after.observe(value);
        }
        assert_eq!(after.since(&before), Summary { count: 2, sum: 12.0 });
        assert_eq!(after.since(&before).mean(), Some(6.0));
        assert_eq!(before.since(&after), before);
    }
}

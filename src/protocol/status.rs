//! The JSON object that a STATUS message carries.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Serialize};

use crate::lottery::{AgencyId, Draw, Seal};
use crate::system::confinement::ConfinementReport;

/// The state of a contest and of the server that runs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The number of agencies that take part.
    pub agencies: u16,
    /// How many of them have sent END.
    pub ended: u16,
    /// The number of bets on disk.
    pub bets: u64,
    /// Whether the draw has been made.
    pub drawn: bool,
    /// The draw, once it has been made.
    pub draw: Option<Draw>,
    /// Connections that are being served, including the one that asks.
    pub handlers: u32,
    /// The limit of `handlers`.
    pub max_clients: u32,
    /// The time since the server started, in seconds.
    pub uptime_seconds: f64,
    /// How often storage died and was started again.
    pub storage_restarts: u64,
    /// What confines the handlers.
    pub confinement: ConfinementReport,
    /// Connections accepted since the server started.
    #[serde(default)]
    pub connections: u64,
    /// How many of them were requests for the status.
    #[serde(default)]
    pub status_requests: u64,
    /// Messages of bets that were acknowledged since storage started.
    #[serde(default)]
    pub batches: u64,
    /// Requests that were refused, by process and reason.
    #[serde(default)]
    pub refusals: Vec<Refusals>,
    /// The bets of each group that was synced since storage started.
    #[serde(default)]
    pub group_bets: Summary,
    /// The duration of each of those syncs, in seconds.
    #[serde(default)]
    pub sync_seconds: Summary,
    /// All agencies, in the order of their numbers.
    pub per_agency: Vec<AgencyStatus>,
    /// The end of the server's certificate, in seconds since 1970. None without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_until: Option<i64>,
}

impl Status {
    /// The seal of the draw, once it has been made.
    pub(crate) fn seal(&self) -> Option<Seal> {
        self.draw.as_ref()?.seal
    }

    /// Connections that are being served, without the one that asked for this.
    pub(crate) fn clients(&self) -> u32 {
        self.handlers.saturating_sub(1)
    }
}

/// A time in seconds since 1970 as text, such as `2027-01-15T08:00:00Z`.
pub(crate) fn utc_text(seconds: i64) -> String {
    DateTime::from_timestamp(seconds, 0)
        .map_or("never".to_owned(), |time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// How often one kind of process refused a request for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// The process: `acceptor`, `handler` or `storage`.
    pub by: Cow<'static, str>,
    /// The reason, one word.
    pub reason: Cow<'static, str>,
    /// The count since the server started; for `storage` since that process started.
    pub count: u64,
}

/// The state of one agency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgencyStatus {
    /// The agency's number.
    pub agency: AgencyId,
    /// The number of its bets on disk.
    pub bets: u64,
    /// Whether it has sent END.
    pub ended: bool,
}

/// Count and sum of the values that were observed. Two of them give the mean of the values between.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many values there were.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
}

impl Summary {
    /// Add one value.
    pub(crate) fn observe(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
    }

    /// The mean, unless there were no values.
    #[expect(clippy::cast_precision_loss, reason = "a mean needs no more precision")]
    pub(crate) fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// The values observed after `earlier`: all of them if storage has started to count anew.
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
    fn the_json_is_the_documented_one_and_unknown_or_missing_keys_do_no_harm() {
        let text = r#"{"agencies":1,"ended":0,"bets":7,"drawn":false,"draw":null,"handlers":2,"max_clients":9,"uptime_seconds":1.5,"storage_restarts":0,"confinement":{"identity":"full","limits":"full","landlock":"partial","seccomp":"none"},"connections":3,"status_requests":1,"batches":2,"refusals":[{"by":"handler","reason":"bets","count":1}],"group_bets":{"count":1,"sum":7.0},"sync_seconds":{"count":1,"sum":0.0005},"per_agency":[{"agency":1,"bets":7,"ended":false}],"certificate_until":1800000000}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&status).unwrap(), text);
        let older = text.split_once(r#""connections""#).unwrap().0.to_owned() + r#""per_agency":[]}"#;
        assert_eq!(serde_json::from_str::<Status>(&older).unwrap().group_bets, Summary::default());
        let more = text.replacen('{', r#"{"news":[1],"#, 1);
        assert_eq!(serde_json::from_str::<Status>(&more).unwrap(), status);
    }

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

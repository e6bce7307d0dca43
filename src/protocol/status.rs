//! What a `STATUS` says: one JSON object, of which this is the form.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::histogram::Histogram;
use crate::lottery::{AgencyId, Draw};
use crate::system::confinement::ConfinementReport;

/// The state of a contest and of the server that runs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// How many agencies take part: 1 to this.
    pub agencies: u16,
    /// How many of them have sent END.
    pub ended: u16,
    /// How many bets are on disk.
    pub bets: u64,
    /// Whether the draw has been made.
    pub drawn: bool,
    /// The draw, once it has been made.
    pub draw: Option<Draw>,
    /// Connections that are being served, the one that asks included.
    pub handlers: u32,
    /// How many can be served at once.
    pub max_clients: u32,
    /// How long the server has been running, in seconds.
    pub uptime_seconds: f64,
    /// How often the storage service had to be started again.
    pub storage_restarts: u64,
    /// What confines the handlers.
    pub confinement: ConfinementReport,
    /// Connections that were accepted since the server started.
    #[serde(default)]
    pub connections: u64,
    /// Messages of bets that were acknowledged, since the storage service started.
    #[serde(default)]
    pub batches: u64,
    /// What was refused, by whom and why.
    #[serde(default)]
    pub refusals: Vec<Refusals>,
    /// The bets of each group that went to disk with one sync, since the storage service started.
    #[serde(default)]
    pub group_bets: Histogram,
    /// How long the sync of each group took, in seconds.
    #[serde(default)]
    pub sync_seconds: Histogram,
    /// Each agency, in the order of their numbers.
    pub per_agency: Vec<AgencyStatus>,
}

/// How often one of the server's processes refused for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// Who refused: the `acceptor`, a `handler` or `storage`.
    pub by: Cow<'static, str>,
    /// Why, in a word.
    pub reason: Cow<'static, str>,
    /// How often: since the server started, or, if it is storage that refused, since that did.
    pub count: u64,
}

/// How far one agency is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgencyStatus {
    /// Its number.
    pub agency: AgencyId,
    /// How many of its bets are on disk.
    pub bets: u64,
    /// Whether it has sent END.
    pub ended: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_json_is_the_documented_one_and_unknown_keys_do_no_harm() {
        let text = r#"{"agencies":1,"ended":0,"bets":7,"drawn":false,"draw":null,"handlers":2,"max_clients":9,"uptime_seconds":1.5,"storage_restarts":0,"confinement":{"identity":"full","limits":"full","landlock":"partial","seccomp":"none"},"connections":3,"batches":2,"refusals":[{"by":"handler","reason":"bets","count":1}],"group_bets":{"le":[1.0,10.0],"counts":[0,1,0],"sum":7.0},"sync_seconds":{"le":[0.001],"counts":[1,0],"sum":0.0005},"per_agency":[{"agency":1,"bets":7,"ended":false}]}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&status).unwrap(), text);
        let older = text.split_once(r#""connections""#).unwrap().0.to_owned() + r#""per_agency":[]}"#;
        assert_eq!(serde_json::from_str::<Status>(&older).unwrap().group_bets, Histogram::default());
        let more = text.replacen('{', r#"{"news":[1],"#, 1);
        assert_eq!(serde_json::from_str::<Status>(&more).unwrap(), status);
    }
}

//! What a `STATUS` says: one JSON object, of which this is the form.

use serde::{Deserialize, Serialize};

use crate::lottery::{AgencyId, Draw};
use crate::system::confinement::InForce;

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
    pub confinement: InForce,
    /// Each agency, in the order of their numbers.
    pub per_agency: Vec<AgencyStatus>,
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
        let text = r#"{"agencies":1,"ended":0,"bets":7,"drawn":false,"draw":null,"handlers":2,"max_clients":9,"uptime_seconds":1.5,"storage_restarts":0,"confinement":{"identity":"full","limits":"full","landlock":"partial","seccomp":"none"},"per_agency":[{"agency":1,"bets":7,"ended":false}]}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&status).unwrap(), text);
        let more = text.replacen('{', r#"{"news":[1],"#, 1);
        assert_eq!(serde_json::from_str::<Status>(&more).unwrap(), status);
    }
}

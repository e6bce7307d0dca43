//! Statuses for tests.

use serde_json::json;

use crate::protocol::status::Status;

/// A status at that uptime, with these agencies, numbered from 1: the bets of each, and whether it has ended.
pub(crate) fn status_at(uptime_seconds: f64, agencies: &[(u64, bool)]) -> Status {
    let per_agency: Vec<_> = (1..)
        .zip(agencies)
        .map(|(number, (bets, ended))| json!({"agency": number, "bets": bets, "ended": ended}))
        .collect();
    let status = json!({
        "agencies": agencies.len(), "ended": agencies.iter().filter(|(_, ended)| *ended).count(),
        "bets": agencies.iter().map(|(bets, _)| bets).sum::<u64>(), "drawn": false, "draw": null,
        "handlers": 2, "max_clients": 1024, "uptime_seconds": uptime_seconds, "storage_restarts": 0,
        "confinement": {"identity": "partial", "limits": "full", "landlock": "full", "seccomp": "none"},
        "connections": 9, "status_requests": 2, "batches": 3,
        "refusals": [
            {"by": "handler", "reason": "bets", "count": 2}, {"by": "storage", "reason": "disk", "count": 0},
        ],
        "group_bets": {"count": 2, "sum": 8.0}, "sync_seconds": {"count": 2, "sum": 0.0025},
        "per_agency": per_agency,
    });
    serde_json::from_value(status).unwrap()
}

//! Statuses for tests.

use crate::lottery::AgencyId;
use crate::protocol::status::{AgencyStatus, Refusals, Status, Summary};
use crate::system::confinement::{ConfinementReport, Coverage};

/// A status with these agencies, numbered from 1: the bets of each, and whether it has ended.
pub(crate) fn status(agencies: &[(u64, bool)]) -> Status {
    let per_agency: Vec<AgencyStatus> = (1_u16..)
        .zip(agencies)
        .map(|(number, &(bets, ended))| AgencyStatus { agency: AgencyId::new(number).unwrap(), bets, ended })
        .collect();
    let mut group_bets = Summary::default();
    let mut sync_seconds = Summary::default();
    for (bets, seconds) in [(1.0, 0.0005), (7.0, 0.002)] {
        group_bets.observe(bets);
        sync_seconds.observe(seconds);
    }
    Status {
        agencies: u16::try_from(agencies.len()).unwrap(),
        ended: u16::try_from(agencies.iter().filter(|(_, ended)| *ended).count()).unwrap(),
        bets: agencies.iter().map(|(bets, _)| bets).sum(),
        drawn: false,
        draw: None,
        handlers: 2,
        max_clients: 1024,
        uptime_seconds: 12.345,
        storage_restarts: 0,
        confinement: ConfinementReport {
            identity: Coverage::Partial,
            limits: Coverage::Full,
            landlock: Coverage::Full,
            seccomp: Coverage::None,
        },
        connections: 9,
        batches: 3,
        refusals: vec![
            Refusals { by: "handler".into(), reason: "bets".into(), count: 2 },
            Refusals { by: "storage".into(), reason: "disk".into(), count: 0 },
        ],
        group_bets,
        sync_seconds,
        per_agency,
    }
}

/// The same at that uptime.
pub(crate) fn status_at(uptime_seconds: f64, agencies: &[(u64, bool)]) -> Status {
    Status { uptime_seconds, ..status(agencies) }
}

//! What the storage service counts for the operators, in its own memory: all of it begins anew with each storage
//! process.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::refusal::REASONS;
use super::reply_pipe::Reply;
use crate::protocol::histogram::Histogram;

/// The upper bounds of a group's size, in bets.
const GROUP_BETS: [f64; 6] = [1.0, 10.0, 100.0, 1000.0, 10_000.0, 100_000.0];
/// The upper bounds of the time of a sync, in seconds.
const SYNC_SECONDS: [f64; 11] = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

/// The statistics. As they go through a reply pipe they must stay far below a page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Messages of bets that were acknowledged.
    pub batches: u64,
    /// Requests that were refused, in the order of [`REASONS`].
    pub refused: [u64; REASONS.len()],
    /// The bets of each group that was stored.
    pub group_bets: Histogram,
    /// How long the sync of each of them took, in seconds.
    pub sync_seconds: Histogram,
}

impl Statistics {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            batches: 0,
            refused: [0; REASONS.len()],
            group_bets: Histogram::new(&GROUP_BETS),
            sync_seconds: Histogram::new(&SYNC_SECONDS),
        }
    }

    /// An answer is given.
    pub fn answered(&mut self, reply: &Reply) {
        match reply {
            Reply::Stored | Reply::SessionStored { .. } => self.batches += 1,
            Reply::Refused(refusal) => {
                if let Some(count) = self.refused.get_mut(refusal.reason()) {
                    *count += 1;
                }
            }
            _ => {}
        }
    }

    /// A group is on disk.
    #[expect(clippy::cast_precision_loss, reason = "no group has that many bets")]
    pub fn group(&mut self, bets: u64, sync: Duration) {
        self.group_bets.observe(bets as f64);
        self.sync_seconds.observe(sync.as_secs_f64());
    }
}

impl Default for Statistics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::codec::{decode, encode};
    use crate::ipc::refusal::Refusal;
    use crate::lottery::AgencyId;

    #[test]
    fn they_are_read_back_and_each_refusal_counts_under_its_name() {
        let agency = AgencyId::new(1_u16).unwrap();
        let mut statistics = Statistics::new();
        for refusal in [
            Refusal::NoSuchAgency { agencies: 1 },
            Refusal::AgencyEnded { agency },
            Refusal::Drawn,
            Refusal::Gap { first: 1, stored: 0 },
            Refusal::OtherAgency,
            Refusal::Disk { errno: 28 },
            Refusal::Malformed,
        ] {
            statistics.answered(&Reply::Refused(refusal));
        }
        statistics.answered(&Reply::SessionStored { stored: 1 });
        statistics.answered(&Reply::Ended);
        statistics.group(17, Duration::from_millis(2));
        assert_eq!((statistics.batches, statistics.refused), (1, [1; REASONS.len()]));
        assert_eq!(statistics.group_bets.counts, [0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(statistics.sync_seconds.bound_of(100), Some(0.003));
        let mut bytes = [0; 1024];
        let length = encode(&statistics, &mut bytes).unwrap();
        assert_eq!(decode::<Statistics>(&bytes[..length]).unwrap().0, statistics);
    }
}

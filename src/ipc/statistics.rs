//! What storage counts for operators. The counts are in storage's own memory, so they begin anew with each storage process.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::refusal::REASONS;
use super::reply_pipe::Reply;
use crate::protocol::status::Summary;

/// Storage's counts. They travel in one page of a reply pipe, so they must stay small.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Messages of bets that were acknowledged.
    pub(crate) batches: u64,
    /// Refused requests, in the order of [`REASONS`].
    pub(crate) refused: [u64; REASONS.len()],
    /// The bets of each group that was synced.
    pub(crate) group_bets: Summary,
    /// The duration of each sync, in seconds.
    pub(crate) sync_seconds: Summary,
}

impl Statistics {
    /// Count a reply.
    pub(crate) fn count_reply(&mut self, reply: &Reply) {
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

    /// Count a group that was synced.
    #[expect(clippy::cast_precision_loss, reason = "a group has far fewer than 2^52 bets")]
    pub(crate) fn count_group(&mut self, bets: u64, sync: Duration) {
        self.group_bets.observe(bets as f64);
        self.sync_seconds.observe(sync.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::codec::{decode, encode};
    use crate::ipc::refusal::Refusal;
    use crate::lottery::AgencyId;

    #[test]
    fn every_refusal_counts_under_its_name_and_the_counts_survive_the_pipe() {
        let agency = AgencyId::new(1_u16).unwrap();
        let mut statistics = Statistics::default();
        for refusal in [
            Refusal::NoSuchAgency { agencies: 1 },
            Refusal::AgencyEnded { agency },
            Refusal::Drawn,
            Refusal::Gap { first: 1, stored: 0 },
            Refusal::OtherAgency,
            Refusal::Disk { errno: 28 },
            Refusal::Malformed,
        ] {
            statistics.count_reply(&Reply::Refused(refusal));
        }
        statistics.count_reply(&Reply::SessionStored { stored: 1 });
        statistics.count_reply(&Reply::Ended);
        statistics.count_group(17, Duration::from_millis(2));
        assert_eq!((statistics.batches, statistics.refused), (1, [1; REASONS.len()]));
        assert_eq!(statistics.group_bets, Summary { count: 1, sum: 17.0 });
        assert_eq!(statistics.sync_seconds, Summary { count: 1, sum: 0.002 });
        let mut bytes = [0; 1024];
        let length = encode(&statistics, &mut bytes).unwrap();
        assert_eq!(decode::<Statistics>(&bytes[..length]).unwrap().0, statistics);
    }
}

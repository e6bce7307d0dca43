//! What is answered to a request once its group is on disk, and how it is looked up then.

use super::contest::Contest;
use super::ledger::Committed;
use crate::ipc::codec::encode;
use crate::ipc::refusal::Refusal;
use crate::ipc::reply_pipe::{PAGE, Reply};
use crate::ipc::statistics::Statistics;
use crate::lottery::AgencyId;

/// What is to be answered once the group is on disk. What it says is looked up then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// To `OpenSession`.
    Opened(AgencyId),
    /// To `StoreBets` outside of a session.
    Stored,
    /// To `StoreBets` of a session: its agency, and how many bets that must have for all of these to be there.
    SessionStored(AgencyId, u64),
    /// To `EndAgency`.
    Ended(AgencyId),
    /// To `Result` and `AwaitResult`: from that byte on.
    Winners(AgencyId, u64),
    /// To `Status`: with the counts from that index on, if any.
    Status(u16),
    /// To `Statistics`.
    Statistics,
    /// Decided already.
    Refused(Refusal),
}

impl Answer {
    /// What it says, now that the group came to what `committed` tells; its bulk bytes are appended to `bulk`.
    ///
    /// # Errors
    /// The request was refused, or what it changed is not on disk.
    pub fn look_up(
        self,
        contest: &Contest,
        statistics: &Statistics,
        committed: &Committed,
        bulk: &mut Vec<u8>,
    ) -> Result<Reply, Refusal> {
        match self {
            Self::Opened(agency) => {
                Ok(Reply::Opened { stored: contest.stored(agency)?, state: contest.state_of(agency)? })
            }
            Self::Stored => committed.bets.map(|()| Reply::Stored),
            Self::SessionStored(agency, upto) => stored_in_session(contest.stored(agency)?, upto, committed),
            Self::Ended(agency) => match committed.ends {
                Err(refusal) if contest.ended_agencies().all(|ended| ended != agency) => Err(refusal),
                _ => Ok(Reply::Ended),
            },
            Self::Winners(agency, offset) => Ok(winners(contest.winners(agency)?, offset, bulk)),
            Self::Status(counts_from) => Ok(status(contest, counts_from, bulk)),
            Self::Statistics => {
                bulk.resize(PAGE, 0);
                let length = encode(statistics, bulk).unwrap_or(0);
                bulk.truncate(length);
                Ok(Reply::Statistics)
            }
            Self::Refused(refusal) => Err(refusal),
        }
    }
}

/// Bets that were on disk before are so whatever became of the group.
fn stored_in_session(stored: u64, upto: u64, committed: &Committed) -> Result<Reply, Refusal> {
    match committed.bets {
        Err(refusal) if stored < upto => Err(refusal),
        _ => Ok(Reply::SessionStored { stored }),
    }
}

fn winners(winners: Option<&[u8]>, offset: u64, bulk: &mut Vec<u8>) -> Reply {
    let Some(winners) = winners else { return Reply::NotDrawn };
    let rest = usize::try_from(offset).ok().and_then(|offset| winners.get(offset..));
    let rest = rest.unwrap_or_default();
    bulk.extend_from_slice(rest.get(..PAGE).unwrap_or(rest));
    Reply::ResultPage { total: winners.len() as u64 }
}

fn status(contest: &Contest, counts_from: u16, bulk: &mut Vec<u8>) -> Reply {
    for count in contest.counts(counts_from) {
        let mut bytes = [0; 16];
        // A count is short; and a page holds as many as fit, the draw's share left.
        let length = encode(&count, &mut bytes).unwrap_or(0);
        if bulk.len() + length > PAGE - 64 {
            break;
        }
        bulk.extend_from_slice(bytes.get(..length).unwrap_or_default());
    }
    Reply::StatusPage {
        agencies: contest.agencies(),
        ended: contest.ended(),
        bets: contest.bets(),
        draw: contest.draw().cloned(),
    }
}

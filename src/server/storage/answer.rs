//! The answers to the requests of a group. Each becomes a reply once the group is committed.

use super::contest::Contest;
use super::state_file::Stored;
use crate::ipc::codec::encode;
use crate::ipc::messages::{ClientToken, Refusal, Reply, Statistics};
use crate::ipc::storage_end::PAGE;
use crate::lottery::AgencyId;

/// An answer that a client gets once its group is committed.
#[derive(Debug)]
pub struct Answer {
    pub(super) client: ClientToken,
    /// The number of the request.
    pub(super) id: u32,
    pub(super) subject: Subject,
}

/// What an answer is about. Other values are looked up when the group is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Opened(AgencyId),
    Stored,
    /// The bets of the agency when the request was decided.
    SessionStored(Stored),
    Ended(AgencyId),
    /// The agency, and the offset of the page.
    Winners(AgencyId, u64),
    AwaitedWinners(AgencyId),
    /// The index of the first agency to count, if agencies are counted.
    Status(u16),
    Statistics,
    Refused(Refusal),
}

impl Answer {
    /// The reply. Its bulk bytes go into `bulk`, which is empty. None if it must wait for the draw.
    pub(super) fn resolve(
        &self,
        contest: &Contest,
        statistics: &Statistics,
        bulk: &mut Vec<u8>,
    ) -> Result<Option<Reply>, Refusal> {
        let reply = match self.subject {
            Subject::Opened(agency) => {
                let Stored { bets, digest } = contest.stored(agency)?;
                Reply::Opened { stored: bets, digest, state: contest.state_of(agency)? }
            }
            Subject::Stored => Reply::Stored,
            Subject::SessionStored(Stored { bets, digest }) => Reply::SessionStored { stored: bets, digest },
            Subject::Ended(_) => Reply::Ended,
            Subject::Winners(agency, offset) => {
                contest.winners(agency)?.map_or(Reply::NotDrawn, |winners| result_page(winners, offset, bulk))
            }
            Subject::AwaitedWinners(agency) => {
                return Ok(contest.winners(agency)?.map(|winners| result_page(winners, 0, bulk)));
            }
            Subject::Status(counts_from) => status_page(contest, counts_from, bulk),
            Subject::Statistics => {
                bulk.resize(PAGE, 0);
                let length = encode(statistics, bulk).unwrap_or(0);
                bulk.truncate(length);
                Reply::Statistics
            }
            Subject::Refused(refusal) => return Err(refusal),
        };
        Ok(Some(reply))
    }
}

fn status_page(contest: &Contest, counts_from: u16, bulk: &mut Vec<u8>) -> Reply {
    for count in contest.counts(counts_from) {
        let mut bytes = [0; 16];
        let length = encode(&count, &mut bytes).unwrap_or(0);
        // The draw is in the head, and takes a part of the page too.
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

fn result_page(winners: &[u8], offset: u64, bulk: &mut Vec<u8>) -> Reply {
    let rest = usize::try_from(offset).ok().and_then(|offset| winners.get(offset..)).unwrap_or_default();
    bulk.extend_from_slice(rest.get(..PAGE).unwrap_or(rest));
    Reply::ResultPage { total: winners.len() as u64 }
}

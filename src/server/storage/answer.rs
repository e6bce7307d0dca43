//! The answers to the requests of a group. Each becomes a reply once the group is committed.

use super::contest::Contest;
use super::state_file::Stored;
use crate::ipc::codec::encode;
use crate::ipc::messages::{ClientToken, Refusal, Reply, Request, Statistics};
use crate::ipc::storage_end::PAGE;

/// A request that was decided. Its client gets the reply once the group is committed.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    pub(super) client: ClientToken,
    /// The number of the request.
    pub(super) id: u32,
    pub(super) request: Request,
    pub(super) decision: Decision,
}

/// For bets of a session: what its agency had when they were decided. All else that a reply says is looked up when the group
/// is committed.
pub(super) type Decision = Result<Option<Stored>, Refusal>;

impl Answer {
    /// Makes the reply, and puts its bulk bytes into `bulk`, which is empty. Returns none if it must wait for the draw.
    pub(super) fn resolve(
        &self,
        contest: &Contest,
        statistics: &Statistics,
        bulk: &mut Vec<u8>,
    ) -> Result<Option<Reply>, Refusal> {
        let stored = self.decision?;
        Ok(Some(match self.request {
            Request::OpenSession { agency } => {
                let Stored { bets, digest } = contest.stored(agency)?;
                Reply::Opened { stored: bets, digest, state: contest.state_of(agency)? }
            }
            Request::StoreBets { .. } => match stored {
                None => Reply::Stored,
                Some(Stored { bets, digest }) => Reply::SessionStored { stored: bets, digest },
            },
            Request::EndAgency { .. } => Reply::Ended,
            Request::Result { agency, offset } => {
                contest.winners(agency)?.map_or(Reply::NotDrawn, |winners| result_page(winners, offset, bulk))
            }
            Request::AwaitResult { agency } => {
                return Ok(contest.winners(agency)?.map(|winners| result_page(winners, 0, bulk)));
            }
            Request::Status { counts_from } => status_page(contest, statistics, counts_from, bulk),
            // `Clients` answers it.
            Request::Prove { .. } => return Err(Refusal::Malformed),
        }))
    }
}

fn status_page(contest: &Contest, statistics: &Statistics, counts_from: u16, bulk: &mut Vec<u8>) -> Reply {
    bulk.resize(PAGE, 0);
    let length = encode(statistics, bulk).unwrap_or(0);
    bulk.truncate(length);
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
        draw: contest.draw.clone(),
    }
}

fn result_page(winners: &[u8], offset: u64, bulk: &mut Vec<u8>) -> Reply {
    let rest = usize::try_from(offset).ok().and_then(|offset| winners.get(offset..)).unwrap_or_default();
    bulk.extend_from_slice(rest.get(..PAGE).unwrap_or(rest));
    Reply::ResultPage { total: winners.len() as u64 }
}

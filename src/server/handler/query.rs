//! Questions with long replies: the result of an agency, and the STATUS. Storage answers page by page, and the pipe has no room
//! for another reply beside a page.

use std::io;
use std::iter::zip;

use super::context::HandlerContext;
use crate::ipc::codec::decode;
use crate::ipc::messages::{AgencyCount, REASONS, Reply, Request, Statistics};
use crate::ipc::shared_counters::Counter;
use crate::lottery::AgencyId;
use crate::protocol::status::{AgencyStatus, Refusals, Status};

#[derive(Debug)]
pub(super) enum Query {
    /// The result of an agency. Storage answers at once. If there is no draw yet, the handler tells the client so, or with `wait`
    /// asks [`Query::AwaitDraw`]. Thus a client that half-closes behind an `AWAIT_RESULT` gets its result if the draw has been
    /// made.
    Result { agency: AgencyId, wait: bool },
    /// The result of an agency once the draw has been made.
    AwaitDraw { agency: AgencyId },
    /// The page of a result that begins at this byte.
    Page { agency: AgencyId, offset: u64 },
    /// The STATUS. Storage has told the state of these agencies so far.
    Status(Vec<AgencyStatus>),
}

impl Query {
    pub(super) fn request(&self) -> Request {
        match *self {
            Self::Result { agency, .. } => Request::Result { agency, offset: 0 },
            Self::AwaitDraw { agency } => Request::AwaitResult { agency },
            Self::Page { agency, offset } => Request::Result { agency, offset },
            Self::Status(ref agencies) => Request::Status { counts_from: count(agencies) },
        }
    }
}

fn count(agencies: &[AgencyStatus]) -> u16 {
    u16::try_from(agencies.len()).unwrap_or(u16::MAX)
}

/// Adds the reply to [`Query::Status`]. Returns the STATUS, once storage has told the state of all agencies.
pub(super) fn take_status(
    per_agency: &mut Vec<AgencyStatus>,
    reply: Reply,
    bulk: &[u8],
    context: &HandlerContext<'_>,
) -> io::Result<Option<Status>> {
    let Reply::StatusPage { agencies, ended, bets, draw } = reply else { return Err(other_question()) };
    let (statistics, mut counts): (Statistics, _) = decode(bulk)?;
    let is_last = counts.is_empty();
    while !counts.is_empty() {
        let (AgencyCount { bets, ended }, rest) = decode(counts)?;
        let Some(agency) = AgencyId::new(per_agency.len() + 1) else { break };
        per_agency.push(AgencyStatus { agency, bets, ended });
        counts = rest;
    }
    if !is_last && count(per_agency) < agencies {
        return Ok(None);
    }
    Ok(Some(Status {
        agencies,
        ended,
        bets,
        drawn: draw.is_some(),
        draw,
        handlers: context.handlers,
        max_clients: context.max_clients,
        uptime_seconds: context.started.elapsed().as_secs_f64(),
        storage_restarts: context.storage_restarts,
        confinement: context.confinement.report,
        connections: context.connections,
        status_requests: context.counters.get(Counter::StatusRequests),
        batches: statistics.batches,
        refusals: refusals(context, &statistics),
        group_bets: statistics.group_bets,
        sync_seconds: statistics.sync_seconds,
        per_agency: std::mem::take(per_agency),
        certificate_until: context.identity.map(|identity| identity.until),
    }))
}

fn refusals(context: &HandlerContext<'_>, statistics: &Statistics) -> Vec<Refusals> {
    let by_handlers = [
        ("protocol", Counter::Protocol),
        ("bets", Counter::Bets),
        ("agency", Counter::Agency),
        ("not_proven", Counter::NotProven),
    ];
    let by_handlers = by_handlers.map(|(reason, counter)| ("handler", reason, context.counters.get(counter)));
    let by_storage = zip(REASONS, statistics.refused).map(|(reason, count)| ("storage", reason, count));
    let all = [("acceptor", "busy", context.busy)].into_iter().chain(by_handlers).chain(by_storage);
    all.map(|(by, reason, count)| Refusals { by: by.into(), reason: reason.into(), count }).collect()
}

/// Storage answers in order, so this is a fault of the program.
pub(super) fn other_question() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "storage answered another question")
}

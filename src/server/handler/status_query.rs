//! The state of the contest: asked of storage page by page, and completed with what acceptor and handlers count.

use std::io;

use super::context::HandlerContext;
use crate::ipc::codec::decode;
use crate::ipc::messages::{AgencyCount, REASONS, Reply, Request, Statistics};
use crate::ipc::shared_counters::{Counter, SharedCounters};
use crate::lottery::{AgencyId, Draw};
use crate::protocol::status::{AgencyStatus, Refusals, Status};

/// What storage has answered so far.
#[derive(Debug, Default)]
pub struct StatusQuery {
    totals: Option<Totals>,
    per_agency: Vec<AgencyStatus>,
    has_all_pages: bool,
}

#[derive(Debug)]
struct Totals {
    agencies: u16,
    ended: u16,
    bets: u64,
    draw: Option<Draw>,
}

impl StatusQuery {
    /// What to ask of storage next.
    pub fn request(&self) -> Request {
        if self.has_all_pages {
            Request::Statistics
        } else {
            Request::Status { counts_from: self.agencies_read() }
        }
    }

    /// Takes the reply to [`Self::request`]. Returns the status once nothing is left to ask.
    pub fn take(
        &mut self,
        reply: Reply,
        bulk: &[u8],
        context: &HandlerContext<'_>,
    ) -> io::Result<Option<Status>> {
        match (reply, self.totals.take()) {
            (Reply::StatusPage { agencies, ended, bets, draw }, _) => {
                self.take_page(bulk)?;
                self.has_all_pages = bulk.is_empty() || self.agencies_read() >= agencies;
                self.totals = Some(Totals { agencies, ended, bets, draw });
                Ok(None)
            }
            (Reply::Statistics, Some(totals)) => {
                let (statistics, _) = decode(bulk)?;
                Ok(Some(status(totals, &statistics, std::mem::take(&mut self.per_agency), context)))
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "storage answered another question")),
        }
    }

    fn take_page(&mut self, mut bulk: &[u8]) -> io::Result<()> {
        while !bulk.is_empty() {
            let (AgencyCount { bets, ended }, rest) = decode(bulk)?;
            let Some(agency) = AgencyId::new(self.per_agency.len() + 1) else { break };
            self.per_agency.push(AgencyStatus { agency, bets, ended });
            bulk = rest;
        }
        Ok(())
    }

    fn agencies_read(&self) -> u16 {
        u16::try_from(self.per_agency.len()).unwrap_or(u16::MAX)
    }
}

fn status(
    totals: Totals,
    statistics: &Statistics,
    per_agency: Vec<AgencyStatus>,
    context: &HandlerContext<'_>,
) -> Status {
    let Totals { agencies, ended, bets, draw } = totals;
    Status {
        agencies,
        ended,
        bets,
        drawn: draw.is_some(),
        draw,
        handlers: u32::try_from(context.counters.get(Counter::Handlers)).unwrap_or(u32::MAX),
        max_clients: context.max_clients,
        uptime_seconds: context.started.elapsed().as_secs_f64(),
        storage_restarts: context.storage_restarts,
        confinement: context.confinement.report(),
        connections: context.counters.get(Counter::Connections),
        batches: statistics.batches,
        refusals: refusals(context.counters, statistics),
        group_bets: statistics.group_bets,
        sync_seconds: statistics.sync_seconds,
        per_agency,
    }
}

fn refusals(counters: &SharedCounters, statistics: &Statistics) -> Vec<Refusals> {
    let counted = [
        ("acceptor", "busy", Counter::Busy),
        ("handler", "protocol", Counter::Protocol),
        ("handler", "bets", Counter::Bets),
        ("handler", "agency", Counter::Agency),
    ];
    let counted = counted.map(|(by, reason, counter)| (by, reason, counters.get(counter)));
    let by_storage =
        REASONS.iter().zip(statistics.refused).map(|(reason, count)| ("storage", *reason, count));
    let all = counted.into_iter().chain(by_storage);
    all.map(|(by, reason, count)| Refusals { by: by.into(), reason: reason.into(), count }).collect()
}

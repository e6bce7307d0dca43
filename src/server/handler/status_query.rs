//! Puts a STATUS together: asks storage for the contest, page by page, and adds what acceptor and handlers count.

use std::io;
use std::mem::take;

use super::context::HandlerContext;
use crate::ipc::codec::decode;
use crate::ipc::messages::{AgencyCount, REASONS, Reply, Request, Statistics};
use crate::ipc::shared_counters::Counter;
use crate::lottery::AgencyId;
use crate::protocol::status::{AgencyStatus, Refusals, Status};

/// What storage has answered so far.
#[derive(Debug, Default)]
pub struct StatusQuery {
    per_agency: Vec<AgencyStatus>,
}

impl StatusQuery {
    /// What to ask of storage next.
    pub fn request(&self) -> Request {
        Request::Status { counts_from: self.agencies_read() }
    }

    /// Takes the reply to [`Self::request`]. Returns the status once nothing is left to ask.
    pub fn take(
        &mut self,
        reply: Reply,
        bulk: &[u8],
        context: &HandlerContext<'_>,
    ) -> io::Result<Option<Status>> {
        match reply {
            Reply::StatusPage { agencies, ended, bets, draw } => {
                let (statistics, counts): (Statistics, _) = decode(bulk)?;
                self.take_counts(counts)?;
                if !counts.is_empty() && self.agencies_read() < agencies {
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
                    confinement: context.confinement.report(),
                    connections: context.connections,
                    status_requests: context.counters.get(Counter::StatusRequests),
                    batches: statistics.batches,
                    refusals: refusals(context, &statistics),
                    group_bets: statistics.group_bets,
                    sync_seconds: statistics.sync_seconds,
                    per_agency: take(&mut self.per_agency),
                    certificate_until: context.tls.and_then(|tls| Some(tls.identity?.until)),
                }))
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "storage answered another question")),
        }
    }

    fn take_counts(&mut self, mut bulk: &[u8]) -> io::Result<()> {
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

fn refusals(context: &HandlerContext<'_>, statistics: &Statistics) -> Vec<Refusals> {
    let by_handlers = |counter| context.counters.get(counter);
    let counted = [
        ("acceptor", "busy", context.busy),
        ("handler", "protocol", by_handlers(Counter::Protocol)),
        ("handler", "bets", by_handlers(Counter::Bets)),
        ("handler", "agency", by_handlers(Counter::Agency)),
        ("handler", "not_proven", by_handlers(Counter::NotProven)),
    ];
    let by_storage =
        REASONS.iter().zip(statistics.refused).map(|(reason, count)| ("storage", *reason, count));
    let all = counted.into_iter().chain(by_storage);
    all.map(|(by, reason, count)| Refusals { by: by.into(), reason: reason.into(), count }).collect()
}

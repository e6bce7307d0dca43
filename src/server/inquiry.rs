//! How the contest goes: asked of the storage service page by page, and put together with what the server's processes
//! count themselves. Nothing here waits.

use std::io;

use super::view::ServerView;
use crate::ipc::codec::decode;
use crate::ipc::refusal::REASONS;
use crate::ipc::reply_pipe::{AgencyCount, Reply};
use crate::ipc::request_queue::Request;
use crate::ipc::shared_counters::{Counter, SharedCounters};
use crate::ipc::statistics::Statistics;
use crate::lottery::{AgencyId, Draw};
use crate::protocol::status::{AgencyStatus, Refusals, Status};

/// An inquiry under way.
#[derive(Debug, Default)]
pub struct Inquiry {
    contest: Option<Totals>,
    per_agency: Vec<AgencyStatus>,
}

#[derive(Debug)]
struct Totals {
    agencies: u16,
    ended: u16,
    bets: u64,
    draw: Option<Draw>,
}

/// What an answer brought.
#[derive(Debug)]
pub enum Step {
    /// There is more to ask.
    Ask(Inquiry, Request),
    /// That was all.
    Done(Box<Status>),
}

impl Inquiry {
    /// Asks for everything.
    #[must_use]
    pub fn of_all() -> (Self, Request) {
        (Self::default(), Request::Status { counts_from: 0 })
    }

    /// Takes an answer of the storage service.
    ///
    /// # Errors
    /// It makes no sense.
    pub fn take(mut self, reply: Reply, bulk: &[u8], view: &ServerView<'_>) -> io::Result<Step> {
        match (reply, self.contest.take()) {
            (Reply::StatusPage { agencies, ended, bets, draw }, _) => {
                let more = self.take_page(bulk)?;
                let came = u16::try_from(self.per_agency.len()).unwrap_or(u16::MAX);
                self.contest = Some(Totals { agencies, ended, bets, draw });
                let request = if more && came < agencies {
                    Request::Status { counts_from: came }
                } else {
                    Request::Statistics
                };
                Ok(Step::Ask(self, request))
            }
            (Reply::Statistics, Some(contest)) => {
                let (statistics, _): (Statistics, _) = decode(bulk)?;
                Ok(Step::Done(Box::new(status_of(contest, statistics, self.per_agency, view))))
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "an answer to another question")),
        }
    }

    /// Whether the page had any agencies.
    fn take_page(&mut self, mut bulk: &[u8]) -> io::Result<bool> {
        let more = !bulk.is_empty();
        while !bulk.is_empty() {
            let (AgencyCount { bets, ended }, rest) = decode(bulk)?;
            let Some(agency) = AgencyId::new(self.per_agency.len() + 1) else { break };
            self.per_agency.push(AgencyStatus { agency, bets, ended });
            bulk = rest;
        }
        Ok(more)
    }
}

fn status_of(
    contest: Totals,
    statistics: Statistics,
    per_agency: Vec<AgencyStatus>,
    view: &ServerView<'_>,
) -> Status {
    let Totals { agencies, ended, bets, draw } = contest;
    Status {
        agencies,
        ended,
        bets,
        drawn: draw.is_some(),
        draw,
        handlers: u32::try_from(view.counters.get(Counter::Handlers)).unwrap_or(u32::MAX),
        max_clients: view.max_clients,
        uptime_seconds: view.started.elapsed().as_secs_f64(),
        storage_restarts: view.storage_restarts,
        confinement: view.confinement.in_force(),
        connections: view.counters.get(Counter::Connections),
        batches: statistics.batches,
        refusals: refusals(view.counters, &statistics),
        group_bets: statistics.group_bets,
        sync_seconds: statistics.sync_seconds,
        per_agency,
    }
}

fn refusals(counters: &SharedCounters, statistics: &Statistics) -> Vec<Refusals> {
    let ours = [
        ("acceptor", "busy", Counter::Busy),
        ("handler", "protocol", Counter::Protocol),
        ("handler", "bets", Counter::Bets),
        ("handler", "agency", Counter::Agency),
    ];
    let ours = ours.map(|(by, reason, counter)| (by, reason, counters.get(counter)));
    let storages = REASONS.iter().zip(statistics.refused).map(|(reason, count)| ("storage", *reason, count));
    let all = ours.into_iter().chain(storages);
    all.map(|(by, reason, count)| Refusals { by: by.into(), reason: reason.into(), count }).collect()
}

//! The events that follow from the difference of two statuses. The server keeps no list of events.

use std::fmt;

use crate::lottery::{AgencyId, Draw};
use crate::protocol::status::Status;
use crate::status::text::{counted, grouped};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The first answer.
    FirstAnswer,
    /// The server does not answer any more, for this reason.
    Lost(String),
    Back,
    /// The server was started again, or another server has its address.
    Restarted,
    /// Storage died and was started again. Holds the number of restarts.
    StorageRestarted(u64),
    Ended(Vec<AgencyId>),
    Drawn(Draw),
    /// The server serves as many connections as it can. Holds that number.
    Full(u32),
    NotFull,
    /// The disk failed. Holds the number of requests that were refused for it.
    DiskFailed(u64),
}

impl Event {
    /// Whether an operator should look at the server.
    pub(crate) fn is_bad(&self) -> bool {
        matches!(
            self,
            Self::Lost(_) | Self::Restarted | Self::StorageRestarted(_) | Self::Full(_) | Self::DiskFailed(_)
        )
    }
}

/// The most agencies that one event names.
const NAMED: usize = 5;

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstAnswer => f.write_str("the server answers"),
            Self::Lost(error) => write!(f, "the server does not answer: {error}"),
            Self::Back => f.write_str("the server answers again"),
            Self::Restarted => f.write_str("the server was started again"),
            Self::StorageRestarted(total) => write!(f, "storage died and was started again, restart {total}"),
            Self::Ended(agencies) => write_ended(f, agencies),
            Self::Drawn(draw) => write!(f, "the draw was made: winning number {}", draw.winning_number),
            Self::Full(limit) => write!(f, "all {} connections are in use, others wait", grouped(*limit)),
            Self::NotFull => f.write_str("there are free connections again"),
            Self::DiskFailed(count) => {
                write!(f, "the disk failed: {} refused", counted(*count, "request was", "requests were"))
            }
        }
    }
}

fn write_ended(f: &mut fmt::Formatter<'_>, agencies: &[AgencyId]) -> fmt::Result {
    let named = agencies.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match agencies.len() {
        1 => write!(f, "agency {named} has ended"),
        2..=NAMED => write!(f, "agencies {named} have ended"),
        count => write!(f, "{} agencies have ended: {named} and others", grouped(count as u64)),
    }
}

pub(crate) fn between(before: &Status, after: &Status) -> Vec<Event> {
    let mut events = Vec::new();
    let is_other = is_other_run(before, after);
    if is_other {
        events.push(Event::Restarted);
    } else if after.storage_restarts > before.storage_restarts {
        events.push(Event::StorageRestarted(after.storage_restarts));
    }
    let ended = newly_ended(before, after);
    if !ended.is_empty() {
        events.push(Event::Ended(ended));
    }
    if let (None, Some(draw)) = (&before.draw, &after.draw) {
        events.push(Event::Drawn(draw.clone()));
    }
    match (is_full(before), is_full(after)) {
        (false, true) => events.push(Event::Full(after.max_clients)),
        (true, false) => events.push(Event::NotFull),
        _ => {}
    }
    let failed = disk_failures(after).saturating_sub(disk_failures(before));
    if failed > 0 && !is_other {
        events.push(Event::DiskFailed(failed));
    }
    events
}

/// Whether the two statuses are of different runs of a server.
pub(crate) fn is_other_run(before: &Status, after: &Status) -> bool {
    after.uptime_seconds < before.uptime_seconds
        || after.bets < before.bets
        || after.per_agency.len() != before.per_agency.len()
}

fn newly_ended(before: &Status, after: &Status) -> Vec<AgencyId> {
    let had = |place: usize| before.per_agency.get(place).is_some_and(|agency| agency.ended);
    let agencies = after.per_agency.iter().enumerate();
    agencies.filter(|(place, agency)| agency.ended && !had(*place)).map(|(_, agency)| agency.agency).collect()
}

pub(crate) fn is_full(status: &Status) -> bool {
    status.handlers >= status.max_clients
}

fn disk_failures(status: &Status) -> u64 {
    let all = status.refusals.iter().filter(|refusals| refusals.by == "storage" && refusals.reason == "disk");
    all.fold(0, |sum, refusals| sum.saturating_add(refusals.count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples;

    fn texts(before: &Status, after: &Status) -> Vec<String> {
        between(before, after).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ends_and_the_draw_are_told_once() {
        let before = samples::status(&[(7, false), (3, true)]);
        let draw = Some(Draw { at: "2026-01-01T00:00:00-03:00".into(), agencies: 2, winning_number: 7574 });
        let after = Status { drawn: true, draw, ..samples::status(&[(7, true), (3, true)]) };
        let expected = ["agency 1 has ended", "the draw was made: winning number 7574"];
        assert_eq!(texts(&before, &after), expected);
        assert!(between(&after, &after).is_empty());
        let [before, after] = [false, true].map(|ended| samples::status(&[(0, ended); 500]));
        assert_eq!(texts(&before, &after), ["500 agencies have ended: 1, 2, 3, 4, 5 and others"]);
    }

    #[test]
    fn restarts_full_handlers_and_a_failing_disk_are_bad() {
        let before = samples::status(&[(7, false)]);
        let mut after = Status { storage_restarts: 1, handlers: 1024, ..before.clone() };
        after.refusals[1].count = 1;
        let events = between(&before, &after);
        assert_eq!(events, [Event::StorageRestarted(1), Event::Full(1024), Event::DiskFailed(1)]);
        assert!(events.iter().all(Event::is_bad));
        assert_eq!(events[2].to_string(), "the disk failed: 1 request was refused");
        assert_eq!(between(&after, &Status { handlers: 1023, ..after.clone() }), [Event::NotFull]);
        let restarted = Status { uptime_seconds: 0.1, ..before.clone() };
        assert_eq!(between(&before, &restarted), [Event::Restarted]);
    }
}

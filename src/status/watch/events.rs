//! What happened between two looks at a server, for whoever watches it. The server keeps no such list.

use std::fmt;

use crate::lottery::{AgencyId, Draw};
use crate::protocol::status::Status;
use crate::status::text::{grouped, plural};

/// Something to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The server answers for the first time.
    Found,
    /// The server has stopped to answer, for this reason.
    Lost(String),
    /// The server answers again.
    Back,
    /// The server was started again, or another one stands in its place.
    Restarted,
    /// The storage service died and was replaced; so often in all.
    StorageRestarted(u64),
    /// These agencies have ended.
    Ended(Vec<AgencyId>),
    /// The draw was made.
    Drawn(Draw),
    /// All connections that the server can serve are in use: so many.
    Full(u32),
    /// No longer so.
    NotFull,
    /// So many requests were refused as the disk did not take them.
    DiskFailed(u64),
}

impl Event {
    /// Whether it is one to worry about.
    pub fn is_bad(&self) -> bool {
        matches!(
            self,
            Self::Lost(_) | Self::Restarted | Self::StorageRestarted(_) | Self::Full(_) | Self::DiskFailed(_)
        )
    }
}

/// As many agencies as are named where several end together.
const NAMED: usize = 5;

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found => f.write_str("the server answers"),
            Self::Lost(error) => write!(f, "the server does not answer: {error}"),
            Self::Back => f.write_str("the server answers again"),
            Self::Restarted => f.write_str("the server was started again"),
            Self::StorageRestarted(total) => write!(f, "storage died and was started again, restart {total}"),
            Self::Ended(agencies) => write_ended(f, agencies),
            Self::Drawn(draw) => write!(f, "the draw was made: {} won", draw.winning_number),
            Self::Full(limit) => {
                write!(f, "all {} connections are in use, others wait", grouped((*limit).into()))
            }
            Self::NotFull => f.write_str("there are free connections again"),
            Self::DiskFailed(count) => {
                let refused = plural(*count, "request was", "requests were");
                write!(f, "the disk failed: {} {refused} refused", grouped(*count))
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

/// What happened between two statuses.
pub fn between(before: &Status, after: &Status) -> Vec<Event> {
    let mut events = Vec::new();
    let another = is_another(before, after);
    if another {
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
    if failed > 0 && !another {
        events.push(Event::DiskFailed(failed));
    }
    events
}

/// Whether another server answers than the one before: it was started later, or has another contest.
pub fn is_another(before: &Status, after: &Status) -> bool {
    after.uptime_seconds < before.uptime_seconds || after.bets < before.bets
}

fn newly_ended(before: &Status, after: &Status) -> Vec<AgencyId> {
    let had = |place: usize| before.per_agency.get(place).is_some_and(|agency| agency.ended);
    let agencies = after.per_agency.iter().enumerate();
    agencies.filter(|(place, agency)| agency.ended && !had(*place)).map(|(_, agency)| agency.agency).collect()
}

/// Whether the server serves as many as it can.
pub fn is_full(status: &Status) -> bool {
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
    fn an_end_and_the_draw_are_told_once() {
        let before = samples::status(&[(7, false), (3, true)]);
        let draw = Some(Draw { at: "2026-01-01T00:00:00-03:00".into(), agencies: 2, winning_number: 7574 });
        let after = Status { drawn: true, draw, ..samples::status(&[(7, true), (3, true)]) };
        assert_eq!(texts(&before, &after), ["agency 1 has ended", "the draw was made: 7574 won"]);
        assert!(between(&after, &after).is_empty());
    }

    #[test]
    fn one_request_that_the_disk_did_not_take_is_one() {
        let before = samples::status(&[(7, false)]);
        let mut after = before.clone();
        after.refusals[1].count = 1;
        assert_eq!(texts(&before, &after), ["the disk failed: 1 request was refused"]);
    }

    #[test]
    fn many_ends_are_one_event() {
        let before = samples::status(&[(0, false); 500]);
        let after = samples::status(&[(0, true); 500]);
        assert_eq!(texts(&before, &after), ["500 agencies have ended: 1, 2, 3, 4, 5 and others"]);
    }

    #[test]
    fn restarts_a_full_house_and_a_failing_disk_are_bad() {
        let before = samples::status(&[(7, false)]);
        let mut after = Status { storage_restarts: 1, handlers: 1024, ..before.clone() };
        after.refusals[1].count = 4;
        let events = between(&before, &after);
        assert_eq!(events, [Event::StorageRestarted(1), Event::Full(1024), Event::DiskFailed(4)]);
        assert!(events.iter().all(Event::is_bad));
        assert_eq!(between(&after, &Status { handlers: 1023, ..after.clone() }), [Event::NotFull]);
        let restarted = Status { uptime_seconds: 0.1, ..before.clone() };
        assert_eq!(between(&before, &restarted), [Event::Restarted]);
    }
}

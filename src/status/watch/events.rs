//! The events that follow from the difference of two statuses. The server keeps no list of events.

use crate::lottery::AgencyId;
use crate::lottery::agency_id::list;
use crate::protocol::status::{Refusals, Status};
use crate::status::text::{counted, grouped};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) text: String,
    /// Whether an operator should look at the server.
    pub(crate) is_bad: bool,
}

impl Event {
    pub(crate) fn good(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_bad: false }
    }

    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_bad: true }
    }
}

pub(crate) fn between(before: &Status, after: &Status) -> Vec<Event> {
    let mut events = Vec::new();
    let is_other = is_other_run(before, after);
    let restarts = after.storage_restarts;
    if is_other {
        events.push(Event::bad("the server was started again"));
    } else if restarts > before.storage_restarts {
        events.push(Event::bad(format!("storage died and was started again, restart {restarts}")));
    }
    let ended = newly_ended(before, after);
    if let Some(named) = list(ended.iter().copied()) {
        let (agencies, have) = if ended.len() == 1 { ("agency", "has") } else { ("agencies", "have") };
        events.push(Event::good(format!("{agencies} {named} {have} ended")));
    }
    if let (None, Some(draw)) = (&before.draw, &after.draw) {
        let seal = draw.seal.map_or_else(String::new, |seal| format!(", {seal}"));
        events.push(Event::good(format!("the draw was made: winning number {}{seal}", draw.winning_number)));
    }
    match (is_full(before), is_full(after)) {
        (false, true) => {
            let limit = grouped(after.max_clients);
            events.push(Event::bad(format!("all {limit} connections are in use, others wait")));
        }
        (true, false) => events.push(Event::good("there are free connections again")),
        _ => {}
    }
    let failed = disk_failures(after).saturating_sub(disk_failures(before));
    if failed > 0 && !is_other {
        let requests = counted(failed, "request was", "requests were");
        events.push(Event::bad(format!("the disk failed: {requests} refused")));
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
    let is_of_disk = |refusals: &&Refusals| refusals.by == "storage" && refusals.reason == "disk";
    status.refusals.iter().find(is_of_disk).map_or(0, |refusals| refusals.count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples::status_at;

    #[test]
    fn many_agencies_that_end_are_one_event() {
        let [before, after] = [false, true].map(|ended| status_at(1.0, &[(0, ended); 500]));
        let event = Event::good("agencies 1, 2, 3, 4, 5 and 495 more have ended");
        assert_eq!(between(&before, &after), [event]);
        assert_eq!(between(&after, &after), []);
    }

    #[test]
    fn restarts_full_handlers_and_a_failing_disk_are_bad() {
        let before = status_at(1.0, &[(7, false)]);
        let mut after = Status { storage_restarts: 1, handlers: 1024, ..before.clone() };
        after.refusals[1].count = 1;
        let expected = [
            "storage died and was started again, restart 1",
            "all 1,024 connections are in use, others wait",
            "the disk failed: 1 request was refused",
        ];
        assert_eq!(between(&before, &after), expected.map(Event::bad));
        let free = Status { handlers: 1023, ..after.clone() };
        assert_eq!(between(&after, &free), [Event::good("there are free connections again")]);
        let restarted = Status { uptime_seconds: 0.1, ..before.clone() };
        assert_eq!(between(&before, &restarted), [Event::bad("the server was started again")]);
    }
}

//! The statuses of the last seconds, the rates between them, and the latest events.
//!
//! Rates use the server's uptime as their clock, so a delay of an answer does not change them.

use std::collections::VecDeque;
use std::iter::zip;

use chrono::{DateTime, Local};

use super::events::{Event, between, is_other_run};
use crate::protocol::status::{AgencyStatus, Status, Summary};

/// The time over which rates are taken, in seconds.
const WINDOW: f64 = 5.0;
/// The most events that are kept.
const KEPT: usize = 100;

#[derive(Default)]
pub(crate) struct History {
    /// The server's address, as the user gave it.
    pub(crate) address: String,
    /// Since when the server does not answer, and why.
    pub(crate) silent: Option<(DateTime<Local>, String)>,
    /// The statuses of the window, the latest one last. All are of one run of the server.
    statuses: VecDeque<Status>,
    /// For each agency the uptime at which its number of bets last changed.
    changed: Vec<f64>,
    /// The events with their times, newest first.
    pub(crate) events: VecDeque<(DateTime<Local>, Event)>,
}

/// An agency, and what it did in the window.
pub(crate) struct Progress<'a> {
    pub(crate) agency: &'a AgencyStatus,
    /// Bets per second.
    pub(crate) rate: Option<f64>,
    /// For how many seconds it has stored no bet.
    pub(crate) idle: f64,
}

impl History {
    pub(crate) fn new(address: &str) -> Self {
        Self { address: address.to_owned(), ..Self::default() }
    }

    /// Adds an answer. Returns the events that follow from it.
    pub(crate) fn add(&mut self, when: DateTime<Local>, answer: Result<Status, String>) -> Vec<Event> {
        let events = match answer {
            Ok(status) => self.answered(status),
            Err(error) => self.lost(when, error),
        };
        for event in &events {
            self.events.push_front((when, event.clone()));
        }
        self.events.truncate(KEPT);
        events
    }

    fn answered(&mut self, status: Status) -> Vec<Event> {
        let was_silent = self.silent.take().is_some();
        let events = match self.latest() {
            None => vec![Event::good("the server answers")],
            Some(before) => {
                let again = was_silent.then(|| Event::good("the server answers again"));
                again.into_iter().chain(between(before, &status)).collect()
            }
        };
        self.keep(status);
        events
    }

    fn lost(&mut self, when: DateTime<Local>, error: String) -> Vec<Event> {
        if let Some((_, reason)) = &mut self.silent {
            *reason = error;
            return Vec::new();
        }
        let event = Event::bad(format!("{} does not answer: {error}", self.address));
        self.silent = Some((when, error));
        vec![event]
    }

    fn keep(&mut self, status: Status) {
        let now = status.uptime_seconds;
        match self.statuses.back() {
            Some(before) if !is_other_run(before, &status) => {
                let counts = zip(&before.per_agency, &status.per_agency);
                for (changed, (before, after)) in zip(&mut self.changed, counts) {
                    if after.bets != before.bets {
                        *changed = now;
                    }
                }
            }
            _ => {
                self.statuses.clear();
                self.changed = vec![now; status.per_agency.len()];
            }
        }
        self.statuses.push_back(status);
        while self.statuses.get(1).is_some_and(|second| now - second.uptime_seconds >= WINDOW) {
            self.statuses.pop_front();
        }
    }

    pub(crate) fn latest(&self) -> Option<&Status> {
        self.statuses.back()
    }

    /// Returns all agencies, in the order of their numbers.
    pub(crate) fn agencies(&self) -> Vec<Progress<'_>> {
        let Some((first, last)) = self.window() else { return Vec::new() };
        let agencies = zip(zip(&first.per_agency, &last.per_agency), &self.changed);
        agencies
            .map(|((before, agency), changed)| Progress {
                agency,
                rate: self.per_second(agency.bets.saturating_sub(before.bets)),
                idle: last.uptime_seconds - changed,
            })
            .collect()
    }

    /// Returns the bets per second.
    pub(crate) fn bet_rate(&self) -> Option<f64> {
        let (first, last) = self.window()?;
        self.per_second(last.bets.saturating_sub(first.bets))
    }

    /// Returns the groups per second.
    pub(crate) fn group_rate(&self) -> Option<f64> {
        self.per_second(self.in_window(|status| status.group_bets).count)
    }

    /// Returns count and sum of the values that were observed in the window.
    pub(crate) fn in_window(&self, of: fn(&Status) -> Summary) -> Summary {
        self.window().map_or_else(Summary::default, |(first, last)| of(last).since(&of(first)))
    }

    /// Returns the first and the last status of the window.
    fn window(&self) -> Option<(&Status, &Status)> {
        self.statuses.front().zip(self.statuses.back())
    }

    /// Returns the rate of what was counted in the window, and `None` while the server does not answer.
    #[expect(clippy::cast_precision_loss, reason = "a rate is not that precise")]
    fn per_second(&self, count: u64) -> Option<f64> {
        let (first, last) = self.window().filter(|_| self.silent.is_none())?;
        let seconds = last.uptime_seconds - first.uptime_seconds;
        (seconds > 0.0).then(|| count as f64 / seconds)
    }

    #[cfg(test)]
    pub(crate) fn of(statuses: impl IntoIterator<Item = Status>) -> Self {
        let mut history = Self::new("here:12345");
        for status in statuses {
            history.add(Local::now(), Ok(status));
        }
        history
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples::status_at as at;

    /// The rate and the idle time of each agency.
    fn agencies(history: &History) -> Vec<(Option<f64>, f64)> {
        history.agencies().iter().map(|progress| (progress.rate, progress.idle)).collect()
    }

    #[test]
    fn rates_are_those_of_the_last_seconds() {
        let mut history = History::of([at(1.0, &[(0, false), (0, false)])]);
        assert_eq!((history.bet_rate(), &*agencies(&history)), (None, &[(None, 0.0); 2][..]));
        for second in 2..=20_u32 {
            let bets = u64::from(second.min(15)) * 10;
            history.add(Local::now(), Ok(at(second.into(), &[(bets, false), (7, false)])));
        }
        assert_eq!(history.bet_rate(), Some(0.0));
        assert_eq!(agencies(&history), [(Some(0.0), 5.0), (Some(0.0), 18.0)]);
        history.add(Local::now(), Ok(at(20.5, &[(205, false), (7, false)])));
        assert_eq!(agencies(&history)[0], (Some(10.0), 0.0));
    }

    #[test]
    fn another_server_begins_another_history() {
        let mut history = History::of([at(100.0, &[(50, false)]), at(101.0, &[(60, false)])]);
        assert_eq!(history.bet_rate(), Some(10.0));
        let events = history.add(Local::now(), Ok(at(1.0, &[(60, false)])));
        assert_eq!(events, [Event::bad("the server was started again")]);
        assert_eq!(agencies(&history), [(None, 0.0)]);
        assert_eq!(history.events.len(), 2);
    }

    #[test]
    fn loss_and_return_of_a_server_are_one_event_each_and_the_newest_events_are_kept() {
        let mut history = History::new("here:1");
        let mut add = |is_up: bool| {
            let status = is_up.then(|| at(1.0, &[(1, false)]));
            history.add(Local::now(), status.ok_or("late".to_owned()))
        };
        let [lost, back] =
            [Event::bad("here:1 does not answer: late"), Event::good("the server answers again")];
        let first = [add(false), add(false), add(true), add(true)].concat();
        assert_eq!(first, [lost.clone(), Event::good("the server answers")]);
        for _ in 0..KEPT {
            assert_eq!([add(false), add(true)].concat(), [lost.clone(), back.clone()]);
        }
        assert_eq!((history.events.len(), &history.events[0].1), (KEPT, &back));
    }
}

//! What a watcher has seen of a server lately: how fast it goes, and who stands still. Time is the server's own, its
//! uptime, so that no delay on the way changes a rate.

use std::collections::VecDeque;

use crate::protocol::histogram::Histogram;
use crate::protocol::status::Status;

/// Rates are those of so many seconds.
const WINDOW: f64 = 5.0;

/// The last status, and what came before it as far as it matters.
#[derive(Debug, Default)]
pub struct History {
    latest: Option<Status>,
    /// The oldest first; the latest is the last.
    points: VecDeque<Point>,
    /// The uptime at which each agency's count was first seen as it is.
    changed: Vec<f64>,
}

#[derive(Debug)]
struct Point {
    uptime: f64,
    bets: u64,
    per_agency: Vec<u64>,
    group_bets: Histogram,
    sync_seconds: Histogram,
}

impl History {
    /// A status came.
    pub fn take(&mut self, status: Status) {
        if self.latest.as_ref().is_some_and(|before| is_another(before, &status)) {
            *self = Self::default();
        }
        let now = status.uptime_seconds;
        let point = Point {
            uptime: now,
            bets: status.bets,
            per_agency: status.per_agency.iter().map(|agency| agency.bets).collect(),
            group_bets: status.group_bets.clone(),
            sync_seconds: status.sync_seconds.clone(),
        };
        self.note_changes(&point);
        self.points.push_back(point);
        while self.points.get(1).is_some_and(|second| now - second.uptime >= WINDOW) {
            self.points.pop_front();
        }
        self.latest = Some(status);
    }

    fn note_changes(&mut self, point: &Point) {
        self.changed.resize(point.per_agency.len(), point.uptime);
        let Some(before) = self.points.back() else { return };
        let counts = point.per_agency.iter().zip(&before.per_agency);
        for (changed, (now, then)) in self.changed.iter_mut().zip(counts) {
            if now != then {
                *changed = point.uptime;
            }
        }
    }

    /// The last status.
    #[must_use]
    pub fn latest(&self) -> Option<&Status> {
        self.latest.as_ref()
    }

    /// Bets a second.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        self.per_second(|first, last| last.bets.saturating_sub(first.bets))
    }

    /// Bets a second of the agency at that place.
    #[must_use]
    pub fn rate_of(&self, place: usize) -> Option<f64> {
        let bets = |point: &Point| point.per_agency.get(place).copied().unwrap_or(0);
        self.per_second(|first, last| bets(last).saturating_sub(bets(first)))
    }

    /// For how many seconds the agency at that place has brought nothing.
    #[must_use]
    pub fn idle(&self, place: usize) -> f64 {
        let changed = self.changed.get(place).copied();
        self.points.back().zip(changed).map_or(0.0, |(last, changed)| last.uptime - changed)
    }

    /// Groups a second.
    #[must_use]
    pub fn groups(&self) -> Option<f64> {
        self.per_second(|first, last| last.group_bets.since(&first.group_bets).count())
    }

    /// The groups of the window, by their bets.
    #[must_use]
    pub fn group_bets(&self) -> Histogram {
        self.in_window(|point| &point.group_bets)
    }

    /// The syncs of the window, by their seconds.
    #[must_use]
    pub fn sync_seconds(&self) -> Histogram {
        self.in_window(|point| &point.sync_seconds)
    }

    fn in_window(&self, of: impl Fn(&Point) -> &Histogram) -> Histogram {
        let ends = self.points.front().zip(self.points.back());
        ends.map_or_else(Histogram::default, |(first, last)| of(last).since(of(first)))
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate is not that precise")]
    fn per_second(&self, count: impl Fn(&Point, &Point) -> u64) -> Option<f64> {
        let (first, last) = self.points.front().zip(self.points.back())?;
        let seconds = last.uptime - first.uptime;
        (seconds > 0.0).then(|| count(first, last) as f64 / seconds)
    }
}

/// Whether another server answers than the one before: it was started later, or has another contest.
#[must_use]
pub fn is_another(before: &Status, after: &Status) -> bool {
    after.uptime_seconds < before.uptime_seconds || after.bets < before.bets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples;

    fn at(uptime_seconds: f64, agencies: &[(u64, bool)]) -> Status {
        Status { uptime_seconds, ..samples::status(agencies) }
    }

    #[test]
    fn rates_are_those_of_the_last_seconds() {
        let mut history = History::default();
        history.take(at(1.0, &[(0, false), (0, false)]));
        assert_eq!((history.rate(), history.rate_of(0)), (None, None));
        for second in 2..=20_u32 {
            let bets = u64::from(second.min(15)) * 10;
            history.take(at(second.into(), &[(bets, false), (7, false)]));
        }
        assert_eq!(
            (history.rate(), history.rate_of(0), history.rate_of(1)),
            (Some(0.0), Some(0.0), Some(0.0))
        );
        assert_eq!((history.idle(0), history.idle(1)), (5.0, 18.0));
        history.take(at(20.5, &[(205, false), (7, false)]));
        assert_eq!((history.rate_of(0), history.idle(0)), (Some(10.0), 0.0));
    }

    #[test]
    fn another_server_begins_another_history() {
        let mut history = History::default();
        history.take(at(100.0, &[(50, false)]));
        history.take(at(101.0, &[(60, false)]));
        assert_eq!(history.rate(), Some(10.0));
        history.take(at(1.0, &[(60, false)]));
        assert_eq!((history.rate(), history.idle(0)), (None, 0.0));
    }

    #[test]
    fn groups_and_syncs_are_those_since_the_window_began() {
        let mut history = History::default();
        let first = at(1.0, &[(8, false)]);
        let mut second = at(2.0, &[(13, false)]);
        second.group_bets.observe(5.0);
        second.sync_seconds.observe(0.004);
        history.take(first);
        history.take(second);
        assert_eq!((history.groups(), history.group_bets().mean()), (Some(1.0), Some(5.0)));
        assert_eq!(history.sync_seconds().bound_of(99), Some(0.01));
    }
}

//! The output without a terminal: a line for each event, and at most one line a second for the contest, if it has changed.

use std::fmt::Write as _;

use chrono::{DateTime, Local, TimeDelta};

use super::events::Event;
use super::history::History;
use crate::protocol::status::Status;
use crate::status::table::draw_of;
use crate::status::text::{counted, grouped, rate, short_time};

/// The time between two lines about the contest.
const EVERY: TimeDelta = TimeDelta::milliseconds(950);

/// The state of a contest, without what changes with time alone: bets, ended agencies, draw, restarts of storage.
type State = (u64, u16, bool, u64);

#[derive(Default)]
pub(crate) struct Lines {
    /// The time of the last line about the contest, and the state that it showed.
    last: Option<(DateTime<Local>, State)>,
}

impl Lines {
    /// Returns the lines that follow from an answer: the events, and the contest if it has changed.
    pub(crate) fn describe(&mut self, history: &History, events: &[Event], now: DateTime<Local>) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let mut line = |line: &str| writeln!(text, "{} {line}", now.format("%Y-%m-%d %H:%M:%S")).ok();
        for event in events {
            line(&event.text);
        }
        if let Some(status) = history.latest().filter(|_| history.silent.is_none()) {
            let state = (status.bets, status.ended, status.drawn, status.storage_restarts);
            if self.last.is_none_or(|(at, last)| now - at >= EVERY && last != state) {
                line(&contest(history, status));
                self.last = Some((now, state));
            }
        }
        text
    }
}

fn contest(history: &History, status: &Status) -> String {
    let mut parts = vec![
        counted(status.bets, "bet", "bets"),
        format!("{}/s", rate(history.bet_rate().unwrap_or(0.0))),
        part_of(status.ended, status.agencies, "agency ended", "agencies ended"),
        part_of(status.clients(), status.max_clients, "handler", "handlers"),
        format!("{} groups/s", rate(history.group_rate().unwrap_or(0.0))),
    ];
    let sync = history.in_window(|status| status.sync_seconds).mean();
    parts.extend(sync.map(|mean| format!("sync {}", short_time(mean))));
    parts.push(format!("draw: {}", draw_of(status)));
    parts.join(", ")
}

fn part_of(part: impl Into<u64>, whole: impl Into<u64>, one: &str, several: &str) -> String {
    format!("{} of {}", grouped(part), counted(whole.into(), one, several))
}

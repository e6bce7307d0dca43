//! The output without a terminal: a line for each event, and at most one line a second for the contest, if it has changed.

use std::io::{self, Write};

use chrono::{DateTime, Local, TimeDelta};

use super::events::Event;
use super::history::History;
use crate::protocol::status::Status;
use crate::status::table::draw_of;
use crate::status::text::{counted, grouped, rate, short_time};

/// The time between two lines about the contest.
const EVERY: TimeDelta = TimeDelta::milliseconds(950);

/// Writes the lines. Holds the time of the last line about the contest, and the state that it showed.
#[derive(Default)]
pub(crate) struct Lines {
    last: Option<(DateTime<Local>, Progress)>,
}

impl Lines {
    /// Write the events, and the contest if it has changed.
    pub(crate) fn write(
        &mut self,
        out: &mut impl Write,
        history: &History,
        events: &[Event],
        now: DateTime<Local>,
    ) -> io::Result<()> {
        let time = now.format("%Y-%m-%d %H:%M:%S");
        for event in events {
            writeln!(out, "{time} {}", event.text)?;
        }
        let Some(status) = history.latest().filter(|_| history.silent.is_none()) else { return Ok(()) };
        let progress = (status.bets, status.ended, status.drawn, status.storage_restarts);
        if self.last.as_ref().is_none_or(|(at, last)| now - *at >= EVERY && *last != progress) {
            writeln!(out, "{time} {}", contest(history, status))?;
            self.last = Some((now, progress));
        }
        Ok(())
    }
}

/// The state of a contest, without what changes with time alone: bets, ended agencies, draw, restarts of storage.
type Progress = (u64, u16, bool, u64);

fn contest(history: &History, status: &Status) -> String {
    let mut parts = vec![
        counted(status.bets, "bet", "bets"),
        format!("{}/s", rate(history.rate().unwrap_or(0.0))),
        part_of(status.ended, status.agencies, "agency ended", "agencies ended"),
        part_of(status.clients(), status.max_clients, "handler", "handlers"),
        format!("{} groups/s", rate(history.groups().unwrap_or(0.0))),
    ];
    parts.extend(history.sync_seconds().mean().map(|mean| format!("sync {}", short_time(mean))));
    parts.push(format!("draw: {}", draw_of(status)));
    parts.join(", ")
}

fn part_of(part: impl Into<u64>, whole: impl Into<u64>, one: &str, several: &str) -> String {
    format!("{} of {}", grouped(part), counted(whole.into(), one, several))
}

//! What a watcher knows at present: the server's history, whether it answers, and what happened. Pure: how it is shown
//! is the view's affair.

use std::collections::VecDeque;

use chrono::{DateTime, Local};

use super::events::{Event, between};
use super::history::History;
use crate::protocol::status::Status;

/// As many events as are kept.
const KEPT: usize = 100;

/// What is known.
#[derive(Debug)]
pub struct Model {
    /// Where the server is, as it was asked for.
    pub address: String,
    /// What was seen of it.
    pub history: History,
    /// Why it does not answer, and since when, if it does not.
    pub silent: Option<(DateTime<Local>, String)>,
    /// When it answered last.
    pub answered: Option<DateTime<Local>>,
    events: VecDeque<(DateTime<Local>, Event)>,
}

impl Model {
    /// Nothing is known yet of the server at that address.
    #[must_use]
    pub fn new(address: &str) -> Self {
        let address = address.to_owned();
        Self { address, history: History::default(), silent: None, answered: None, events: VecDeque::new() }
    }

    /// The events, the newest first.
    pub fn events(&self) -> impl Iterator<Item = &(DateTime<Local>, Event)> {
        self.events.iter()
    }

    /// The server was asked. Returns what is new.
    pub fn take(&mut self, when: DateTime<Local>, answer: Result<Status, String>) -> Vec<Event> {
        let events = match answer {
            Ok(status) => self.answered(when, status),
            Err(error) => self.lost(when, error),
        };
        for event in &events {
            self.events.push_front((when, event.clone()));
        }
        self.events.truncate(KEPT);
        events
    }

    fn answered(&mut self, when: DateTime<Local>, status: Status) -> Vec<Event> {
        let mut events = Vec::new();
        let was_silent = self.silent.take().is_some();
        match self.history.latest() {
            None => events.push(Event::Found),
            Some(before) => {
                if was_silent {
                    events.push(Event::Back);
                }
                events.extend(between(before, &status));
            }
        }
        self.history.take(status);
        self.answered = Some(when);
        events
    }

    fn lost(&mut self, when: DateTime<Local>, error: String) -> Vec<Event> {
        if let Some((_, reason)) = &mut self.silent {
            *reason = error;
            return Vec::new();
        }
        self.silent = Some((when, error.clone()));
        vec![Event::Lost(error)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples;

    #[test]
    fn a_server_that_goes_and_comes_back_is_told_of_once_each() {
        let mut model = Model::new("here:1");
        let now = Local::now();
        let mut take = |answer: Result<Status, String>| model.take(now, answer);
        let status = || Ok(samples::status(&[(1, false)]));
        let refused = || Err("refused".to_owned());
        assert_eq!(take(refused()), [Event::Lost("refused".to_owned())]);
        assert_eq!(take(refused()), []);
        assert_eq!(take(status()), [Event::Found]);
        assert_eq!(take(status()), []);
        assert_eq!(take(Err("late".to_owned())), [Event::Lost("late".to_owned())]);
        assert_eq!(take(status()), [Event::Back]);
        let kept: Vec<&Event> = model.events().map(|(_, event)| event).collect();
        assert_eq!((kept.len(), kept[0]), (4, &Event::Back));
    }

    #[test]
    fn only_the_newest_events_are_kept() {
        let mut model = Model::new("here:1");
        for _ in 0..KEPT {
            model.take(Local::now(), Err("refused".to_owned()));
            model.take(Local::now(), Ok(samples::status(&[])));
        }
        assert_eq!(model.events().count(), KEPT);
    }
}

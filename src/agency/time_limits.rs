//! Limits of what the agency waits for. They are off unless configured.
//!
//! A thread of its own ends the agency: the main thread may be in a call that can't be interrupted, such as the look-up of a
//! name.

use std::process;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::error::AgencyError;
use crate::config::AgencyConfig;
use crate::logging;

/// What the agency tells the thread.
pub(super) enum Event {
    /// It tries to connect, unless it does already.
    Connecting,
    Connected,
    /// An attempt failed, for this reason.
    Failed(String),
    /// It waits for the result, unless it does already.
    AwaitsResult,
}

/// The way to the thread; none without limits.
#[derive(Default)]
pub(super) struct TimeLimits(Option<Sender<Event>>);

impl TimeLimits {
    /// Starts the thread, if there are limits. It removes the bar before it ends the agency.
    #[expect(clippy::disallowed_methods, reason = "as the module says")]
    pub(super) fn start(
        config: &AgencyConfig,
        remove_bar: impl Fn() + Send + 'static,
    ) -> Result<Self, AgencyError> {
        if config.connect_timeout.or(config.result_timeout).is_none() {
            return Ok(Self(None));
        }
        let (sender, events) = channel();
        let config = config.clone();
        let end_in_time = move || {
            if let Some(error) = first_exceeded(&config, &events) {
                remove_bar();
                error.log();
                process::exit(1);
            }
        };
        logging::spawn("limits", end_in_time).map_err(AgencyError::Thread)?;
        Ok(Self(Some(sender)))
    }

    pub(super) fn tell(&self, event: Event) {
        if let Some(sender) = &self.0 {
            // Without the thread, the process is about to end.
            sender.send(event).unwrap_or_default();
        }
    }
}

/// Returns why the agency must end once a wait has taken longer than its limit. None if the agency ends before.
fn first_exceeded(config: &AgencyConfig, events: &Receiver<Event>) -> Option<AgencyError> {
    let [mut connection, mut result]: [Option<Instant>; 2] = [None; 2];
    let mut failure = None;
    loop {
        let next = [connection, result].into_iter().flatten().min();
        let event = match next {
            Some(end) => events.recv_timeout(end.saturating_duration_since(Instant::now())),
            None => events.recv().map_err(RecvTimeoutError::from),
        };
        match event {
            Ok(Event::Connecting) => connection = connection.or_else(|| end_of(config.connect_timeout)),
            Ok(Event::Connected) => (connection, failure) = (None, None),
            Ok(Event::Failed(reason)) => failure = Some(reason),
            Ok(Event::AwaitsResult) => result = result.or_else(|| end_of(config.result_timeout)),
            Err(RecvTimeoutError::Timeout) if next == connection => {
                let (address, limit) = (config.server_address.clone(), config.connect_timeout?);
                let failure = failure.unwrap_or("nothing answers".to_owned());
                return Some(AgencyError::NoConnection { address, limit, failure });
            }
            Err(RecvTimeoutError::Timeout) => return config.result_timeout.map(AgencyError::NoResult),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// Returns when a wait that begins now must end.
fn end_of(limit: Option<Duration>) -> Option<Instant> {
    limit.and_then(|limit| Instant::now().checked_add(limit))
}

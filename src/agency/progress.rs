//! The agency's progress on a terminal: a bar below the lines of the log.

use std::cell::Cell;
use std::fmt;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{HumanFloatCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::logging;

/// How often the bar is drawn while nothing happens.
const TICK: Duration = Duration::from_millis(200);

const CONNECTING: &str = "{spinner} connecting{msg}";
const COMPARING: &str = "{bar:30} {human_pos} of {human_len} stored bets compared with the file{msg}";
const UPLOADING: &str = "{bar:30} {human_pos} of {prefix}{human_len} bets, {rate}{msg}";
const WAITING: &str = "{spinner} {human_pos} bets sent, waiting for the draw for {elapsed}{msg}";

pub(super) struct Progress {
    bar: ProgressBar,
    reconnections: Cell<u64>,
}

impl Progress {
    /// Shows nothing.
    pub(super) fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), reconnections: Cell::new(0) }
    }

    /// Shows the bar if standard error is a terminal, and lets the log write above it.
    pub(super) fn start() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::hidden();
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let above = bar.clone();
        logging::write_through(Box::new(move |write| above.suspend(write)));
        bar.set_style(style(CONNECTING));
        bar.enable_steady_tick(TICK);
        Self { bar, reconnections: Cell::new(0) }
    }

    /// Returns a function that removes the bar, from any thread.
    pub(super) fn end(&self) -> impl Fn() + Send + 'static {
        let bar = self.bar.clone();
        move || bar.finish_and_clear()
    }

    /// Shows the comparison of the `stored` bets with the file.
    pub(super) fn compares(&self, stored: u64) {
        self.bar.set_style(style(COMPARING));
        self.bar.set_position(0);
        self.bar.set_length(stored);
    }

    /// Shows how many bets are compared.
    pub(super) fn compared(&self, count: u64) {
        self.bar.set_position(count);
    }

    /// Shows the upload, of which the server already has `stored` bets.
    pub(super) fn uploads_from(&self, stored: u64) {
        self.bar.set_style(style(UPLOADING));
        self.bar.set_position(stored);
        // The rate counts only bets that this run sends.
        self.bar.reset_eta();
    }

    /// Shows that `stored` bets of `all` are acknowledged. `all` may be an estimate.
    pub(super) fn uploaded(&self, stored: u64, all: u64, is_exact: bool) {
        self.bar.set_length(all);
        let prefix = if is_exact { "" } else { "about " };
        if self.bar.prefix() != prefix {
            self.bar.set_prefix(prefix);
        }
        self.bar.set_position(stored);
    }

    /// Shows that the agency waits for the draw and that the server has `stored` bets.
    pub(super) fn waits(&self, stored: u64) {
        self.bar.set_position(stored);
        self.bar.set_style(style(WAITING));
        self.bar.reset_elapsed();
    }

    /// Counts a retry.
    pub(super) fn reconnecting(&self) {
        self.reconnections.update(|count| count + 1);
        self.bar.set_message(format!(", reconnections: {}", self.reconnections.get()));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    let rate = |state: &ProgressState, out: &mut dyn fmt::Write| {
        // Writing to a line of the bar does not fail.
        write!(out, "{} bets/s", HumanFloatCount(state.per_sec().round())).unwrap_or_default();
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("rate", rate)
}

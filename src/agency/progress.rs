//! What a person sees of the agency on a terminal: a bar below the lines of the log. Elsewhere there is none.

use std::cell::Cell;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{HumanFloatCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::logging;

/// How often it is drawn where nothing happens.
const TICK: Duration = Duration::from_millis(200);

const UPLOADING: &str = "{bar:30} {human_pos} of {prefix}{human_len} bets, {rate}{msg}";
const WAITING: &str = "{spinner} {human_pos} bets sent, waiting for the draw for {elapsed}{msg}";

/// How far the agency is.
#[derive(Debug)]
pub struct Progress {
    /// Hidden where standard error is no terminal.
    bar: ProgressBar,
    /// How often the connection was lost.
    lost: Cell<u64>,
}

impl Progress {
    /// Shows it if standard error is a terminal, and from then on has the log write above it.
    pub fn start() -> Self {
        let lost = Cell::new(0);
        if !std::io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden(), lost };
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let above = bar.clone();
        logging::write_through(Box::new(move |write| above.suspend(write)));
        bar.set_style(style("{spinner} connecting{msg}"));
        bar.enable_steady_tick(TICK);
        Self { bar, lost }
    }

    /// What takes it away, from any thread.
    pub fn end(&self) -> impl Fn() + Send + 'static {
        let bar = self.bar.clone();
        move || bar.finish_and_clear()
    }

    /// Whether somebody may see it: for callers that have to work for its values.
    pub fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Bets are sent from here on: the server has so many.
    pub fn uploads_from(&self, stored: u64) {
        self.bar.set_style(style(UPLOADING));
        self.bar.set_position(stored);
        // What was stored before was not sent just now.
        self.bar.reset_eta();
    }

    /// There are so many bets in all, or about so many.
    pub fn expects(&self, bets: u64, exactly: bool) {
        self.bar.set_length(bets);
        if self.bar.prefix().is_empty() == exactly {
            return;
        }
        self.bar.set_prefix(if exactly { "" } else { "about " });
    }

    /// So many bets are acknowledged.
    pub fn stored(&self, bets: u64) {
        self.bar.set_position(bets);
    }

    /// All that is left is to wait: the server has so many bets.
    pub fn waits(&self, stored: u64) {
        self.bar.set_position(stored);
        self.bar.set_style(style(WAITING));
        self.bar.reset_elapsed();
    }

    /// The connection was lost, or could not be had, and is tried again.
    pub fn lost(&self) {
        self.lost.set(self.lost.get() + 1);
        self.bar.set_message(format!(", reconnections: {}", self.lost.get()));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // A line that can't be written to is not drawn.
        write!(out, "{} bets/s", HumanFloatCount(state.per_sec().round())).unwrap_or_default();
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => style.with_key("rate", rate),
        Err(_) => ProgressStyle::default_bar(),
    }
}

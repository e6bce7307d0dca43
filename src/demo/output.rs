//! The demo's output: lines on standard output and, on a terminal, a progress bar.

use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressStyle};

pub(crate) struct Output {
    /// Draws nothing unless standard error is a terminal.
    bar: ProgressBar,
}

impl Output {
    pub(crate) fn new(bets: u64) -> Self {
        let bar = ProgressBar::new(bets);
        if let Ok(style) =
            ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} bets stored, {elapsed}")
        {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// Print a line above the bar.
    pub(crate) fn say(&self, line: &str) -> io::Result<()> {
        self.bar.suspend(|| writeln!(io::stdout(), "{line}"))
    }

    pub(crate) fn stored(&self, bets: u64) {
        self.bar.set_position(bets);
    }

    /// Remove the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

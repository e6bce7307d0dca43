//! What the demo shows: lines on standard output and, on a terminal, a bar of the bets that are stored.

use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// The place where the demo says how it is going.
pub struct Output {
    /// Draws nothing where standard error is no terminal.
    bar: ProgressBar,
}

impl Output {
    /// For a contest of that many bets.
    pub fn new(bets: u64) -> Self {
        let bar = ProgressBar::new(bets);
        if let Ok(style) =
            ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} bets stored, {elapsed}")
        {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// Prints a line.
    ///
    /// # Errors
    /// Standard output is gone.
    pub fn say(&self, line: &str) -> io::Result<()> {
        self.bar.suspend(|| writeln!(io::stdout(), "{line}"))
    }

    /// Shows how many bets are stored.
    pub fn stored(&self, bets: u64) {
        self.bar.set_position(bets);
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

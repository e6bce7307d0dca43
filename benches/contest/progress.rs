//! The progress: a bar on a terminal, otherwise a line for each group of rows.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// Written to standard error.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Shows nothing yet.
    pub fn new() -> Self {
        let bar = ProgressBar::no_length();
        if let Ok(style) = ProgressStyle::with_template("{prefix:>8} {bar:40} {pos} of {len} {msg}") {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// Begins a group of rows with so many runs.
    pub fn begin(&self, group: &str, runs: usize) {
        self.bar.set_length(runs as u64);
        self.bar.set_position(0);
        self.bar.set_prefix(group.to_owned());
        if !io::stderr().is_terminal() {
            // Standard error may be closed.
            writeln!(io::stderr(), "{group}: {runs} runs").ok();
        }
    }

    /// Begins a run.
    pub fn run(&self, what: &str) {
        self.bar.set_message(what.to_owned());
        self.bar.tick();
    }

    /// Ends a run.
    pub fn done(&self) {
        self.bar.inc(1);
    }

    /// Removes the bar.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

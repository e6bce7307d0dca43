//! How far the benchmark is: a bar on a terminal, a line for each group of rows elsewhere.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// Drawn on standard error.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Nothing is shown yet.
    pub fn new() -> Self {
        let bar = ProgressBar::no_length();
        if let Ok(style) = ProgressStyle::with_template("{prefix:>8} {bar:40} {pos} of {len} {msg}") {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// A group of rows begins, which takes so many runs.
    pub fn begin(&self, group: &str, runs: usize) {
        self.bar.set_length(runs as u64);
        self.bar.set_position(0);
        self.bar.set_prefix(group.to_owned());
        if !io::stderr().is_terminal() {
            // Where standard error is gone, nobody reads it.
            writeln!(io::stderr(), "{group}: {runs} runs").ok();
        }
    }

    /// The next run begins.
    pub fn run(&self, what: &str) {
        self.bar.set_message(what.to_owned());
        self.bar.tick();
    }

    /// It is over.
    pub fn done(&self) {
        self.bar.inc(1);
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

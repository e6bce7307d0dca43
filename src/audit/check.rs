//! `loteria check`: is every row valid, and is the state file consistent with the bets?

use std::fmt::Display;
use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressStyle};

use super::agreement::torn;
use super::files::Files;
use super::tally::Tally;
use super::{AuditError, Verdict};
use crate::logging::one_line;
use crate::lottery::AgencyId;
use crate::server::storage::contradictions::{all_ended, contradictions};
use crate::server::storage::recovery::Rules;
use crate::server::storage::row_reader::Line;
use crate::server::storage::state_file::State;
use crate::status::text::plural;

/// How many findings of a kind are listed; the others are counted.
const LISTED: usize = 100;

/// Reads the files, and writes what it finds to `out`.
///
/// # Errors
/// A file can't be read, or `out` takes no more.
pub fn run(files: &Files, configured: Rules, out: &mut dyn Write) -> Result<Verdict, AuditError> {
    let agencies = files.draw().map_or(configured.clients_amount, |draw| draw.agencies);
    let mut check = Check::new(files, agencies);
    let bar = Bar::new(files.length()?);
    check.read_rows(&bar)?;
    bar.take_away();
    check.look_at_state(configured);
    check.write(out).and_then(|()| out.flush()).map_err(AuditError::Write)?;
    Ok(Verdict::of(check.errors.count == 0))
}

/// Findings of a kind: the first ones, and how many there are.
#[derive(Default)]
struct Findings {
    listed: Vec<String>,
    count: u64,
}

impl Findings {
    fn add(&mut self, place: impl Display, finding: impl Display) {
        self.count += 1;
        if self.listed.len() < LISTED {
            self.listed.push(format!("{place}: {finding}"));
        }
    }
}

struct Check<'a> {
    files: &'a Files,
    agencies: u16,
    path: String,
    tally: Tally,
    /// What must not be.
    errors: Findings,
    /// What a server lives with, but somebody may want to know.
    notices: Findings,
}

impl<'a> Check<'a> {
    fn new(files: &'a Files, agencies: u16) -> Self {
        Self {
            files,
            agencies,
            path: one_line(&files.path.display()),
            tally: Tally::default(),
            errors: Findings::default(),
            notices: Findings::default(),
        }
    }

    fn read_rows(&mut self, bar: &Bar) -> Result<(), AuditError> {
        let mut rows = self.files.rows();
        loop {
            match rows.next_line().map_err(|error| self.files.unreadable(error))? {
                Line::Row(row) => {
                    let agency = row.agency;
                    self.tally.add(agency, false);
                    if agency.get() > self.agencies {
                        self.stranger_in(rows.line(), agency);
                    }
                }
                Line::Damaged(error) => self.error_in(rows.line(), error),
                Line::End { torn: 0 } => return Ok(()),
                Line::End { torn } => {
                    self.torn(torn);
                    return Ok(());
                }
            }
            bar.reached(rows.offset());
        }
    }

    /// A last row that is not whole, of so many bytes.
    fn torn(&mut self, bytes: u64) {
        let finding = torn(bytes, self.files.draw());
        match self.files.draw() {
            Some(_) => self.errors.add(format_args!("{}: error", self.path), finding),
            None => self.notices.add(format_args!("{}: notice", self.path), finding),
        }
    }

    /// One that has no part may have many rows, and would hide what else is wrong: its first one is listed.
    fn stranger_in(&mut self, line: u64, agency: AgencyId) {
        if self.tally.of(agency).bets == 1 {
            let origin = if self.files.draw().is_some() { "the draw" } else { "CLIENTS_AMOUNT" };
            let last = self.agencies;
            let error =
                format_args!("agency {agency} does not take part: only 1 to {last} do, says {origin}");
            self.error_in(line, error);
        } else {
            self.errors.count += 1;
        }
    }

    fn error_in(&mut self, line: u64, error: impl Display) {
        self.errors.add(format_args!("{}:{line}: error", self.path), error);
    }

    fn look_at_state(&mut self, configured: Rules) {
        let path = one_line(&self.files.state_path.display());
        let state = match &self.files.state {
            Ok(Some(state)) => state,
            Ok(None) => return,
            Err(error) => {
                self.errors.add(format_args!("{path}: error"), error);
                return;
            }
        };
        for contradiction in contradictions(state, self.agencies) {
            self.errors.add(format_args!("{path}: error"), contradiction);
        }
        for notice in remarks(state, configured) {
            self.notices.add(format_args!("{path}: notice"), notice);
        }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for (findings, what) in [(&self.errors, "errors"), (&self.notices, "notices")] {
            findings.listed.iter().try_for_each(|finding| writeln!(out, "{finding}"))?;
            let more = findings.count - findings.listed.len() as u64;
            if more > 0 {
                writeln!(out, "and {more} more {what}")?;
            }
        }
        let (bets, agencies) = (self.tally.all().bets, self.tally.with_bets().count() as u64);
        writeln!(
            out,
            "{}: {bets} {} of {agencies} {}; {}; errors: {}, notices: {}",
            self.path,
            plural(bets, "bet", "bets"),
            plural(agencies, "agency", "agencies"),
            self.state_in_short(),
            self.errors.count,
            self.notices.count,
        )
    }

    fn state_in_short(&self) -> String {
        match &self.files.state {
            Err(_) => "the state file can't be used".to_owned(),
            Ok(None) => "no state file: no agency has ended, or it is missing".to_owned(),
            Ok(Some(State { ended, draw: None, .. })) => {
                let noun = plural(self.agencies.into(), "agency", "agencies");
                format!("{} of {} {noun} (CLIENTS_AMOUNT) ended", ended.len(), self.agencies)
            }
            Ok(Some(State { draw: Some(draw), .. })) => {
                let noun = plural(draw.agencies.into(), "agency", "agencies");
                format!("{} was drawn of {} {noun}, {}", draw.winning_number, draw.agencies, draw.at)
            }
        }
    }
}

/// What a state file says that is no error.
fn remarks(state: &State, configured: Rules) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(draw) = &state.draw {
        let drawn = Rules { clients_amount: draw.agencies, winner_number: draw.winning_number };
        if drawn != configured {
            remarks.push(format!(
                "the draw holds, not the configuration's CLIENTS_AMOUNT {} and LOTTERY_WINNER_NUMBER {}",
                configured.clients_amount, configured.winner_number
            ));
        }
    } else if all_ended(state, configured.clients_amount) {
        remarks.push(format!(
            "all agencies from 1 to CLIENTS_AMOUNT, which is {}, have ended; a server that is started makes the draw",
            configured.clients_amount
        ));
    }
    remarks
}

/// How much is read before the bar moves, in bytes.
const BAR_STEP: u64 = 1 << 20;

/// How far it is, on a terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new(length: u64) -> Self {
        let bar = ProgressBar::new(length);
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {bytes} of {total_bytes}, {elapsed}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    fn reached(&self, offset: u64) {
        if self.0.position().abs_diff(offset) >= BAR_STEP {
            self.0.set_position(offset);
        }
    }

    fn take_away(&self) {
        self.0.finish_and_clear();
    }
}

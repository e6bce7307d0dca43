//! Reads the bets and the state file, counts the bets, and collects errors and notices.

use std::fmt::Display;
use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressStyle};

use super::files::{AuditError, Files};
use super::tally::Tally;
use crate::lottery::row::Row;
use crate::lottery::{AgencyId, Seal};
use crate::server::storage::Rules;
use crate::server::storage::row_reader::Line;
use crate::server::storage::state_file::State;
use crate::status::text::plural;

/// How many errors are listed, and how many notices. All are counted.
const LISTED: usize = 100;
/// How much is read before the bar moves, in bytes.
const BAR_STEP: u64 = 1 << 20;

pub(crate) struct Report<'a> {
    files: &'a Files,
    /// How many agencies take part: those of the draw, or as configured.
    agencies: u16,
    /// The number that wins: as asked, as drawn, or as configured.
    number: u32,
    pub(crate) tally: Tally,
    /// The draw's seal, if the file agrees with it.
    seal: Option<Seal>,
    errors: Findings,
    /// What is allowed, but unusual.
    notices: Findings,
}

/// The first findings of a kind, and how many there are.
struct Findings {
    kind: &'static str,
    listed: Vec<String>,
    count: u64,
}

impl Findings {
    fn new(kind: &'static str) -> Self {
        Self { kind, listed: Vec::new(), count: 0 }
    }

    fn add(&mut self, place: impl Display, finding: impl Display) {
        self.count += 1;
        if self.listed.len() < LISTED {
            self.listed.push(format!("{place}: {}: {finding}", self.kind));
        }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.listed.iter().try_for_each(|finding| writeln!(out, "{finding}"))?;
        match self.count - self.listed.len() as u64 {
            0 => Ok(()),
            more => writeln!(out, "and {more} more {}s", self.kind),
        }
    }
}

impl<'a> Report<'a> {
    /// Reads the files. `number` overrides the winning number; `see` gets each winning row.
    pub(crate) fn read(
        files: &'a Files,
        configured: Rules,
        number: Option<u32>,
        bar: &ProgressBar,
        see: impl FnMut(&Row<'_>) -> io::Result<()>,
    ) -> Result<Self, AuditError> {
        let drawn = files.draw();
        let mut report = Self {
            files,
            agencies: drawn.map_or(configured.clients_amount, |draw| draw.agencies),
            number: number.or(drawn.map(|draw| draw.winning_number)).unwrap_or(configured.winner_number),
            tally: Tally::default(),
            seal: None,
            errors: Findings::new("error"),
            notices: Findings::new("notice"),
        };
        report.read_rows(bar, see)?;
        bar.finish_and_clear();
        report.check_state(configured);
        Ok(report)
    }

    fn read_rows(
        &mut self,
        bar: &ProgressBar,
        mut see: impl FnMut(&Row<'_>) -> io::Result<()>,
    ) -> Result<(), AuditError> {
        let mut rows = self.files.rows();
        loop {
            match rows.next_line().map_err(|error| self.files.unreadable(error))? {
                Line::Row(row) => {
                    let wins = row.number == self.number;
                    if wins {
                        see(&row)?;
                    }
                    let agency = row.agency;
                    self.tally.add(&row, wins);
                    self.check_agency(agency, rows.line());
                }
                Line::Damaged(error) => self.error_in(rows.line(), error),
                Line::End { torn } => {
                    self.check_end(torn);
                    self.check_seal(rows.source().hasher.seal(self.tally.all().bets));
                    return Ok(());
                }
            }
            if bar.position().abs_diff(rows.offset()) >= BAR_STEP {
                bar.set_position(rows.offset());
            }
        }
    }

    fn error_in(&mut self, line: u64, error: impl Display) {
        self.errors.add(format_args!("{}:{line}", self.files.name()), error);
    }

    /// An agency that takes no part is an error, in the line of its first bet.
    fn check_agency(&mut self, agency: AgencyId, line: u64) {
        let last = self.agencies;
        if agency.get() > last && self.tally.of(agency).bets == 1 {
            let source = if self.files.draw().is_some() { "the draw" } else { "CLIENTS_AMOUNT" };
            let error =
                format_args!("agency {agency} does not take part: only 1 to {last} do, says {source}");
            self.error_in(line, error);
        }
    }

    fn check_end(&mut self, torn: u64) {
        if torn == 0 {
            return;
        }
        let (findings, reason) = match self.files.draw() {
            Some(_) => (&mut self.errors, "nothing is written after the draw, so a stored bet was damaged"),
            None => (&mut self.notices, "a server is writing them, or will cut them off when it starts"),
        };
        let finding = format_args!("the last {torn} bytes are not a whole row, and not counted: {reason}");
        findings.add(self.files.name(), finding);
    }

    /// After the draw, the file must hold what it held then.
    fn check_seal(&mut self, found: Seal) {
        match self.files.draw().map(|draw| draw.seal) {
            Some(Some(sealed)) if sealed != found => {
                let error = format_args!(
                    "this is not the file of the draw: it has {found}, but the draw was made of {sealed}"
                );
                self.errors.add(self.files.name(), error);
            }
            Some(None) => {
                let notice = "the draw has no seal: it cannot be told whether bets are missing";
                self.notices.add(self.files.state_name(), notice);
            }
            sealed => self.seal = sealed.flatten(),
        }
    }

    fn check_state(&mut self, configured: Rules) {
        let path = self.files.state_name();
        let state = match &self.files.state {
            Ok(Some(state)) => state,
            Ok(None) => return,
            Err(damage) => return self.errors.add(path, damage),
        };
        for contradiction in state.contradictions(self.agencies) {
            self.errors.add(&path, contradiction);
        }
        for disagreement in state.disagreements(|agency| self.tally.of(agency).stored()) {
            self.errors.add(self.files.name(), disagreement);
        }
        let Rules { clients_amount, winner_number } = configured;
        let Some(draw) = &state.draw else {
            if state.all_ended(clients_amount) {
                let finding = format_args!(
                    "all agencies from 1 to CLIENTS_AMOUNT, which is {clients_amount}, have ended; a server that is \
                     started makes the draw"
                );
                self.notices.add(path, finding);
            }
            return;
        };
        let drawn = draw.winning_number;
        if drawn != self.number {
            let error = format_args!("the winning number of the draw is {drawn}, not {}", self.number);
            self.errors.add(&path, error);
        }
        let agencies = (draw.agencies != clients_amount).then(|| format!("CLIENTS_AMOUNT {clients_amount}"));
        let number = (drawn != winner_number).then(|| format!("LOTTERY_WINNER_NUMBER {winner_number}"));
        let differing: Vec<String> = agencies.into_iter().chain(number).collect();
        if !differing.is_empty() {
            let differing = differing.join(" and ");
            self.notices.add(path, format_args!("the draw holds, not the configuration's {differing}"));
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.errors.count == 0
    }

    /// Writes what was found, and a summary.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.errors.write(out)?;
        self.notices.write(out)?;
        if let Some(seal) = self.seal {
            writeln!(out, "{}: the file of the draw: {seal}", self.files.name())?;
        }
        let (bets, agencies) = (self.tally.all().bets, self.tally.agencies_with_bets());
        writeln!(
            out,
            "{}: {bets} {} of {agencies} {}; {}; errors: {}, notices: {}",
            self.files.name(),
            plural(bets, "bet", "bets"),
            plural(agencies, "agency", "agencies"),
            self.state_in_short(),
            self.errors.count,
            self.notices.count,
        )
    }

    fn state_in_short(&self) -> String {
        let (all, noun) = (self.agencies, plural(self.agencies.into(), "agency", "agencies"));
        match &self.files.state {
            Err(_) => "the state file can't be used".to_owned(),
            Ok(None) => "no state file: no agency has ended, or it is missing".to_owned(),
            Ok(Some(State { draw: Some(draw), .. })) => {
                format!("draw of {all} {noun}: winning number {}, {}", draw.winning_number, draw.at)
            }
            Ok(Some(State { ended, draw: None })) => {
                format!("{} of {all} {noun} (CLIENTS_AMOUNT) ended", ended.len())
            }
        }
    }
}

/// A bar that shows on a terminal how much has been read.
pub(super) fn bar(files: &Files) -> Result<ProgressBar, AuditError> {
    let bar = ProgressBar::new(files.length()?);
    match ProgressStyle::with_template("{wide_bar} {bytes} of {total_bytes}, {elapsed}") {
        Ok(style) => Ok(bar.with_style(style)),
        Err(_) => Ok(bar),
    }
}

//! Reads the bets and the state file, counts the bets, and collects errors and notices.

use std::fmt::{self, Display};
use std::io::{self, Write};

use indicatif::ProgressBar;

use super::files::{AuditError, Files};
use super::tally::Tally;
use crate::config::origin;
use crate::logging::one_line;
use crate::lottery::row::Row;
use crate::lottery::{AgencyId, Draw, Seal};
use crate::server::storage::Rules;
use crate::server::storage::row_reader::{Damage, Line};
use crate::server::storage::state_file::State;
use crate::status::text::plural;

/// How many errors are listed, and how many notices. All are counted.
const LISTED: usize = 100;
/// How many ranges of lines with the same damage are listed.
const RANGES: usize = 10;

pub(crate) struct Report<'a> {
    pub(super) files: &'a Files,
    /// How many agencies take part: those of the draw, or as configured.
    agencies: u16,
    /// The number that wins: as asked, as drawn, or as configured.
    number: u32,
    pub(crate) tally: Tally,
    /// The draw's seal, if the file agrees with it.
    pub(crate) seal: Option<Seal>,
    /// What is wrong with rows, in the order of the first line that has it.
    damages: Vec<(Damage, Lines)>,
    errors: Findings,
    /// What is allowed, but unusual.
    notices: Findings,
}

/// Lines of the report. Their number does not grow with the file, only with the number of agencies.
struct Findings {
    kind: &'static str,
    lines: Vec<String>,
}

impl Findings {
    fn add(&mut self, place: impl Display, finding: impl Display) {
        self.lines.push(format!("{place}: {}: {finding}", self.kind));
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.lines.iter().take(LISTED).try_for_each(|line| writeln!(out, "{line}"))?;
        match self.lines.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => writeln!(out, "and {more} more {}s", self.kind),
        }
    }
}

/// The lines of the bets file that have the same damage.
struct Lines {
    /// The first and the last line of each range. After [`RANGES`] the rest is only counted.
    ranges: Vec<(u64, u64)>,
    count: u64,
}

impl Lines {
    fn add(&mut self, line: u64) {
        self.count += 1;
        let is_full = self.ranges.len() == RANGES;
        match self.ranges.last_mut() {
            Some((_, last)) if *last + 1 == line => *last = line,
            _ if is_full => {}
            _ => self.ranges.push((line, line)),
        }
    }
}

impl Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = |&(first, last): &(u64, u64)| {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        };
        let ranges: Vec<String> = self.ranges.iter().map(range).collect();
        write!(f, "{} lines: {}", self.count, ranges.join(", "))?;
        match self.count - self.ranges.iter().map(|(first, last)| last - first + 1).sum::<u64>() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
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
            damages: Vec::new(),
            errors: Findings { kind: "error", lines: Vec::new() },
            notices: Findings { kind: "notice", lines: Vec::new() },
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
        let mut rows = self.files.rows(bar);
        loop {
            match rows.next_line().map_err(AuditError::of(&self.files.path))? {
                Line::Row(row) => {
                    let (agency, wins) = (row.agency, row.number == self.number);
                    if wins {
                        see(&row)?;
                    }
                    self.tally.add(&row, wins);
                    self.check_agency(agency, rows.line());
                }
                Line::Damaged(damage) => self.add_damage(damage, rows.line()),
                Line::End { torn } => {
                    self.check_end(torn);
                    self.check_seal(rows.source().hasher.seal(self.tally.bets()));
                    return Ok(());
                }
            }
        }
    }

    fn add_damage(&mut self, damage: Damage, line: u64) {
        // Behind a foreign beginning, other damage means nothing.
        let damage = self.foreign_file().unwrap_or(damage);
        match self.damages.iter_mut().find(|(known, _)| *known == damage) {
            Some((_, lines)) => lines.add(line),
            None => self.damages.push((damage, Lines { ranges: vec![(line, line)], count: 1 })),
        }
    }

    /// Returns why no line of the file can be read, if so.
    fn foreign_file(&self) -> Option<Damage> {
        let (damage, _) = self.damages.first()?;
        matches!(damage, Damage::Foreign(foreign) if foreign.is_of_whole_file()).then_some(*damage)
    }

    /// Reports an agency that takes no part, in the line of its first bet.
    fn check_agency(&mut self, agency: AgencyId, line: u64) {
        let last = self.agencies;
        if agency.get() > last && self.tally.of(agency).stored.bets == 1 {
            let source = if self.files.draw().is_some() { "the draw" } else { "CLIENTS_AMOUNT" };
            let error =
                format_args!("agency {agency} does not take part: only 1 to {last} do, says {source}");
            self.errors.add(format_args!("{}:{line}", self.files.name), error);
        }
    }

    fn check_end(&mut self, torn: u64) {
        if torn == 0 || self.foreign_file().is_some() {
            return;
        }
        let (findings, reason) = match self.files.draw() {
            Some(_) => (&mut self.errors, "nothing is written after the draw, so a stored bet was damaged"),
            None => (&mut self.notices, "a server is writing them, or will cut them off when it starts"),
        };
        let finding = format_args!("the last {torn} bytes are not a whole row, and not counted: {reason}");
        findings.add(&self.files.name, finding);
    }

    /// Checks that the file holds what it held when the draw was made.
    fn check_seal(&mut self, found: Seal) {
        match self.files.draw().map(|draw| draw.seal) {
            Some(Some(sealed)) if sealed != found => {
                let error = format_args!(
                    "this is not the file of the draw: it has {found}, but the draw was made of {sealed}"
                );
                self.errors.add(&self.files.name, error);
            }
            Some(None) => {
                let notice = "the draw has no seal: it cannot be told whether bets are missing";
                self.notices.add(&self.files.state_name, notice);
            }
            sealed => self.seal = sealed.flatten(),
        }
    }

    fn check_state(&mut self, configured: Rules) {
        let path = &self.files.state_name;
        let state = match &self.files.state {
            Ok(Some(state)) => state,
            Ok(None) => return,
            Err(damage) => return self.errors.add(path, damage),
        };
        for contradiction in state.contradictions(self.agencies) {
            self.errors.add(path, contradiction);
        }
        for disagreement in state.disagreements(|agency| self.tally.of(agency).stored) {
            self.errors.add(&self.files.name, disagreement);
        }
        let amount = configured.clients_amount;
        match &state.draw {
            Some(draw) => self.check_draw(draw, configured),
            None if state.all_ended(amount) => {
                let notice = format_args!(
                    "all agencies from 1 to CLIENTS_AMOUNT, which is {amount}, have ended; a server that is started \
                     makes the draw"
                );
                self.notices.add(path, notice);
            }
            None => {}
        }
    }

    /// Compares the draw, which holds, with the number that was asked for and with the configuration.
    fn check_draw(&mut self, draw: &Draw, configured: Rules) {
        let (path, drawn) = (&self.files.state_name, draw.winning_number);
        if drawn != self.number {
            let error = format_args!("the winning number of the draw is {drawn}, not {}", self.number);
            self.errors.add(path, error);
        }
        for (key, drawn, configured) in [
            ("CLIENTS_AMOUNT", draw.agencies.into(), configured.clients_amount.into()),
            ("LOTTERY_WINNER_NUMBER", drawn, configured.winner_number),
        ] {
            if drawn != configured
                && let Some(origin) = origin(key)
            {
                let notice = format_args!("the draw holds: {key} was {drawn}, not {configured} ({origin})");
                self.notices.add(path, notice);
            }
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.error_count() == 0
    }

    fn error_count(&self) -> u64 {
        self.errors.lines.len() as u64 + self.damages.iter().map(|(_, lines)| lines.count).sum::<u64>()
    }

    /// Writes each damage once, with its remedy, then errors and notices, then a summary.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for (damage, lines) in &self.damages {
            let first = lines.ranges.first().map_or(0, |(first, _)| *first);
            let advice = damage.advice(&self.files.path, first);
            let all = if lines.count == 1 { String::new() } else { format!(" ({lines})") };
            writeln!(out, "{}:{first}: error: {}{all}", self.files.name, one_line(&advice))?;
        }
        self.errors.write(out)?;
        self.notices.write(out)?;
        if let Some(seal) = self.seal {
            writeln!(out, "{}: the file of the draw: {seal}", self.files.name)?;
        }
        let (bets, agencies) = (self.tally.bets(), self.tally.agencies_with_bets());
        writeln!(
            out,
            "{}: {bets} {} of {agencies} {}; {}; errors: {}, notices: {}",
            self.files.name,
            plural(bets, "bet", "bets"),
            plural(agencies, "agency", "agencies"),
            self.state_in_short(),
            self.error_count(),
            self.notices.lines.len(),
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
            Ok(Some(State { ended, draw: None, .. })) => {
                format!("{} of {all} {noun} (CLIENTS_AMOUNT) ended", ended.len())
            }
        }
    }
}

//! `loteria winners`: counts the winners again, from the bets alone.

use std::io::{self, Write};

use indicatif::ProgressBar;

use super::files::{AuditError, Files};
use super::report::{self, Report};
use super::tally::Count;
use crate::logging::one_line;
use crate::lottery::AgencyId;
use crate::lottery::row::Row;
use crate::server::storage::Rules;
use crate::server::storage::row_reader::check_command;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    /// List the winners of this agency; without one, count those of all.
    pub(crate) agency: Option<AgencyId>,
    /// Overrides the winning number.
    pub(crate) number: Option<u32>,
    /// List the winners as CSV.
    pub(crate) csv: bool,
    pub(crate) configured: Rules,
}

/// Writes the answer to `out`; with CSV, writes findings and summary to `notes`. Returns whether the files have no errors.
pub(crate) fn winners(
    files: &Files,
    question: &Question,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<bool, AuditError> {
    let lists = question.csv || question.agency.is_some();
    let bar = if lists { ProgressBar::hidden() } else { report::bar(files)? };
    if question.csv {
        writeln!(out, "agency,document")?;
    } else {
        write_number(files, question, out)?;
    }
    if let (false, Some(agency)) = (question.csv, question.agency) {
        writeln!(out, "documents of agency {agency} that won, in the order of their bets:")?;
    }
    let see = |row: &Row<'_>| write_winner(question, row, out);
    let report = Report::read(files, question.configured, question.number, &bar, see)?;
    if question.csv {
        write_notes(files, question, &report, notes)?;
    } else {
        write_counts(files, question, &report, out)?;
        write_report(files, &report, out)?;
    }
    out.flush()?;
    Ok(report.is_good())
}

fn write_number(files: &Files, question: &Question, out: &mut dyn Write) -> io::Result<()> {
    match (question.number, files.draw()) {
        (Some(number), _) => writeln!(out, "winning number: {number} (as asked for)"),
        (None, Some(draw)) => {
            writeln!(out, "winning number: {} (as drawn, says {})", draw.winning_number, files.state_name())
        }
        (None, None) => {
            let number = question.configured.winner_number;
            writeln!(out, "winning number: {number} (LOTTERY_WINNER_NUMBER of the configuration)")
        }
    }
}

fn write_winner(question: &Question, row: &Row<'_>, out: &mut dyn Write) -> io::Result<()> {
    match question.agency {
        Some(agency) if agency != row.agency => Ok(()),
        _ if question.csv => {
            let mut fields = csv::Writer::from_writer(out);
            fields.write_record([&*row.agency.to_string(), &row.document])?;
            fields.flush()
        }
        Some(_) => writeln!(out, "  {}", row.document),
        None => Ok(()),
    }
}

fn write_notes(
    files: &Files,
    question: &Question,
    report: &Report<'_>,
    notes: &mut dyn Write,
) -> io::Result<()> {
    let has_draw = files.draw().is_some();
    if !has_draw {
        write_number(files, question, notes)?;
    }
    if has_draw && report.is_good() { Ok(()) } else { write_report(files, report, notes) }
}

fn write_report(files: &Files, report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
    report.write(out)?;
    if report.is_good() {
        return Ok(());
    }
    writeln!(out, "after a repair, check again: {}", one_line(&check_command(&files.path)))
}

fn write_counts(
    files: &Files,
    question: &Question,
    report: &Report<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let drawn = files.draw().map(|draw| draw.agencies);
    let Some(agency) = question.agency else {
        writeln!(out)?;
        report.tally.write_table(drawn.unwrap_or(0), out)?;
        return writeln!(out);
    };
    let Count { bets, winners, digest } = report.tally.of(agency);
    writeln!(out, "bets of agency {agency}: {bets}, winners: {winners}, digest: {digest}")?;
    match drawn.filter(|agencies| agency.get() > *agencies) {
        Some(agencies) => writeln!(out, "agency {agency} had no part in the draw: 1 to {agencies} had"),
        None => Ok(()),
    }
}

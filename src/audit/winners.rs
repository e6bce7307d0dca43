//! `loteria winners`: counts the draw again from the bets.

use std::io::{self, Write};

use indicatif::ProgressBar;

use super::files::Files;
use super::report::{self, Report};
use super::{AuditError, Count};
use crate::logging::one_line;
use crate::lottery::AgencyId;
use crate::lottery::row::Row;
use crate::server::storage::Rules;

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

/// Answers to `out`. What a list in CSV has no place for goes to `notes`. Returns whether the files have no errors.
pub(crate) fn winners(
    files: &Files,
    question: &Question,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<bool, AuditError> {
    let lists = question.csv || question.agency.is_some();
    let bar = if lists { ProgressBar::hidden() } else { report::bar(files)? };
    write_head(files, question, out).map_err(AuditError::Write)?;
    let see = |row: &Row<'_>| write_winner(question, row, out);
    let report = Report::read(files, question.configured, question.number, &bar, see)?;
    write_answer(files, question, &report, out, notes).map_err(AuditError::Write)?;
    Ok(report.is_good())
}

fn write_head(files: &Files, question: &Question, out: &mut dyn Write) -> io::Result<()> {
    if question.csv {
        return writeln!(out, "agency,document");
    }
    write_number(files, question, out)?;
    match question.agency {
        Some(agency) => writeln!(out, "documents of agency {agency} that won, in the order of their bets:"),
        None => Ok(()),
    }
}

fn write_number(files: &Files, question: &Question, out: &mut dyn Write) -> io::Result<()> {
    match (question.number, files.draw()) {
        (Some(number), _) => writeln!(out, "winning number: {number} (as asked for)"),
        (None, Some(draw)) => {
            let state = one_line(&files.state_path.display());
            writeln!(out, "winning number: {} (as drawn, says {state})", draw.winning_number)
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

fn write_answer(
    files: &Files,
    question: &Question,
    report: &Report<'_>,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> io::Result<()> {
    let draw = files.draw();
    if question.csv {
        if draw.is_none() {
            write_number(files, question, notes)?;
        }
        if draw.is_none() || !report.is_good() {
            report.write(notes)?;
        }
        return out.flush();
    }
    if let Some(agency) = question.agency {
        let Count { bets, winners } = report.tally.of(agency);
        writeln!(out, "bets of agency {agency}: {bets}, winners: {winners}")?;
        if let Some(draw) = draw.filter(|draw| agency.get() > draw.agencies) {
            writeln!(out, "agency {agency} had no part in the draw: 1 to {} had", draw.agencies)?;
        }
    } else {
        writeln!(out)?;
        report.tally.write_table(draw.map_or(0, |draw| draw.agencies), out)?;
        writeln!(out)?;
    }
    report.write(out)?;
    out.flush()
}

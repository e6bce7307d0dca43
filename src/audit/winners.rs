//! `loteria winners`: counts the winners again, from the bets alone.

use std::io::{self, Write};
use std::path::Path;

use indicatif::ProgressBar;

use super::files::{AuditError, Files, NewFile};
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
    pub(crate) form: Form,
    pub(crate) configured: Rules,
}

/// What the answer is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Numbers for people.
    Report,
    /// Agency and document of each winner, as CSV.
    Csv,
    /// The row of each winner, as it is in the bets.
    Rows,
}

/// Writes the answer to a file, which is replaced as a whole. If the files have errors, it is not written.
pub(crate) fn winners_to_file(
    files: &Files,
    question: &Question,
    path: &Path,
    notes: &mut dyn Write,
) -> Result<bool, AuditError> {
    let failed = |error| AuditError::Output { path: path.to_owned(), error };
    if files.has(path).map_err(failed)? {
        return Err(failed(io::Error::other("this is a file of the contest: name another one")));
    }
    let mut file = NewFile::create(path).map_err(failed)?;
    let is_good = match winners(files, question, &mut file.out, notes) {
        Err(AuditError::Write(error)) => return Err(failed(error)),
        result => result?,
    };
    if is_good {
        file.finish().map_err(failed)?;
    } else {
        writeln!(notes, "{}: not written, because of these errors", one_line(&path.display()))?;
    }
    Ok(is_good)
}

/// Writes the answer to `out`, and findings and summary to `notes` unless it is a report. Returns whether the files have no
/// errors.
pub(crate) fn winners(
    files: &Files,
    question: &Question,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<bool, AuditError> {
    check_agency(files, question)?;
    let lists = question.form != Form::Report || question.agency.is_some();
    let bar = if lists { ProgressBar::hidden() } else { report::bar(files)? };
    match question.form {
        Form::Report => {
            write_number(files, question, out)?;
            if let Some(agency) = question.agency {
                writeln!(out, "documents of agency {agency} that won, in the order of their bets:")?;
            }
        }
        Form::Csv => writeln!(out, "agency,document")?,
        Form::Rows => {}
    }
    let see = |row: &Row<'_>| write_winner(question, row, out);
    let report = Report::read(files, question.configured, question.number, &bar, see)?;
    if question.form == Form::Report {
        write_counts(files, question, &report, out)?;
        write_report(files, &report, out)?;
    } else {
        write_notes(files, question, &report, notes)?;
    }
    out.flush()?;
    Ok(report.is_good())
}

/// A mistyped number would look like an agency without winners.
fn check_agency(files: &Files, question: &Question) -> Result<(), AuditError> {
    let (agencies, of) = match files.draw() {
        Some(draw) => (draw.agencies, format!("the draw in {}", files.state_name())),
        None => (question.configured.clients_amount, "CLIENTS_AMOUNT".to_owned()),
    };
    match question.agency.filter(|agency| agency.get() > agencies) {
        Some(agency) => Err(AuditError::NoAgency { agency, agencies, of }),
        None => Ok(()),
    }
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
    if question.agency.is_some_and(|agency| agency != row.agency) {
        return Ok(());
    }
    match question.form {
        Form::Rows => out.write_all(row.bytes),
        Form::Csv => {
            let mut fields = csv::Writer::from_writer(out);
            fields.write_record([&*row.agency.to_string(), &row.document])?;
            fields.flush()
        }
        Form::Report if question.agency.is_some() => writeln!(out, "  {}", row.document),
        Form::Report => Ok(()),
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
    let Some(agency) = question.agency else {
        writeln!(out)?;
        report.tally.write_table(files.draw().map_or(0, |draw| draw.agencies), out)?;
        return writeln!(out);
    };
    let Count { bets, winners, digest } = report.tally.of(agency);
    writeln!(out, "bets of agency {agency}: {bets}, winners: {winners}, digest: {digest}")
}

//! `loteria winners`: counts the winners again, from the bets alone.

use std::io::{self, Write};
use std::path::Path;

use indicatif::ProgressBar;

use super::files::{AuditError, Files, NewFile};
use super::report::Report;
use super::tally::Count;
use crate::logging::one_line;
use crate::lottery::AgencyId;
use crate::lottery::row::Row;
use crate::server::storage::Rules;
use crate::server::storage::row_reader::check_command;
use crate::server::storage::state_file::Stored;

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
    let failed = AuditError::of(path);
    if files.has(path) {
        return Err(failed(io::Error::other("this is a file of the contest: name another one")));
    }
    let mut file = NewFile::create(path).map_err(&failed)?;
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

/// Writes the answer to `out`. Findings and summary are in the report, or else go to `notes`. Returns whether the files have
/// no errors.
pub(crate) fn winners(
    files: &Files,
    question: &Question,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<bool, AuditError> {
    check_agency(files, question)?;
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
    let is_list = question.form != Form::Report || question.agency.is_some();
    let bar = if is_list { ProgressBar::hidden() } else { files.bar() };
    let see = |row: &Row<'_>| write_winner(question, row, out);
    let report = Report::read(files, question.configured, question.number, &bar, see)?;
    if question.form == Form::Report {
        write_counts(question, &report, out)?;
        write_report(&report, out)?;
    } else {
        write_notes(question, &report, notes)?;
    }
    out.flush()?;
    Ok(report.is_good())
}

/// Refuses an agency that takes no part: a mistyped number would look like an agency without winners.
fn check_agency(files: &Files, question: &Question) -> Result<(), AuditError> {
    let (agencies, of) = match files.draw() {
        Some(draw) => (draw.agencies, format!("the draw in {}", files.state_name)),
        None => (question.configured.clients_amount, "CLIENTS_AMOUNT".to_owned()),
    };
    match question.agency {
        Some(agency) if agency.get() > agencies => Err(AuditError::NoAgency { agency, agencies, of }),
        _ => Ok(()),
    }
}

fn write_number(files: &Files, question: &Question, out: &mut dyn Write) -> io::Result<()> {
    let (number, source) = match (question.number, files.draw()) {
        (Some(number), _) => (number, "as asked for".to_owned()),
        (None, Some(draw)) => (draw.winning_number, format!("as drawn, says {}", files.state_name)),
        (None, None) => {
            (question.configured.winner_number, "LOTTERY_WINNER_NUMBER of the configuration".to_owned())
        }
    };
    writeln!(out, "winning number: {number} ({source})")
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

fn write_counts(question: &Question, report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
    if let Some(agency) = question.agency {
        let Count { stored: Stored { bets, digest }, winners } = report.tally.of(agency);
        return writeln!(out, "bets of agency {agency}: {bets}, winners: {winners}, digest: {digest}");
    }
    writeln!(out)?;
    report.tally.write_table(report.files.draw().map_or(0, |draw| draw.agencies), out)?;
    writeln!(out)
}

/// Writes the report, unless there is nothing in it to look at: the draw has been made, and there are no errors.
fn write_notes(question: &Question, report: &Report<'_>, notes: &mut dyn Write) -> io::Result<()> {
    if report.files.draw().is_none() {
        write_number(report.files, question, notes)?;
    } else if report.is_good() {
        return Ok(());
    }
    write_report(report, notes)
}

fn write_report(report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
    report.write(out)?;
    if report.is_good() {
        return Ok(());
    }
    writeln!(out, "after a repair, check again: {}", one_line(&check_command(&report.files.path)))
}

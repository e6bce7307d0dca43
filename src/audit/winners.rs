//! `loteria winners`: recounts the draw from the bets, and says whether the state file tells the same.

use std::io::{self, Write};

use super::agreement::{outside, torn};
use super::files::Files;
use super::tally::Tally;
use super::{AuditError, Verdict};
use crate::logging::one_line;
use crate::lottery::row::Row;
use crate::lottery::{AgencyId, Draw, draw};
use crate::server::storage::contradictions::{all_ended, contradictions};
use crate::server::storage::recovery::Rules;
use crate::server::storage::row_reader::Line;
use crate::status::text::plural;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// Whose winners are to be named; without one, all are counted.
    pub agency: Option<AgencyId>,
    /// The number that is to win, whatever the draw says.
    pub number: Option<u32>,
    /// Whether the winners are to be named for machines.
    pub csv: bool,
    /// What holds where there is no draw.
    pub configured: Rules,
}

/// Counts, and writes what is asked to `out`; what an answer for machines has no place for goes to `notes`.
///
/// # Errors
/// A file can't be read, a row is damaged, or `out` takes no more.
pub fn run(
    files: &Files,
    question: &Question,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<Verdict, AuditError> {
    let recount = Recount { files, question, number: winning_number(files, question) };
    recount.write_head(out).map_err(AuditError::Write)?;
    let (tally, torn) = recount.count(out)?;
    let verdict = recount.judge(&tally, torn);
    let said: &mut dyn Write = if question.csv { notes } else { &mut *out };
    recount.write_end(&tally, torn, &verdict, said).map_err(AuditError::Write)?;
    out.flush().map_err(AuditError::Write)?;
    Ok(Verdict::of(!matches!(verdict, Agreement::Contradicts(_))))
}

/// The number that wins: as asked, else as drawn, else as configured.
fn winning_number(files: &Files, question: &Question) -> u32 {
    let drawn = files.draw().map(|draw| draw.winning_number);
    question.number.or(drawn).unwrap_or(question.configured.winner_number)
}

/// What the state file has to say to a recount.
enum Agreement<'a> {
    NoState,
    /// With what a server would do that is started.
    NoDraw {
        ended: usize,
        agencies: u16,
        next: String,
    },
    Agrees(&'a Draw),
    Contradicts(Vec<String>),
}

struct Recount<'a> {
    files: &'a Files,
    question: &'a Question,
    number: u32,
}

impl<'a> Recount<'a> {
    fn write_head(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.question.csv {
            return writeln!(out, "agency,document");
        }
        writeln!(out, "winning number: {} ({})", self.number, self.origin())?;
        match self.question.agency {
            Some(agency) => {
                writeln!(out, "documents of agency {agency} that won, as their bets were stored:")
            }
            None => Ok(()),
        }
    }

    /// Where the number that wins is from.
    fn origin(&self) -> String {
        match (self.question.number, self.files.draw()) {
            (Some(_), _) => "as asked for".to_owned(),
            (None, Some(_)) => format!("as drawn, says {}", one_line(&self.files.state_path.display())),
            (None, None) => "LOTTERY_WINNER_NUMBER of the configuration".to_owned(),
        }
    }

    /// Counts all bets, and names those winners that are to be named, as they come. Also returns how many bytes there
    /// are behind the last whole row.
    fn count(&self, out: &mut dyn Write) -> Result<(Tally, u64), AuditError> {
        let mut tally = Tally::default();
        let mut rows = self.files.rows();
        loop {
            match rows.next_line().map_err(|error| self.files.unreadable(error))? {
                Line::Row(row) => {
                    let won = draw::wins(row.number, self.number);
                    tally.add(row.agency, won);
                    if won {
                        self.name(&row, out).map_err(AuditError::Write)?;
                    }
                }
                Line::End { torn } => return Ok((tally, torn)),
                Line::Damaged(error) => {
                    return Err(AuditError::Row { path: self.files.path.clone(), line: rows.line(), error });
                }
            }
        }
    }

    fn name(&self, row: &Row<'_>, out: &mut dyn Write) -> io::Result<()> {
        if self.question.agency.is_some_and(|agency| agency != row.agency) {
            return Ok(());
        }
        if self.question.csv {
            let mut fields = csv::WriterBuilder::new().from_writer(&mut *out);
            fields.write_record([&*row.agency.to_string(), &row.document])?;
            return fields.flush();
        }
        match self.question.agency {
            Some(_) => writeln!(out, "  {}", one_line(&row.document)),
            None => Ok(()),
        }
    }

    fn judge(&self, tally: &Tally, torn: u64) -> Agreement<'a> {
        let state = match &self.files.state {
            Ok(Some(state)) => state,
            Ok(None) => return Agreement::NoState,
            Err(error) => return Agreement::Contradicts(vec![error.to_string()]),
        };
        let agencies =
            state.draw.as_ref().map_or(self.question.configured.clients_amount, |draw| draw.agencies);
        let mut found = contradictions(state, agencies);
        if let Some(draw) = &state.draw {
            found.extend(outside(tally, draw.agencies));
            if draw.winning_number != self.number {
                found.push(format!("{} was drawn", draw.winning_number));
            }
            if torn > 0 {
                found.push("the draw was made of whole rows, but the last one is not".to_owned());
            }
        }
        match &state.draw {
            _ if !found.is_empty() => Agreement::Contradicts(found),
            Some(draw) => Agreement::Agrees(draw),
            None => {
                let next = match outside(tally, agencies) {
                    Some(outside) => format!("no server starts with that: {outside}"),
                    None if all_ended(state, agencies) => "a server that is started makes it".to_owned(),
                    None => "more bets may come".to_owned(),
                };
                Agreement::NoDraw { ended: state.ended.len(), agencies, next }
            }
        }
    }

    fn write_end(
        &self,
        tally: &Tally,
        torn_bytes: u64,
        verdict: &Agreement<'_>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        match self.question.agency {
            _ if self.question.csv => {}
            Some(agency) => {
                let count = tally.of(agency);
                writeln!(out, "bets of agency {agency}: {}, winners: {}", count.bets, count.winners)?;
                if let Some(draw) = self.files.draw().filter(|draw| agency.get() > draw.agencies) {
                    writeln!(out, "agency {agency} had no part in the draw: 1 to {} had", draw.agencies)?;
                }
            }
            None => {
                let agencies = self.files.draw().map_or(0, |draw| draw.agencies);
                writeln!(out)?;
                tally.write_table(agencies, out)?;
                writeln!(out)?;
            }
        }
        if torn_bytes > 0 {
            let path = one_line(&self.files.path.display());
            writeln!(out, "{path}: {}", torn(torn_bytes, self.files.draw()))?;
        }
        self.write_verdict(verdict, out)
    }

    fn write_verdict(&self, verdict: &Agreement<'_>, out: &mut dyn Write) -> io::Result<()> {
        let state = one_line(&self.files.state_path.display());
        if self.question.csv && self.files.draw().is_none() {
            writeln!(out, "winning number: {} ({})", self.number, self.origin())?;
        }
        match verdict {
            Agreement::Contradicts(found) => {
                found.iter().try_for_each(|found| writeln!(out, "{state} disagrees: {found}"))
            }
            Agreement::Agrees(_) if self.question.csv => Ok(()),
            Agreement::NoState => writeln!(out, "{state} is not there: there is nothing to compare with"),
            Agreement::NoDraw { ended, agencies, next } => {
                let noun = plural((*agencies).into(), "agency", "agencies");
                writeln!(
                    out,
                    "{state} has no draw yet: {ended} of {agencies} {noun} (CLIENTS_AMOUNT) ended, and {next}"
                )
            }
            Agreement::Agrees(Draw { agencies, at, .. }) => {
                let noun = plural((*agencies).into(), "agency", "agencies");
                writeln!(out, "{state} agrees: a draw of {agencies} {noun}, {at}")
            }
        }
    }
}

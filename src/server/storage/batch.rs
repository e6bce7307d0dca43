//! The rows of one request, checked and counted. The handler has checked them too, but it may have been taken over.

use crate::ipc::messages::Refusal;
use crate::lottery::AgencyId;
use crate::lottery::row::for_each_row;

/// What rows that have been checked mean for the contest.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// How many rows, skipped ones included.
    pub(super) rows: u64,
    /// The offset of the first row that is not skipped.
    pub(super) new_from: usize,
    /// The new rows, as runs of one agency.
    pub(super) runs: Vec<(AgencyId, u64)>,
    /// The winning documents of the new rows.
    pub(super) winners: Vec<(AgencyId, Vec<u8>)>,
}

impl Batch {
    /// Checks that `rows` are whole rows, and if `only` is given, that all are of that agency. The first `skip` rows are
    /// not new. Replaces what was checked before.
    pub(super) fn check(
        &mut self,
        rows: &[u8],
        only: Option<AgencyId>,
        skip: u64,
        winning_number: u32,
    ) -> Result<(), Refusal> {
        self.rows = 0;
        self.new_from = 0;
        self.runs.clear();
        self.winners.clear();
        for_each_row(rows, |row, end| {
            if only.is_some_and(|agency| agency != row.agency) {
                return Err(Refusal::OtherAgency);
            }
            self.rows += 1;
            if self.rows <= skip {
                self.new_from = end;
                return Ok(());
            }
            self.count(row.agency);
            if row.number == winning_number {
                self.winners.push((row.agency, row.document.into_owned().into_bytes()));
            }
            Ok(())
        })?;
        if self.rows == 0 { Err(Refusal::Malformed) } else { Ok(()) }
    }

    fn count(&mut self, agency: AgencyId) {
        match self.runs.last_mut() {
            Some((last, count)) if *last == agency => *count += 1,
            _ => self.runs.push((agency, 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_recovery_would_refuse_are_not_stored() {
        let long = [b'1'; 256];
        assert_eq!(Batch::default().check(b"", None, 0, 7), Err(Refusal::Malformed));
        for text in [&b"12\x1e34"[..], b"12\x0034", b"\"12\r\n34\"", b"\"1234\"", b"12\xff34", &long] {
            let rows = [b"1,a,b,", text, b",1999-03-17,7\r\n"].concat();
            assert_eq!(Batch::default().check(&rows, None, 0, 7), Err(Refusal::Malformed), "{text:?}");
        }
        assert_eq!(Batch::default().check(b"1,a,b,1234,1999-03-17,7\r\n", None, 0, 7), Ok(()));
    }
}

//! The rows of one request: that they are what an honest handler sends, and what they say.

use crate::ipc::refusal::Refusal;
use crate::lottery::row::for_each_row;
use crate::lottery::{AgencyId, draw};

/// Rows that have been checked, and what they say.
#[derive(Debug, Default)]
pub struct Batch {
    /// How many rows.
    pub rows: u64,
    /// Where the rows begin that are not skipped, in bytes.
    pub new_from: usize,
    /// Runs of new rows of one agency.
    pub(super) runs: Vec<(AgencyId, u64)>,
    /// Documents that won, of new rows.
    pub(super) winners: Vec<(AgencyId, Vec<u8>)>,
}

impl Batch {
    /// Checks that `rows` are whole rows, of `only` that agency if one is given. The first `skip` of them only count.
    /// What was checked before is forgotten; its memory serves again.
    ///
    /// # Errors
    /// What is wrong. No honest handler sends rows that are malformed.
    pub fn check(
        &mut self,
        rows: &[u8],
        only: Option<AgencyId>,
        skip: u64,
        winning_number: u32,
    ) -> Result<(), Refusal> {
        self.clear();
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
            if draw::wins(row.number, winning_number) {
                self.winners.push((row.agency, row.document.into_owned().into_bytes()));
            }
            Ok(())
        })?;
        if self.rows == 0 { Err(Refusal::Malformed) } else { Ok(()) }
    }

    fn clear(&mut self) {
        self.rows = 0;
        self.new_from = 0;
        self.runs.clear();
        self.winners.clear();
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
    fn what_no_start_would_take_up_is_not_stored() {
        let long = [b'1'; 256];
        for text in [&b"12\x1e34"[..], b"12\x0034", b"\"12\r\n34\"", b"\"1234\"", b"12\xff34", &long] {
            let rows = [b"1,a,b,", text, b",1999-03-17,7\r\n"].concat();
            assert_eq!(Batch::default().check(&rows, None, 0, 7), Err(Refusal::Malformed), "{text:?}");
        }
        assert_eq!(Batch::default().check(b"1,a,b,1234,1999-03-17,7\r\n", None, 0, 7), Ok(()));
    }
}

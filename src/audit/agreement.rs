//! What the bets say against the draw.

use super::tally::Tally;
use crate::lottery::Draw;
use crate::server::storage::contradictions::names;

/// The agencies that have bets and do not take part, if there are any.
pub fn outside(tally: &Tally, agencies: u16) -> Option<String> {
    let with_bets = tally.with_bets().map(|(agency, _)| agency);
    names(with_bets.filter(|agency| agency.get() > agencies)).map(|names| {
        format!("there are bets of agencies that do not take part (1 to {agencies} do): {names}")
    })
}

/// What a last row is that is not whole, of so many bytes.
pub fn torn(bytes: u64, draw: Option<&Draw>) -> String {
    let meaning = match draw {
        None => "a server writes them just now, or was killed and will cut them off when it starts",
        Some(_) => "but nothing is written after the draw, so a bet was damaged that had been stored",
    };
    format!("the last {bytes} bytes are no whole row, and not counted: {meaning}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lottery::AgencyId;

    #[test]
    fn bets_of_agencies_without_a_part_are_named() {
        let mut tally = Tally::default();
        tally.add(AgencyId::new(3_u16).unwrap(), false);
        assert_eq!(outside(&tally, 3), None);
        assert!(outside(&tally, 2).unwrap().ends_with("(1 to 2 do): 3"));
    }
}

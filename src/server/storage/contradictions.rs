//! What a state file says that can't be true. A start is refused for it, and an audit lists it.

use super::state_file::State;
use crate::lottery::AgencyId;

/// All that contradicts itself in a state file of a contest of agencies 1 to `agencies`.
#[must_use]
pub fn contradictions(state: &State, agencies: u16) -> Vec<String> {
    let outside = names(state.ended.iter().copied().filter(|agency| agency.get() > agencies));
    let outside = outside
        .map(|names| format!("it has ENDs of agencies that do not take part (1 to {agencies} do): {names}"));
    let missing = state.draw.as_ref().and_then(|draw| names(not_ended(state, draw.agencies)));
    let missing = missing.map(|names| format!("it has a draw, but no END of these agencies: {names}"));
    [outside, repeated(state), missing].into_iter().flatten().collect()
}

/// Whether exactly the agencies 1 to `agencies` have ended.
#[must_use]
pub fn all_ended(state: &State, agencies: u16) -> bool {
    state.ended.iter().all(|agency| agency.get() <= agencies) && not_ended(state, agencies).next().is_none()
}

fn repeated(state: &State) -> Option<String> {
    let mut ended = state.ended.clone();
    ended.sort_unstable();
    let mut repeated: Vec<AgencyId> =
        ended.array_windows().filter(|[one, next]| one == next).map(|[one, _]| *one).collect();
    repeated.dedup();
    names(repeated.into_iter()).map(|names| format!("it has several ENDs of these agencies: {names}"))
}

/// Those of the agencies 1 to `agencies` that have not ended.
fn not_ended(state: &State, agencies: u16) -> impl Iterator<Item = AgencyId> {
    let mut ended = vec![false; agencies.into()];
    for agency in &state.ended {
        if let Some(ended) = ended.get_mut(agency.index()) {
            *ended = true;
        }
    }
    let numbered = (1..=agencies).zip(ended);
    numbered.filter(|(_, ended)| !ended).filter_map(|(number, _)| AgencyId::new(number))
}

/// How many agencies are named.
const NAMED: usize = 5;

/// Some agencies, for people; none of none.
pub fn names(mut agencies: impl Iterator<Item = AgencyId>) -> Option<String> {
    let named: Vec<String> = agencies.by_ref().take(NAMED).map(|agency| agency.to_string()).collect();
    let named = (!named.is_empty()).then(|| named.join(", "))?;
    match agencies.count() {
        0 => Some(named),
        more => Some(format!("{named} and {more} more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lottery::Draw;

    fn state(ended: &[u16], drawn: Option<u16>) -> State {
        let draw = drawn.map(|agencies| Draw { at: String::new(), agencies, winning_number: 7 });
        let ended = ended.iter().filter_map(|number| AgencyId::new(*number)).collect();
        State { ended, draw }
    }

    #[test]
    fn a_good_state_contradicts_nothing() {
        assert!(contradictions(&state(&[1, 2], Some(2)), 2).is_empty());
        assert!(contradictions(&state(&[2], None), 2).is_empty());
    }

    #[test]
    fn all_have_ended_only_if_these_have_and_no_others() {
        assert!(all_ended(&state(&[2, 1], None), 2));
        assert!(!all_ended(&state(&[1, 3], None), 2) && !all_ended(&state(&[1, 2, 3], None), 2));
    }

    #[test]
    fn each_contradiction_is_named() {
        let text = contradictions(&state(&[1, 3], Some(2)), 2).join("; ");
        assert!(text.contains("(1 to 2 do): 3") && text.contains("no END of these agencies: 2"), "{text}");
        let text = contradictions(&state(&[2, 1, 2, 1, 2], None), 2).join("; ");
        assert_eq!(text, "it has several ENDs of these agencies: 1, 2");
        let text = contradictions(&state(&[], Some(9)), 9).join("; ");
        assert!(text.contains("agencies: 1, 2, 3, 4, 5 and 4 more"), "{text}");
    }
}

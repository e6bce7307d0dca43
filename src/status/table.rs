//! The status as a table.

use std::fmt::Write as _;

use super::text::plural;
use crate::protocol::status::{AgencyStatus, Status, utc_text};

/// The most agencies that get a line of their own.
const LISTED: usize = 100;

pub(crate) fn table(status: &Status) -> String {
    let lines = [
        ("agencies ended", Some(format!("{} of {}", status.ended, status.agencies))),
        ("bets stored", Some(status.bets.to_string())),
        ("draw", Some(draw_of(status))),
        ("seal", status.seal().map(|seal| seal.to_string())),
        ("connections", Some(format!("{} of {}", status.clients(), status.max_clients))),
        ("uptime", Some(format!("{:.1} s", status.uptime_seconds))),
        ("storage restarts", Some(status.storage_restarts.to_string())),
        ("confinement", Some(status.confinement.to_string())),
        ("certificate until", status.certificate_until.map(utc_text)),
    ];
    let lines = lines.into_iter().filter_map(|(name, value)| Some(format!("{name:<18}{}\n", value?)));
    let mut text = lines.collect();
    push_agencies(&mut text, &status.per_agency);
    text
}

fn push_agencies(text: &mut String, agencies: &[AgencyStatus]) {
    text.push_str("\nagency         bets  ended\n");
    let mut agencies: Vec<&AgencyStatus> = agencies.iter().collect();
    if agencies.len() > LISTED {
        // The draw waits for those that have not ended, so they come first.
        agencies.sort_by_key(|agency| agency.ended);
    }
    for agency in agencies.iter().take(LISTED) {
        let ended = if agency.ended { "yes" } else { "no" };
        // Writing to a String cannot fail.
        writeln!(text, "{:>6} {:>12}  {ended}", agency.agency, agency.bets).ok();
    }
    let others = agencies.get(LISTED..).unwrap_or_default();
    if !others.is_empty() {
        let bets = others.iter().fold(0_u64, |sum, agency| sum.saturating_add(agency.bets));
        let ended = others.iter().filter(|agency| agency.ended).count();
        let noun = plural(bets, "bet", "bets");
        writeln!(text, "and {} more: {bets} {noun}, {ended} ended", others.len()).ok();
    }
}

pub(crate) fn draw_of(status: &Status) -> String {
    match &status.draw {
        Some(draw) => format!("winning number {}, {}", draw.winning_number, draw.at),
        None if status.drawn => "made".to_owned(),
        None => "not made".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples::status_at;

    #[test]
    fn of_many_agencies_those_that_have_not_ended_are_listed_first_and_the_rest_is_summed_up() {
        let agencies = |count: u64| {
            let agencies: Vec<_> = (0..count).map(|number| (1, number % 2 == 0)).collect();
            let table = table(&status_at(1.0, &agencies));
            table.lines().skip_while(|line| !line.ends_with("  ended")).skip(1).map(str::to_owned).collect()
        };
        let [whole, cut]: [Vec<String>; 2] = [100, 102].map(agencies);
        assert_eq!([&whole[0], &whole[99]], ["     1            1  yes", "   100            1  no"]);
        assert_eq!([&cut[0], &cut[50]], ["     2            1  no", "   102            1  no"]);
        assert_eq!([&cut[51], &cut[100]], ["     1            1  yes", "and 2 more: 2 bets, 2 ended"]);
        assert_eq!((whole.len(), cut.len()), (100, 101));
    }
}

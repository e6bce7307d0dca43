//! The status as a table, for people.

use std::fmt::Write as _;

use crate::protocol::status::Status;

/// The status for people.
pub fn table(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |name: &str, value: String| {
        writeln!(text, "{name:<18}{value}").ok();
    };
    line("agencies ended", format!("{} of {}", status.ended, status.agencies));
    line("bets stored", status.bets.to_string());
    line("draw", draw_of(status));
    line("connections", format!("{} of {}", status.handlers, status.max_clients));
    line("uptime", format!("{:.1} s", status.uptime_seconds));
    line("storage restarts", status.storage_restarts.to_string());
    line("confinement", status.confinement.to_string());
    text.push_str("\nagency         bets  ended\n");
    for agency in &status.per_agency {
        let ended = if agency.ended { "yes" } else { "no" };
        writeln!(text, "{:>6} {:>12}  {ended}", agency.agency, agency.bets).ok();
    }
    text
}

/// The draw for people.
pub fn draw_of(status: &Status) -> String {
    match &status.draw {
        Some(draw) => format!("{} won, {}", draw.winning_number, draw.at),
        None if status.drawn => "made".to_owned(),
        None => "not made".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lottery::Draw;
    use crate::status::samples;

    #[test]
    fn the_table_says_what_matters() {
        let status = samples::status(&[(1234, true)]);
        assert_eq!(
            table(&Status { agencies: 5, ..status.clone() }),
            "agencies ended    1 of 5\nbets stored       1234\ndraw              not made\n\
             connections       2 of 1024\nuptime            12.3 s\nstorage restarts  0\n\
             confinement       identity partial, limits full, landlock full, seccomp none\n\n\
             agency         bets  ended\n     1         1234  yes\n"
        );
        let draw = Some(Draw { at: "2026-01-01T00:00:00-03:00".into(), agencies: 5, winning_number: 7574 });
        assert!(table(&Status { drawn: true, draw, ..status }).contains("7574 won, 2026-01-01"));
    }
}

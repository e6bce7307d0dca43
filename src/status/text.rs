//! Numbers and durations as text.

use std::time::Duration;

use indicatif::{HumanCount, HumanDuration, HumanFloatCount};

/// Writes a number with commas between thousands.
pub(crate) fn grouped(number: impl Into<u64>) -> String {
    HumanCount(number.into()).to_string()
}

/// Returns the singular or the plural of a word.
pub(crate) fn plural<'a>(count: u64, one: &'a str, several: &'a str) -> &'a str {
    if count == 1 { one } else { several }
}

/// Writes a number with its noun.
pub(crate) fn counted(count: u64, one: &str, several: &str) -> String {
    format!("{} {}", grouped(count), plural(count, one, several))
}

/// Writes a rate, with one decimal if it is small.
pub(crate) fn rate(per_second: f64) -> String {
    let is_small = per_second > 0.0 && per_second < 9.95;
    if is_small { format!("{per_second:.1}") } else { HumanFloatCount(per_second.round()).to_string() }
}

/// Writes a duration in one unit, from seconds to years, such as `17s`.
pub(crate) fn long_time(seconds: f64) -> String {
    format!("{:#}", HumanDuration(duration(seconds)))
}

/// Writes a short duration with one decimal, such as `6.1ms`.
pub(crate) fn short_time(seconds: f64) -> String {
    format!("{:.1?}", duration(seconds))
}

/// The number comes from a server, so it may be impossible.
fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_times_are_as_precise_as_their_size() {
        assert_eq!([0.0, 0.04, 9.94, 9.96, 1234.5].map(rate), ["0", "0.0", "9.9", "10", "1,235"]);
        assert_eq!([0.0001, 0.0051, 2.0, -1.0].map(short_time), ["100.0µs", "5.1ms", "2.0s", "0.0ns"]);
        assert_eq!([5.2, 125.0, 7300.0, 1e300].map(long_time), ["5s", "2m", "2h", "0s"]);
    }
}

//! Numbers and durations as text.

/// A number with commas between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The singular or the plural of a word.
pub(crate) fn plural<'a>(count: u64, one: &'a str, several: &'a str) -> &'a str {
    if count == 1 { one } else { several }
}

/// A rate, with one decimal if it is small.
pub(crate) fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 9.95 {
        format!("{per_second:.1}")
    } else {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
        grouped(per_second.round() as u64)
    }
}

/// A duration of milliseconds to seconds.
pub(crate) fn short_time(seconds: f64) -> String {
    if seconds >= 0.9995 {
        format!("{seconds:.1} s")
    } else if seconds >= 0.009_995 {
        format!("{:.0} ms", seconds * 1e3)
    } else {
        format!("{:.2} ms", seconds * 1e3)
    }
}

/// A duration of seconds to days, in its two largest units.
pub(crate) fn long_time(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let seconds = seconds as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days} d {} h", hours % 24),
        () if hours > 0 => format!("{hours} h {} min", minutes % 60),
        () if minutes > 0 => format!("{minutes} min {} s", seconds % 60),
        () => format!("{seconds} s"),
    }
}

/// A duration in its largest unit only, without a space.
pub(crate) fn brief_time(seconds: f64) -> String {
    long_time(seconds)
        .split(' ')
        .take(2)
        .map(|word| word.get(..1).filter(|_| word == "min").unwrap_or(word))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn one_is_not_several() {
        assert_eq!([0, 1, 2].map(|count| plural(count, "bet", "bets")), ["bets", "bet", "bets"]);
    }

    #[test]
    fn rates_and_times_are_as_precise_as_their_size() {
        assert_eq!([0.0, 0.04, 9.94, 9.96, 1234.5].map(rate), ["0", "0.0", "9.9", "10", "1,235"]);
        assert_eq!(
            [0.0001, 0.0051, 0.012, 0.9996, 2.0].map(short_time),
            ["0.10 ms", "5.10 ms", "12 ms", "1.0 s", "2.0 s"]
        );
        assert_eq!(
            [5.9, 61.0, 3700.0, 90_000.0].map(long_time),
            ["5 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]
        );
        assert_eq!([5.0, 125.0, 7300.0].map(brief_time), ["5s", "2m", "2h"]);
    }
}

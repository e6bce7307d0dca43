//! How the texts of settings become values. Each function returns none if the text is not allowed.

use std::iter::zip;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::lottery::AgencyId;
use crate::lottery::bet::parse_decimal;

/// Replaces `{id}` in a path by the agency's number.
pub(crate) fn with_id(path: &Path, id: AgencyId) -> PathBuf {
    path.to_string_lossy().replace("{id}", &id.to_string()).into()
}

/// Reads a value that may be empty.
#[expect(
    clippy::option_option,
    reason = "as every function of a Kind: the outer one is none if the value is not allowed"
)]
pub(super) fn optional<T>(text: &str, read: fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { read(text).map(Some) }
}

pub(super) fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| text.into())
}

/// Reads an address to listen on, or a host name, which means all addresses. The original's configuration has a name.
pub(super) fn host(text: &str) -> Option<Result<IpAddr, String>> {
    // Digits and dots alone are a mistyped address.
    let is_name = text.contains(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    text.parse().map(Ok).ok().or_else(|| is_name.then(|| Err(text.to_owned())))
}

/// Reads an address `HOST:PORT`.
pub(crate) fn host_and_port(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let port = parse_decimal(port.as_bytes()).filter(|port| (1..=65535).contains(port))?;
    (!host.is_empty()).then(|| format!("{host}:{port}"))
}

/// How an agency talks to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// One connection, many batches in flight.
    Session,
    /// One connection per message, as the original.
    Classic,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        if self == Self::Session { "session" } else { "classic" }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Session, Self::Classic].into_iter().find(|protocol| protocol.name() == name)
    }
}

pub(super) fn seconds(text: &str) -> Option<Duration> {
    let duration = Duration::try_from_secs_f64(text.parse().ok()?).ok()?;
    (!duration.is_zero() && duration <= Duration::from_hours(24)).then_some(duration)
}

/// Reads a duration as Go's `time.ParseDuration` does, without a sign: decimal numbers, each with a unit.
pub(super) fn go_duration(mut text: &str) -> Option<Duration> {
    let units = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];
    let lengths = [1e-9, 1e-6, 1e-6, 1e-6, 1e-3, 1.0, 60.0, 3600.0];
    let mut seconds = 0.0;
    while !text.is_empty() {
        let is_digit = |c: char| c.is_ascii_digit() || c == '.';
        let (number, rest) = text.split_at(text.find(|c| !is_digit(c))?);
        let (unit, rest) = rest.split_at(rest.find(is_digit).unwrap_or(rest.len()));
        let (_, length) = zip(units, lengths).find(|(name, _)| *name == unit)?;
        seconds += number.parse::<f64>().ok()? * length;
        text = rest;
    }
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, millis) in [("5s", 5000), ("200ms", 200), ("1m30s", 90_000), ("1.5h", 5_400_000)] {
            assert_eq!(go_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "5x", "-1s", "0s", "1.2.3s", "5 s"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }
}

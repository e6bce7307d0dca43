//! The kinds of values: what each allows, how it is read and how it is shown.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::logging::{Format, Level};
use crate::lottery::AgencyId;
use crate::lottery::bet::parse_decimal;

/// A kind of values.
pub struct Kind<T: 'static> {
    /// What is allowed, in words.
    pub allowed: &'static str,
    /// The value that a text stands for; none where it is not allowed.
    pub read: fn(&str) -> Option<T>,
    /// The text of a value, where that need not be the one that it was read from.
    pub show: Option<fn(&T) -> String>,
}

impl<T> Kind<T> {
    /// What a text means as a value of this kind; none where it is not allowed.
    pub fn shown(&self, text: &str) -> Option<String> {
        let value = (self.read)(text)?;
        Some(self.show.map_or_else(|| text.to_owned(), |show| show(&value)))
    }
}

/// Whole numbers of a range of literals, which is told as it is checked.
macro_rules! number {
    ($what:literal, $least:literal ..= $most:literal) => {
        $crate::config::value::Kind {
            allowed: concat!($what, " from ", $least, " to ", $most),
            read: |text| $crate::config::value::within(text, &($least..=$most)),
            show: Some(|number| number.to_string()),
        }
    };
}
pub(super) use number;

/// The decimal number that a text is, if it is in that range.
pub fn within<T: TryFrom<u32> + PartialOrd>(text: &str, range: &RangeInclusive<T>) -> Option<T> {
    T::try_from(parse_decimal(text.as_bytes())?).ok().filter(|value| range.contains(value))
}

pub const LEVEL: Kind<Level> = Kind {
    allowed: "DEBUG, INFO, WARNING, ERROR or CRITICAL",
    read: Level::from_name,
    show: Some(|level| level.name().to_owned()),
};

pub const LOG_FORM: Kind<Format> =
    Kind { allowed: "text or json", read: Format::from_name, show: Some(|format| format.name().to_owned()) };

pub const AGENCY_ID: Kind<AgencyId> = Kind {
    allowed: "an agency's number from 1 to 65535",
    read: |text| parse_decimal(text.as_bytes()).and_then(AgencyId::new),
    show: Some(AgencyId::to_string),
};

pub const PATH: Kind<PathBuf> = Kind { allowed: "a path", read: path, show: None };

pub const AGENCY_PATH: Kind<PathBuf> =
    Kind { allowed: "a path, {id} stands for the agency's number", read: path, show: None };

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
}

/// What stands for the address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Address(IpAddr),
    /// Means all addresses.
    Name(String),
}

impl Host {
    pub fn address(&self) -> IpAddr {
        match self {
            Self::Address(address) => *address,
            Self::Name(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        }
    }

    pub fn name(self) -> Option<String> {
        if let Self::Name(name) = self { Some(name) } else { None }
    }
}

pub const HOST: Kind<Host> = Kind {
    allowed: "an IP address, or a host name for all addresses",
    read: |text| match text.parse() {
        Ok(address) => Some(Host::Address(address)),
        Err(_) => is_host_name(text).then(|| Host::Name(text.to_owned())),
    },
    show: Some(|host| host.address().to_string()),
};

fn is_host_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    // A number with dots is an address that somebody mistyped.
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.contains(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(allowed)
}

pub const ADDRESS: Kind<String> = Kind { allowed: "HOST:PORT", read: host_and_port, show: None };

/// An address as the settings have it, `HOST:PORT`; none if it is not one.
#[must_use]
pub fn host_and_port(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let port = within(port, &(1..=u16::MAX))?;
    (!host.is_empty()).then(|| format!("{host}:{port}"))
}

/// How an agency talks to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// One connection, many batches in flight.
    Session,
    /// One connection per message, as the original.
    Classic,
}

pub const PROTOCOL: Kind<Protocol> = Kind {
    allowed: "session or classic",
    read: |text| match text {
        "session" => Some(Protocol::Session),
        "classic" => Some(Protocol::Classic),
        _ => None,
    },
    show: None,
};

pub const SECONDS: Kind<Duration> = Kind {
    allowed: "seconds above 0, up to 86400, decimals allowed",
    read: |text| {
        let duration = Duration::try_from_secs_f64(text.parse().ok()?).ok()?;
        (!duration.is_zero() && duration <= Duration::from_hours(24)).then_some(duration)
    },
    show: Some(|duration| duration.as_secs_f64().to_string()),
};

/// A duration as Go's `time.ParseDuration` reads it, without a sign: decimal numbers, each with a unit.
pub const GO_DURATION: Kind<Duration> =
    Kind { allowed: "a duration above 0 such as 5s, 200ms or 1m30s", read: go_duration, show: None };

fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (value, unit_on) = rest.split_at_checked(digits)?;
        let letters = unit_on.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit_on.len());
        let (unit, after) = unit_on.split_at_checked(letters)?;
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += value.parse::<f64>().ok()? * seconds;
        rest = after;
    }
    Duration::try_from_secs_f64(total).ok().filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, millis) in
            [("5s", 5000), ("200ms", 200), ("1m30s", 90_000), ("1.5h", 5_400_000), (".5s", 500)]
        {
            assert_eq!(go_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "5x", "-1s", "0s", "1.2.3s", "5 s"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }
}

//! Formats an event as one line of bounded length, whatever its values hold.

use std::fmt::{self, Display, Write as _};

use chrono::{DateTime, FixedOffset};
use serde::de::value::{self, StringDeserializer};
use serde::{Deserialize, Serialize};

/// The severity of an event. The names are those of Python's `logging`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[repr(u8)]
pub(crate) enum Level {
    /// Details, such as a line per batch.
    Debug,
    /// The story of the contest.
    Info,
    /// An operator should look at it; the server goes on. Two other names are read: `WARN` is Python's, and `NOTICE` is a
    /// level of Go's between INFO and WARNING, which this log lacks.
    #[serde(alias = "WARN", alias = "NOTICE")]
    Warning,
    /// Something failed, and clients were refused or disconnected.
    Error,
    /// The process ends because of it.
    Critical,
}

impl Level {
    /// Returns the level of that name, in any case.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::deserialize(StringDeserializer::<value::Error>::new(name.to_ascii_uppercase())).ok()
    }
}

impl Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// The `result` of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Success,
    Fail,
    InProgress,
}

impl Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// A field of an event: key and value. A key is one word, but none of [`RESERVED`].
pub(crate) type Field<'a> = (&'a str, &'a dyn Display);

/// The keys that the log's readers reserve.
const RESERVED: [&str; 5] = ["time", "level", "action", "result", "source"];

/// The format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// The time, then `LEVEL    action: NAME | result: .. | key: value`.
    Text,
    /// `{"time":..,"level":..,"action":..,"result":..,"key":"value"}`: all values are strings.
    Json,
}

impl Format {
    /// Returns the format of that name, in any case.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::deserialize(StringDeserializer::<value::Error>::new(name.to_ascii_lowercase())).ok()
    }

    /// Writes a character so that it cannot end the value or the line.
    fn escape(self, character: char, out: &mut String) -> fmt::Result {
        let ends_line = character.is_control() || matches!(character, '\u{2028}' | '\u{2029}');
        match (self, character) {
            (Self::Text, '|') => out.push_str("\\x7c"),
            (Self::Text, '\u{2028}' | '\u{2029}') => write!(out, "\\u{{{:x}}}", u32::from(character))?,
            (Self::Text, _) if ends_line => write!(out, "\\x{:02x}", u32::from(character))?,
            (Self::Json, '"' | '\\') => out.extend(['\\', character]),
            (Self::Json, _) if ends_line => write!(out, "\\u{:04x}", u32::from(character))?,
            _ => out.push(character),
        }
        Ok(())
    }
}

/// The longest value in bytes, escapes included. Four of them fit into a line.
const MAX_VALUE: usize = 900;
/// The longest line in bytes. In a pipe, a line of this length does not mix with those of other processes.
const MAX_LINE: usize = 4096;
/// The most bytes around a key and its value, and at the end of the line.
const BORDERS: usize = 10;

/// The line, with its end.
pub(super) fn line(
    format: Format,
    now: DateTime<FixedOffset>,
    level: Level,
    action: &str,
    outcome: Outcome,
    fields: &[Field<'_>],
) -> String {
    let mut line = match format {
        Format::Text => {
            let time = now.format("%Y-%m-%d %H:%M:%S");
            format!("{time} {level:<8} action: {action} | result: {outcome}")
        }
        Format::Json => {
            let time = now.format("%Y-%m-%dT%H:%M:%S%:z");
            format!(r#"{{"time":"{time}","level":"{level}","action":"{action}","result":"{outcome}""#)
        }
    };
    let [before_key, after_key, after_value, end] = match format {
        Format::Text => [" | ", ": ", "", "\n"],
        Format::Json => [",\"", "\":\"", "\"", "}\n"],
    };
    for (key, value) in fields {
        debug_assert!(!RESERVED.contains(key), "the log's readers reserve the key {key}");
        if line.len() + key.len() + MAX_VALUE + BORDERS > MAX_LINE {
            break;
        }
        line.extend([before_key, key, after_key]);
        push_value(format, value, &mut line);
        line.push_str(after_value);
    }
    line + end
}

/// A value as it is in a line of the log, escaped and cut if it is long, for other outputs.
pub(crate) fn one_line(value: &dyn Display) -> String {
    let mut text = String::new();
    push_value(Format::Text, value, &mut text);
    text
}

fn push_value(format: Format, value: &dyn Display, out: &mut String) {
    let end = out.len() + MAX_VALUE;
    // An error ends a value that is too long, or whose `Display` fails.
    write!(Escaped { format, out, end }, "{value}").unwrap_or_default();
}

/// Escapes what is written to it, up to a length.
struct Escaped<'a> {
    format: Format,
    out: &'a mut String,
    end: usize,
}

/// The most bytes that one escaped character takes.
const LONGEST_ESCAPE: usize = 10;

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.out.len() + LONGEST_ESCAPE > self.end {
                self.out.push('…');
                return Err(fmt::Error);
            }
            self.format.escape(character, self.out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(format: Format, fields: &[Field<'_>]) -> String {
        let now = DateTime::UNIX_EPOCH.fixed_offset();
        line(format, now, Level::Warning, "x", Outcome::InProgress, fields)
    }

    #[test]
    fn no_value_breaks_a_line_or_a_field() {
        let nasty = "a | action: b\n\r\u{1b}[31m\0\u{85}\u{2028}\u{7f}ñ";
        let text = line_of(Format::Text, &[("k", &nasty), ("n", &7)]);
        let escaped = r"a \x7c action: b\x0a\x0d\x1b[31m\x00\x85\u{2028}\x7fñ";
        let start = "1970-01-01 00:00:00 WARNING  action: x | result: in_progress";
        assert_eq!(text, format!("{start} | k: {escaped} | n: 7\n"));
    }

    #[test]
    fn a_json_line_is_an_object_with_the_same_keys_and_whole_values() {
        let nasty = "a | \"b\" \\ \n\r\u{1b}[31m\0\u{85}\u{2028}\u{7f}ñ";
        let text = line_of(Format::Json, &[("k", &nasty), ("n", &7)]);
        assert!(!text.trim_end().contains(|c: char| c.is_control() || c == '\u{2028}'), "{text}");
        let expected = serde_json::json!({
            "time": "1970-01-01T00:00:00+00:00", "level": "WARNING", "action": "x", "result": "in_progress",
            "k": nasty, "n": "7",
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), expected);
    }

    #[test]
    fn a_line_is_short_enough_for_one_write_to_a_pipe() {
        let (text, json) = ("ñ|".repeat(100_000), "\"\n".repeat(100_000));
        let [text_field, json_field]: [Field<'_>; 2] = [("a", &text), ("a", &json)];
        let lines = [line_of(Format::Text, &[text_field; 20]), line_of(Format::Json, &[json_field; 20])];
        assert!(lines.iter().all(|line| line.len() <= 4096), "{lines:?}");
        let object: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
        let value = object["a"].as_str().unwrap();
        assert!(value.starts_with("\"\n\"") && value.ends_with('…'));
    }
}

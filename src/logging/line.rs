//! Formats an event as one line of bounded length, whatever its values hold.

use std::fmt::{self, Display, Write as _};

use super::{Field, Level, Outcome};

/// The format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The time, then `LEVEL    action: NAME | result: .. | key: value`.
    Text,
    /// `{"time":..,"level":..,"action":..,"result":..,"key":"value"}`: all values are strings.
    Json,
}

impl Format {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    /// The format of that name, in any case.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Text, Self::Json].into_iter().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// Write a character so that it cannot end the value or the line.
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

/// The longest value in bytes, escapes included. Four of them fit into 4,096 bytes, up to which one write to a pipe does not
/// mix with another process's.
const MAX_VALUE: usize = 900;
/// The longest line in bytes, without its time.
const MAX_LINE: usize = 4000;
/// The most bytes around a key and its value.
const BORDERS: usize = 10;

/// The line without its time. A JSON object lacks its beginning, which holds the time.
pub(crate) fn line(
    format: Format,
    level: Level,
    action: &str,
    outcome: Outcome,
    fields: &[Field<'_>],
) -> String {
    let mut line = String::with_capacity(200);
    // Writing to a String cannot fail. A value whose Display fails is cut there.
    match format {
        Format::Text => write!(line, "{:<8} action: {action} | result: {outcome}", level.name()),
        Format::Json => {
            write!(line, r#""level":"{}","action":"{action}","result":"{outcome}""#, level.name())
        }
    }
    .unwrap_or_default();
    for (key, value) in fields {
        debug_assert!(
            !matches!(*key, "time" | "level" | "action" | "result" | "source"),
            "the log's readers reserve the key {key}"
        );
        if line.len() + key.len() + MAX_VALUE + BORDERS > MAX_LINE {
            break;
        }
        match format {
            Format::Text => write!(line, " | {key}: "),
            Format::Json => write!(line, r#","{key}":""#),
        }
        .unwrap_or_default();
        push_value(format, value, &mut line);
        line.push_str(if format == Format::Json { "\"" } else { "" });
    }
    line.push_str(if format == Format::Json { "}" } else { "" });
    line
}

/// A value as in a line of the log: escaped, and cut if it is long. For other outputs.
pub(crate) fn one_line(value: &dyn Display) -> String {
    let mut text = String::new();
    push_value(Format::Text, value, &mut text);
    text
}

fn push_value(format: Format, value: &dyn Display, out: &mut String) {
    let end = out.len() + MAX_VALUE;
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

    #[test]
    fn a_line_is_level_action_result_and_fields() {
        let text = line(
            Format::Text,
            Level::Info,
            "apuesta_almacenada",
            Outcome::Success,
            &[("dni", &"1"), ("numero", &7)],
        );
        assert_eq!(text, "INFO     action: apuesta_almacenada | result: success | dni: 1 | numero: 7");
        assert!(
            line(Format::Text, Level::Critical, "x", Outcome::Fail, &[])
                .starts_with("CRITICAL action: x | result: fail")
        );
    }

    #[test]
    fn no_value_breaks_a_line_or_a_field() {
        let nasty = "a | action: b\n\r\u{1b}[31m\0\u{85}\u{2028}\u{7f}ñ";
        let text = line(Format::Text, Level::Info, "x", Outcome::InProgress, &[("k", &nasty)]);
        assert_eq!(
            text,
            "INFO     action: x | result: in_progress | k: a \\x7c action: b\\x0a\\x0d\\x1b[31m\\x00\\x85\\u{2028}\\x7fñ"
        );
    }

    #[test]
    fn a_line_is_short_enough_for_one_write_to_a_pipe() {
        let long = "ñ|".repeat(100_000);
        let field: Field<'_> = ("a", &long);
        let text = line(Format::Text, Level::Info, "x", Outcome::Fail, &[field; 20]);
        assert!(text.len() < 4050, "{}", text.len());
    }

    #[test]
    fn a_json_line_is_an_object_with_the_same_keys_and_whole_values() {
        let nasty = "a | \"b\" \\ \n\r\u{1b}[31m\0\u{85}\u{2028}\u{7f}ñ";
        let text = line(Format::Json, Level::Warning, "x", Outcome::InProgress, &[("k", &nasty), ("n", &7)]);
        assert!(!text.contains(|c: char| c.is_control() || c == '\u{2028}'), "{text}");
        let object: serde_json::Value = serde_json::from_str(&format!("{{{text}")).unwrap();
        let expected = serde_json::json!({
            "level": "WARNING", "action": "x", "result": "in_progress", "k": nasty, "n": "7",
        });
        assert_eq!(object, expected);
    }

    #[test]
    fn a_json_line_that_is_cut_is_still_an_object() {
        let long = "\"\n".repeat(100_000);
        let field: Field<'_> = ("a", &long);
        let text = line(Format::Json, Level::Info, "x", Outcome::Fail, &[field; 20]);
        assert!(text.len() < 4010, "{}", text.len());
        let object: serde_json::Value = serde_json::from_str(&format!("{{{text}")).unwrap();
        let value = object.get("a").and_then(serde_json::Value::as_str).unwrap();
        assert!(value.starts_with("\"\n\"") && value.ends_with('…'));
    }
}

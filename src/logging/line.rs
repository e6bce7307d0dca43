//! One event as one line: text, or a JSON object. Whatever is in a value, the line stays one, and of a bounded length.

use std::fmt::{self, Display, Write as _};

use super::{Field, Level, Outcome};

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `LEVEL    action: NAME | result: .. | key: value`, behind the time.
    Text,
    /// `{"time":..,"level":..,"action":..,"result":..,"key":"value"}`: all values are texts.
    Json,
}

impl Format {
    /// The form's name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    /// The form of that name, whatever its case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Text, Self::Json].into_iter().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// Writes a character so that it can't end the value or the line.
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

/// The longest value in bytes, escapes included. Four of them leave a line below 4,096 bytes, up to which one write
/// to a pipe is never torn by another process's.
const MAX_VALUE: usize = 900;
/// The longest line in bytes, without its time.
const MAX_LINE: usize = 4000;
/// What stands around a key and its value, at most, in bytes.
const BORDERS: usize = 10;

/// The line without its time: of a JSON object, all but the beginning with it.
pub fn line(format: Format, level: Level, action: &str, outcome: Outcome, fields: &[Field<'_>]) -> String {
    let mut line = String::with_capacity(200);
    // Writing to a String cannot fail; a value whose own Display fails is cut there.
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
            "the log's readers keep {key} for themselves"
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

/// A value as a line of the log has it: escaped, so that it can't break the line, and cut if it is long. For what others
/// show of it.
#[must_use]
pub fn one_line(value: &dyn Display) -> String {
    let mut text = String::new();
    push_value(Format::Text, value, &mut text);
    text
}

fn push_value(format: Format, value: &dyn Display, out: &mut String) {
    let end = out.len() + MAX_VALUE;
    write!(Escaped { format, out, end }, "{value}").unwrap_or_default();
}

/// Writes what cannot break a line or a field, up to a length.
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
    fn a_line_stays_below_the_length_that_a_pipe_keeps_whole() {
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
    fn a_json_line_is_cut_where_it_stays_an_object() {
        let long = "\"\n".repeat(100_000);
        let field: Field<'_> = ("a", &long);
        let text = line(Format::Json, Level::Info, "x", Outcome::Fail, &[field; 20]);
        assert!(text.len() < 4010, "{}", text.len());
        let object: serde_json::Value = serde_json::from_str(&format!("{{{text}")).unwrap();
        let value = object.get("a").and_then(serde_json::Value::as_str).unwrap();
        assert!(value.starts_with("\"\n\"") && value.ends_with('…'));
    }
}

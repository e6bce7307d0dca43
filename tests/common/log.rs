//! The server's log: what it says, and that every line of it keeps to the grammar that its readers rely on.

use super::log_table::{Line, assert_has};

const LEVELS: [&str; 5] = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];
/// `YYYY-MM-DD HH:MM:SS ` and the level, padded to 8, and a space.
const TIME_LEN: usize = 20;
const LEVEL_LEN: usize = 9;

/// All that a server has written to standard error so far.
#[derive(Debug, Clone)]
pub struct Log(pub String);

impl Log {
    /// The lines without their times: `INFO     action: ..`.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.lines().map(|line| line.get(TIME_LEN..).unwrap_or(line))
    }

    /// How often exactly this event was logged at this level.
    pub fn count(&self, level: &str, event: &str) -> usize {
        let wanted = format!("{level:<8} action: {event}");
        self.lines().filter(|line| *line == wanted).count()
    }

    /// Whether exactly this event was logged at level INFO.
    pub fn has(&self, event: &str) -> bool {
        self.count("INFO", event) > 0
    }

    /// How many draws were made.
    pub fn draws(&self) -> usize {
        self.lines_with("INFO     action: sorteo | result: success | ").len()
    }

    /// The lines that hold this text.
    pub fn lines_with(&self, text: &str) -> Vec<&str> {
        self.lines().filter(|line| line.contains(text)).collect()
    }

    /// The lines of that level.
    pub fn lines_of(&self, level: &str) -> Vec<&str> {
        let start = format!("{level:<8} ");
        self.lines().filter(|line| line.starts_with(&start)).collect()
    }

    /// The value that the first line of that action gives to the key.
    pub fn value(&self, action: &str, key: &str) -> Option<String> {
        let (action, key) = (format!(" action: {action} | "), format!(" | {key}: "));
        let line = self.lines().find(|line| line.contains(&action) && line.contains(&key))?;
        let (_, rest) = line.split_once(&key)?;
        Some(rest.split(" | ").next().unwrap_or(rest).to_owned())
    }

    /// Panics unless every line keeps to the grammar and is documented.
    pub fn assert_well_formed(&self) {
        assert!(self.0.is_empty() || self.0.ends_with('\n'), "the last line has no end: {}", self.0);
        // Not `lines`, which would hide a CR.
        for line in self.0.split_terminator('\n') {
            if let Err(what) = check_line(line) {
                panic!("{what}: {line:?}");
            }
            check_table(line);
        }
    }
}

/// Panics if a line that keeps to the grammar is not documented.
fn check_table(line: &str) {
    if let Ok(serde_json::Value::Object(object)) = serde_json::from_str(line) {
        let text = |key: &str| object[key].as_str().unwrap();
        let heads = ["time", "level", "action", "result"];
        let fields = object.keys().filter(|key| !heads.contains(&key.as_str())).cloned().collect();
        assert_has(&Line { level: text("level"), action: text("action"), result: text("result"), fields });
        return;
    }
    let (level, event) = line[TIME_LEN..].split_at(LEVEL_LEN);
    let mut parts = event.split(" | ").map(|part| part.split_once(": ").unwrap_or((part, "")));
    let (action, result) = (parts.next().unwrap().1, parts.next().unwrap().1);
    let fields = parts.map(|(key, _)| key.to_owned()).collect();
    assert_has(&Line { level: level.trim_end(), action, result, fields });
}

/// Whether a line keeps to the grammar; if not, why.
pub fn check_line(line: &str) -> Result<(), &'static str> {
    if line.starts_with('{') {
        return check_object(line);
    }
    let odd = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    if line.contains(odd) {
        return Err("a control character or line separator");
    }
    let (time, rest) = line.split_at_checked(TIME_LEN).ok_or("no time")?;
    if !is_time(time) {
        return Err("no time");
    }
    let (level, event) = rest.split_at_checked(LEVEL_LEN).ok_or("no level")?;
    if !LEVELS.iter().any(|name| level == format!("{name:<8} ")) {
        return Err("no level");
    }
    let parts: Vec<&str> = event.split('|').collect();
    let mut fields = parts.iter().enumerate().map(|(index, part)| trim_border(part, index, parts.len()));
    let action = fields.next().flatten().and_then(|field| field.strip_prefix("action: "));
    if !action.is_some_and(is_word) {
        return Err("no action");
    }
    let result = fields.next().flatten().and_then(|field| field.strip_prefix("result: "));
    if !matches!(result, Some("success" | "fail" | "in_progress")) {
        return Err("no result");
    }
    for field in fields {
        let (key, _) = field.and_then(|field| field.split_once(": ")).ok_or("not ` | key: value`")?;
        if !is_word(key) || matches!(key, "action" | "result" | "source") {
            return Err("a key that readers can't take");
        }
    }
    Ok(())
}

/// As `check_line`, of a line in JSON.
fn check_object(line: &str) -> Result<(), &'static str> {
    let odd = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    if line.contains(odd) {
        return Err("a control character or line separator");
    }
    let object: serde_json::Value = serde_json::from_str(line).map_err(|_| "no JSON")?;
    let object = object.as_object().ok_or("no object")?;
    if !object.values().all(serde_json::Value::is_string) {
        return Err("a value that is no text");
    }
    let text = |key: &str| object.get(key).and_then(serde_json::Value::as_str).unwrap_or("");
    let time = text("time");
    let has_offset =
        chrono::DateTime::parse_from_rfc3339(time).is_ok() && time.len() == "YYYY-MM-DDTHH:MM:SS+00:00".len();
    if !has_offset || !line.starts_with("{\"time\":\"") {
        return Err("no time");
    }
    if !LEVELS.contains(&text("level")) {
        return Err("no level");
    }
    if !is_word(text("action")) || !matches!(text("result"), "success" | "fail" | "in_progress") {
        return Err("no action or result");
    }
    if object.keys().all(|key| is_word(key) && key != "source") {
        Ok(())
    } else {
        Err("a key that readers can't take")
    }
}

/// The field between two borders ` | `, without the spaces that belong to them.
fn trim_border(part: &str, index: usize, count: usize) -> Option<&str> {
    let part = if index == 0 { part } else { part.strip_prefix(' ')? };
    if index + 1 == count { Some(part) } else { part.strip_suffix(' ') }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_time(text: &str) -> bool {
    let form = "dddd-dd-dd dd:dd:dd ";
    text.len() == form.len()
        && text.bytes().zip(form.bytes()).all(|(byte, form)| match form {
            b'd' => byte.is_ascii_digit(),
            _ => byte == form,
        })
}

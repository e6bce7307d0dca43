//! A program's log: what it says, and the checks that every line keeps to the grammar and is in the tables of
//! `docs/operations.md`.

use std::collections::BTreeSet;
use std::sync::LazyLock;

const LEVELS: [&str; 5] = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];
/// `YYYY-MM-DD HH:MM:SS ` and the level, padded to 8, and a space.
const TIME_LEN: usize = 20;
const LEVEL_LEN: usize = 9;

/// All that a program has written to standard error so far.
#[derive(Debug, Clone)]
pub struct Log(pub String);

impl Log {
    /// The lines without their times: `INFO     action: ..`.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.lines().map(|line| line.get(TIME_LEN..).unwrap_or(line))
    }

    /// Counts the lines of this level with exactly this event, whatever the tag at their end.
    pub fn count(&self, level: &str, event: &str) -> usize {
        let wanted = format!("{level:<8} action: {event}");
        self.lines().filter(|line| *line == wanted || without_tag(line) == Some(&wanted)).count()
    }

    /// Whether a line of level INFO has exactly this event.
    pub fn has(&self, event: &str) -> bool {
        self.count("INFO", event) > 0
    }

    /// Counts the lines that report a draw.
    pub fn draws(&self) -> usize {
        self.lines_with("INFO     action: sorteo | result: success | ").len()
    }

    /// The lines that contain this text.
    pub fn lines_with(&self, text: &str) -> Vec<&str> {
        self.lines().filter(|line| line.contains(text)).collect()
    }

    /// The lines of that level.
    pub fn lines_of(&self, level: &str) -> Vec<&str> {
        let start = format!("{level:<8} ");
        self.lines().filter(|line| line.starts_with(&start)).collect()
    }

    /// The value of this key in the first line of this action that has the key.
    pub fn value(&self, action: &str, key: &str) -> Option<String> {
        let (action, key) = (format!(" action: {action} | "), format!(" | {key}: "));
        let line = self.lines().find(|line| line.contains(&action) && line.contains(&key))?;
        let (_, rest) = line.split_once(&key)?;
        Some(rest.split(" | ").next().unwrap_or(rest).to_owned())
    }

    /// Panics unless every line keeps to the grammar and `docs/operations.md` has it.
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

/// The line without the field that all lines of its process end with.
fn without_tag(line: &str) -> Option<&str> {
    let (line, tag) = line.rsplit_once(" | ")?;
    TAGS.iter().any(|key| tag.starts_with(&format!("{key}: "))).then_some(line)
}

/// What the lines of a handler end with, and those of an agency.
const TAGS: [&str; 2] = ["pid", "agency_id"];

/// Panics unless `docs/operations.md` has this line, which keeps to the grammar.
fn check_table(line: &str) {
    if let Ok(serde_json::Value::Object(object)) = serde_json::from_str(line) {
        let text = |key: &str| object[key].as_str().unwrap();
        let heads = ["time", "level", "action", "result"];
        let fields = object.keys().filter(|key| !heads.contains(&key.as_str())).cloned().collect();
        assert_documented(&Line {
            level: text("level"),
            action: text("action"),
            result: text("result"),
            fields,
        });
        return;
    }
    let (level, event) = line[TIME_LEN..].split_at(LEVEL_LEN);
    let mut parts = event.split(" | ").map(|part| part.split_once(": ").unwrap_or((part, "")));
    let (action, result) = (parts.next().unwrap().1, parts.next().unwrap().1);
    let fields = parts.map(|(key, _)| key.to_owned()).collect();
    assert_documented(&Line { level: level.trim_end(), action, result, fields });
}

/// Checks that a line keeps to the grammar.
pub fn check_line(line: &str) -> Result<(), &'static str> {
    if line.starts_with('{') {
        return check_object(line);
    }
    let is_forbidden = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    if line.contains(is_forbidden) {
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
            return Err("a key that readers do not accept");
        }
    }
    Ok(())
}

/// Checks a line in JSON.
fn check_object(line: &str) -> Result<(), &'static str> {
    let is_forbidden = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    if line.contains(is_forbidden) {
        return Err("a control character or line separator");
    }
    let object: serde_json::Value = serde_json::from_str(line).map_err(|_| "not JSON")?;
    let object = object.as_object().ok_or("not an object")?;
    if !object.values().all(serde_json::Value::is_string) {
        return Err("a value that is not text");
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
        Err("a key that readers do not accept")
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

/// A row of the tables of log lines in `docs/operations.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub action: String,
    pub results: BTreeSet<String>,
    pub levels: BTreeSet<String>,
    pub fields: BTreeSet<String>,
    /// Whether each of its lines has all of these fields.
    pub has_all_fields: bool,
    /// The field that the lines of its table have besides.
    pub tag: Option<&'static str>,
}

/// A line of a log, with the keys of its fields.
#[derive(Debug)]
struct Line<'a> {
    level: &'a str,
    action: &'a str,
    result: &'a str,
    fields: BTreeSet<String>,
}

impl Row {
    fn documents(&self, line: &Line<'_>) -> bool {
        let mut others = line.fields.clone();
        let has_tag = self.tag.is_none_or(|tag| line.fields.contains(tag));
        others.retain(|field| self.fields.contains(field) || self.tag != Some(field));
        let fields_fit = has_tag
            && if self.has_all_fields { self.fields == others } else { self.fields.is_superset(&others) };
        let fits = self.action == line.action && self.results.contains(line.result);
        fits && self.levels.contains(line.level) && fields_fit
    }
}

/// All rows of the tables.
pub static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let page = include_str!("../../docs/operations.md");
    let rows: Vec<Row> = [
        ("### Lines of the server", None),
        ("### Lines of a connection", Some(TAGS[0])),
        ("### Lines of the agency, and of `bet`", Some(TAGS[1])),
        ("### Lines of `metrics`", None),
    ]
    .into_iter()
    .flat_map(|(title, tag)| {
        let table = page.lines().skip_while(move |line| *line != title).skip(1);
        let table = table.take_while(|line| !line.starts_with('#'));
        table.filter(|line| line.starts_with("| `")).map(move |row| parse(row, tag))
    })
    .collect();
    assert!(rows.len() > 60, "docs/operations.md has lost its tables of log lines");
    rows
});

fn parse(row: &str, tag: Option<&'static str>) -> Row {
    let cells: Vec<&str> = row.split('|').skip(1).map(str::trim).collect();
    let [action, results, levels, fields, _meaning, ..] = cells[..] else {
        panic!("cells are missing: {row}")
    };
    let words = |cell: &str| -> BTreeSet<String> {
        let words = cell.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let marked: BTreeSet<String> = fields.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Row {
        action: action.trim_matches('`').to_owned(),
        results: words(results),
        levels: words(levels).into_iter().filter(|word| word.chars().all(char::is_uppercase)).collect(),
        has_all_fields: words(fields) == marked,
        fields: marked,
        tag,
    }
}

/// Panics if the tables have no row for that line. They leave out `probe`, which only debug builds write.
#[track_caller]
fn assert_documented(line: &Line<'_>) {
    let known = line.action == "probe" || ROWS.iter().any(|row| row.documents(line));
    assert!(known, "docs/operations.md has no row for {line:?}");
}

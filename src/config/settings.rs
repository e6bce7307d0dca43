//! All settings: a row for each. What reads them, helps with them or prints them has it from here.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use super::value::{self, Host, Kind, Protocol, number};
use super::{CONFIG_FILE, LOG_FORMAT};
use crate::logging::{Format, Level};
use crate::lottery::AgencyId;

/// One setting, as people see it.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its name, in the file and in the environment.
    pub key: &'static str,
    /// Its value where nothing is said; empty where it must be said, or is off.
    pub default: &'static str,
    /// What values it takes.
    pub allowed: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// What a text means as its value, in words; none where that is not allowed.
    pub(super) shown: fn(&str) -> Option<String>,
}

/// A setting whose values are of this type.
pub(super) struct Key<T: 'static> {
    pub(super) setting: Setting,
    pub(super) read: fn(&str) -> Option<T>,
}

/// The settings of one program.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The section of the file that they stand in.
    pub section: &'static str,
    /// What stands before a key in the environment.
    pub prefix: &'static str,
    /// Each of them, in the order in which they are read.
    pub rows: &'static [Setting],
}

impl Settings {
    /// The environment variable that overrides a setting. That of the log's form is the same for all: it has to be known
    /// before it is known whose settings count.
    #[must_use]
    pub fn variable(&self, key: &str) -> String {
        if key == LOG_FORMAT { key.to_owned() } else { format!("{}{key}", self.prefix) }
    }

    /// The settings as a text for `--help`, a line each.
    #[must_use]
    pub fn help(&self) -> String {
        let Self { section, prefix, rows } = self;
        let before = match *prefix {
            "" => String::new(),
            prefix => format!(" with {prefix} before it ({LOG_FORMAT} has none)"),
        };
        let mut text = format!(
            "Settings, from {CONFIG_FILE} in the current directory (section [{section}]), each overridden by the \
             environment variable of its name{before}:\n"
        );
        for Setting { key, default, allowed, about, .. } in *rows {
            let default = if default.is_empty() { String::new() } else { format!("; {default} unless set") };
            // Writing to a String cannot fail.
            write!(text, "\n  {key}\n          {about} ({allowed}{default})").unwrap_or_default();
        }
        text
    }
}

/// Makes a [`Settings`] of a table, and of each row a [`Key`], in a module of that name. A row is a key, the type of its
/// values, its default, their kind, and what it is for.
macro_rules! settings {
    ($(#[$doc:meta])* $settings:ident, $module:ident, [$section:literal], $prefix:literal:
     $($key:ident: $type:ty = $row:expr;)*) => {
        $(#[$doc])*
        pub const $settings: Settings =
            Settings { section: $section, prefix: $prefix, rows: &[$($module::$key.setting),*] };

        pub(super) mod $module {
            use super::*;

            $(pub const $key: Key<$type> = {
                const ROW: (&str, Kind<$type>, &str) = $row;
                let (default, Kind { allowed, read, .. }, about) = ROW;
                let shown = |text: &str| ROW.1.shown(text);
                Key { setting: Setting { key: stringify!($key), default, allowed, about, shown }, read }
            };)*
        }
    };
}

/// The one setting of both programs.
const FORM: (&str, Kind<Format>, &str) =
    ("text", value::LOG_FORM, "the form of the log: lines of text, or a JSON object per line");

settings! {
    /// The settings of `loteria server`.
    SERVER_SETTINGS, server, ["DEFAULT"], "":
    SERVER_IP: Host = ("0.0.0.0", value::HOST, "address to listen on");
    SERVER_PORT: u16 = ("12345", number!("a port", 0..=65535), "port to listen on; 0 takes a free one");
    SERVER_LISTEN_BACKLOG: u16 =
        ("128", number!("a number", 1..=65535), "connections that may wait to be accepted");
    LOGGING_LEVEL: Level = ("INFO", value::LEVEL, "the least level that is logged");
    LOG_FORMAT: Format = FORM;
    CLIENTS_AMOUNT: u16 = ("5", number!("a number", 1..=65535), "how many agencies take part: 1 to this");
    STORAGE_FILEPATH: PathBuf =
        ("./bets.csv", value::PATH, "the file of all bets; its state file stands beside it");
    LOTTERY_WINNER_NUMBER: u32 = ("7574", number!("a number", 0..=4_294_967_295), "the number that wins");
    MAX_CLIENTS: u32 = ("1024", number!("a number", 1..=1_000_000), "connections served at once; more wait");
    CLIENT_TIMEOUT: Duration = ("30", value::SECONDS, "how long a client may stall");
    MAX_PAYLOAD: u32 = ("65536", number!("bytes", 1..=1_048_576), "the longest message that is taken");
    METRICS_ADDRESS: Option<String> =
        ("", value::LISTEN_ADDRESS, "where Prometheus can scrape /metrics; none unless set");
}

settings! {
    /// The settings of `loteria agency`.
    AGENCY_SETTINGS, agency, ["AGENCY"], "CLI_":
    ID: AgencyId = ("", value::AGENCY_ID, "the agency's number; has to be given");
    SERVER_ADDRESS: String = ("server:12345", value::ADDRESS, "where the server is");
    LOOP_PERIOD: Duration = ("5s", value::GO_DURATION, "how often classic mode asks for the result");
    LOG_LEVEL: Level = ("INFO", value::LEVEL, "the least level that is logged");
    LOG_FORMAT: Format = FORM;
    BATCH_MAXAMOUNT: usize = ("136", number!("a number", 1..=1_000_000), "the most bets in one message");
    PROTOCOL: Protocol =
        ("session", value::PROTOCOL, "classic talks to a server that knows only the classic messages");
    BETS_FILE: PathBuf = ("./agency-{id}.csv", value::AGENCY_PATH,
        "the bets: first name, last name, document, birthdate, number");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cells of the rows of the README's table below this head, without their quotes.
    fn readme(head: &str) -> Vec<Vec<String>> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (_, table) = text.split_once(head).unwrap();
        let cells = |row: &str| row.split('|').skip(1).map(|cell| cell.trim().replace('`', "")).collect();
        table.lines().skip(2).take_while(|line| line.starts_with('|')).map(cells).collect()
    }

    fn assert_told(setting: &Setting, default: &str, allowed: &str) {
        let Setting { key, default: ours, allowed: of_ours, .. } = setting;
        let without = ["empty", "none: must be given"];
        assert!(default == *ours || (ours.is_empty() && without.contains(&default)), "{key}: {default}");
        if let Some((_, range)) = of_ours.split_once(" from ") {
            assert_eq!(allowed, range, "{key}");
        }
    }

    #[test]
    fn the_readme_tells_each_setting_with_its_default_and_its_range() {
        let server = readme("\n| key | default | allowed | meaning |");
        assert_eq!(server.len(), SERVER_SETTINGS.rows.len());
        for (row, setting) in server.iter().zip(SERVER_SETTINGS.rows) {
            assert_eq!(row[0], setting.key);
            assert_told(setting, &row[1], &row[2]);
        }
        let agency = readme("\n| key | environment | default | allowed | meaning |");
        assert_eq!(agency.len(), AGENCY_SETTINGS.rows.len());
        for (row, setting) in agency.iter().zip(AGENCY_SETTINGS.rows) {
            assert_eq!(row[0], setting.key);
            assert_eq!(row[1].split(',').next(), Some(&*AGENCY_SETTINGS.variable(setting.key)));
            assert_told(setting, &row[2], &row[3]);
        }
    }

    #[test]
    fn each_default_is_allowed_and_stands_as_it_is_shown() {
        for setting in SERVER_SETTINGS.rows.iter().chain(AGENCY_SETTINGS.rows) {
            let shown = (setting.shown)(setting.default);
            let expected = (setting.key != "ID").then_some(setting.default);
            assert_eq!(shown.as_deref(), expected, "{}", setting.key);
        }
    }
}

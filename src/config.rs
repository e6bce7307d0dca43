//! The configuration: `config.ini` in the current directory, and environment variables, which override it.
//!
//! Each setting is one row of a table below: its field, its key, its default, what is allowed, and what it is for. The
//! help, the faults and `server --check` are made from the same rows. To add a setting, add a row.

use std::collections::HashMap;
use std::env;
use std::fs::File;
use std::io::ErrorKind;
use std::iter::zip;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use crate::logging::{self, Field, Format, LOG_FORMAT, Level, Outcome, one_line, time_zone};
use crate::lottery::bet::parse_decimal;
use crate::lottery::{AgencyId, AgencyList};
use crate::system::read_whole;

const CONFIG_FILE: &str = "config.ini";
const ALL_ADDRESSES: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// One setting, as people see it.
#[derive(Debug)]
pub struct Setting {
    /// Its name in the file. The name of its environment variable may have a prefix.
    pub key: &'static str,
    /// The value if none is given; empty if one must be given.
    pub default: &'static str,
    /// What values are allowed.
    pub allowed: &'static str,
    pub(crate) about: &'static str,
}

/// The settings of one program.
#[derive(Debug)]
pub struct Settings {
    pub(crate) section: &'static str,
    pub(crate) prefix: &'static str,
    /// Each of them, in the order of the help.
    pub rows: &'static [Setting],
}

/// What values are allowed: in words, and as a function that reads a value if it is allowed.
struct Kind<T>(&'static str, fn(&str) -> Option<T>);

/// Defines the struct of a table's values, a function that reads them, and the list of the table's [`Setting`]s.
macro_rules! settings {
    ($(#[$doc:meta])* $config:ident, $settings:ident = $section:literal, $prefix:literal:
     $($field:ident: $type:ty = $key:ident, $default:literal, $kind:expr, $about:literal;)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) struct $config {
            $(pub(crate) $field: $type,)*
            /// The path of the file that was read, or `none`.
            pub(crate) config_file: String,
        }

        #[doc = concat!("The settings of `", stringify!($config), "`.")]
        pub static $settings: Settings = Settings {
            section: $section,
            prefix: $prefix,
            rows: &[$({
                const KIND: Kind<$type> = $kind;
                Setting { key: stringify!($key), default: $default, allowed: KIND.0, about: $about }
            }),*],
        };

        impl $config {
            fn read() -> Result<Self, Faults> {
                let mut sources = Sources::load(&$settings);
                $(let $field = sources.get(stringify!($key), $default, &$kind);)*
                if let ($(Some($field),)*) = ($($field,)*) && sources.faults.is_empty() {
                    return Ok(Self { $($field,)* config_file: sources.config_file });
                }
                Err(sources.into_faults())
            }
        }
    };
}

/// The numbers of a range.
macro_rules! number {
    ($what:literal, $least:literal ..= $most:literal) => {
        Kind(concat!($what, " from ", $least, " to ", $most), |text| {
            parse_decimal(text.as_bytes())?.try_into().ok().filter(|number| ($least..=$most).contains(number))
        })
    };
}

const LEVEL: Kind<Level> = Kind("DEBUG, INFO, WARNING (or WARN, NOTICE), ERROR, CRITICAL", Level::from_name);
const TLS_FOLDER: Kind<Option<PathBuf>> = Kind("a path; empty for plain TCP", |text| optional(text, path));
const TIME_LIMIT: Kind<Option<Duration>> =
    Kind("a duration above 0 such as 5s or 1m30s, or empty for no limit", |text| optional(text, go_duration));
const FORMAT: Kind<Format> = Kind("text or json", Format::from_name);
const ZONE: Kind<()> = Kind(time_zone::ALLOWED, |zone| time_zone::is_known(zone).then_some(()));

settings! {
    /// What `loteria server` runs with.
    ServerConfig, SERVER_SETTINGS = "[DEFAULT]", "":
    host: Result<IpAddr, String> = SERVER_IP, "0.0.0.0",
        Kind("an IP address, or a host name for all addresses", host), "address to listen on";
    port: u16 = SERVER_PORT, "12345", number!("a port", 0..=65535), "port to listen on; 0 takes a free one";
    listen_backlog: u16 = SERVER_LISTEN_BACKLOG, "128", number!("a number", 1..=65535),
        "connections that may wait to be accepted";
    logging_level: Level = LOGGING_LEVEL, "INFO", LEVEL, "the lowest level that is logged";
    log_format: Format = LOG_FORMAT, "text", FORMAT, "the format of the log: text lines, or a JSON object per line";
    clients_amount: u16 = CLIENTS_AMOUNT, "5", number!("a number", 1..=65535),
        "how many agencies take part; they are numbered from 1";
    storage_filepath: PathBuf = STORAGE_FILEPATH, "./bets.csv", Kind("a path", path),
        "the file of all bets; its state file is beside it";
    winner_number: u32 = LOTTERY_WINNER_NUMBER, "7574", number!("a number", 0..=4_294_967_295),
        "the number that wins";
    max_clients: u32 = MAX_CLIENTS, "1024", number!("a number", 1..=1_000_000),
        "connections served at once; others wait";
    client_timeout: Duration = CLIENT_TIMEOUT, "30",
        Kind("seconds above 0, up to 86400, decimals allowed", seconds), "how long a client may stall";
    max_payload: u32 = MAX_PAYLOAD, "65536", number!("bytes", 1..=1_048_576), "the longest message that is accepted";
    tls_dir: Option<PathBuf> = TLS_DIR, "", TLS_FOLDER,
        "a folder with tls.crt, tls.key, ca.crt and perhaps ca.crl: agencies must have a certificate";
    plain_agencies: AgencyList = PLAIN_AGENCIES, "",
        Kind("a list of agencies such as 2,5-7, or all", AgencyList::parse),
        "with TLS_DIR, the agencies that may still come without a certificate";
}

settings! {
    /// What `loteria agency` runs with.
    AgencyConfig, AGENCY_SETTINGS = "[AGENCY]", "CLI_":
    id: AgencyId = ID, "",
        Kind("an agency's number from 1 to 65535", |text| parse_decimal(text.as_bytes()).and_then(AgencyId::new)),
        "the agency's number; must be given";
    server_address: String = SERVER_ADDRESS, "server:12345", Kind("HOST:PORT", host_and_port), "where the server is";
    tls_dir: Option<PathBuf> = TLS_DIR, "", TLS_FOLDER,
        "a folder with tls.crt, tls.key and ca.crt: the connection is TLS; {id} stands for the agency's number";
    loop_period: Duration = LOOP_PERIOD, "5s",
        Kind("a duration above 0 such as 5s, 200ms or 1m30s", go_duration), "how often classic mode asks for the result";
    log_level: Level = LOG_LEVEL, "INFO", LEVEL, "the lowest level that is logged";
    log_format: Format = LOG_FORMAT, "text", FORMAT, "the format of the log: text lines, or a JSON object per line";
    batch_max_amount: u64 = BATCH_MAXAMOUNT, "136", number!("a number", 1..=1_000_000),
        "the most bets in one message";
    batch_max_bytes: Option<usize> = BATCH_MAXBYTES, "",
        Kind("bytes from 1 to 1048576, or empty", |text| optional(text, number!("", 1..=1_048_576).1)),
        "the longest message with bets; empty for 8192 in classic mode, for the server's MAX_PAYLOAD in session mode";
    connect_timeout: Option<Duration> = CONNECT_TIMEOUT, "", TIME_LIMIT,
        "how long to try to connect, or in session mode to open a session, before the agency gives up";
    result_timeout: Option<Duration> = RESULT_TIMEOUT, "", TIME_LIMIT,
        "how long to wait for the result after the last bet, before the agency gives up";
    is_classic: bool = PROTOCOL, "session",
        Kind("session or classic", |name| ["session", "classic"].contains(&name).then_some(name == "classic")),
        "classic is for a server that knows only the classic messages";
    bets_file: PathBuf = BETS_FILE, "./agency-{id}.csv", Kind("a path; {id} stands for the agency's number", path),
        "the bets: first name, last name, document, birthdate, number";
}

static TABLES: [&Settings; 2] = [&SERVER_SETTINGS, &AGENCY_SETTINGS];

impl Settings {
    /// Returns the environment variable that overrides a setting. Those that are the same for all programs have no prefix.
    pub(crate) fn variable(&self, key: &str) -> String {
        if [LOG_FORMAT, "TZ"].contains(&key) { key.to_owned() } else { format!("{}{key}", self.prefix) }
    }
}

/// Reads a value that may be empty.
#[expect(clippy::option_option, reason = "the outer one is none if the value is not allowed")]
fn optional<T>(text: &str, read: fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { read(text).map(Some) }
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| text.into())
}

/// Replaces `{id}` in a path by the agency's number.
pub(crate) fn with_id(path: &Path, id: AgencyId) -> PathBuf {
    path.to_string_lossy().replace("{id}", &id.to_string()).into()
}

/// Reads an address to listen on. A host name, as in the original's configuration, means all addresses.
fn host(text: &str) -> Option<Result<IpAddr, String>> {
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

fn seconds(text: &str) -> Option<Duration> {
    let duration = Duration::try_from_secs_f64(text.parse().ok()?).ok()?;
    (!duration.is_zero() && duration <= Duration::from_hours(24)).then_some(duration)
}

/// Reads a duration as Go's `time.ParseDuration` does, without a sign: decimal numbers, each with a unit.
fn go_duration(mut text: &str) -> Option<Duration> {
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

impl ServerConfig {
    pub(crate) fn load() -> Result<Self, Faults> {
        let config = Self::read()?;
        if config.tls_dir.is_some() || config.plain_agencies.is_empty() {
            return Ok(config);
        }
        // Its operator believes that the other agencies must prove who they are.
        let error = "without TLS_DIR all agencies may come without a certificate".into();
        let value = config.plain_agencies.to_string();
        let fault = vec![("key", "PLAIN_AGENCIES".into()), ("value", value), ("error", error)];
        Err(Faults { faults: vec![fault], format: config.log_format })
    }

    pub(crate) fn listen_address(&self) -> SocketAddr {
        SocketAddr::new(*self.host.as_ref().unwrap_or(&ALL_ADDRESSES), self.port)
    }
}

impl AgencyConfig {
    pub(crate) fn load() -> Result<Self, Faults> {
        let mut config = Self::read()?;
        config.bets_file = with_id(&config.bets_file, config.id);
        config.tls_dir = config.tls_dir.map(|folder| with_id(&folder, config.id));
        Ok(config)
    }
}

/// Checks the environment's `LOG_FORMAT`, for a command that has no other setting.
pub(crate) fn check_log_format() -> Result<(), Faults> {
    let mut sources = Sources::new(&AGENCY_SETTINGS);
    sources.get(LOG_FORMAT, "text", &FORMAT).map(drop).ok_or_else(|| sources.into_faults())
}

/// Makes the table that `server --check` prints: each setting of the server, its value and where that came from.
pub(crate) fn in_force() -> String {
    let sources = Sources::load(&SERVER_SETTINGS);
    let line = |&Setting { key, default, .. }: &Setting| {
        let (text, mut origin) = sources.find(key).unwrap_or((default.to_owned(), "default".to_owned()));
        let mut value = one_line(&text);
        if let ("SERVER_IP", Some(Err(name))) = (key, host(&text)) {
            origin.extend(["; ", &name, " is a host name, which means all addresses"]);
            value = ALL_ADDRESSES.to_string();
        }
        format!("{key:<21}  {value:<10}  {origin}\n")
    };
    SERVER_SETTINGS.rows.iter().map(line).collect()
}

/// Returns where a setting of the server was given. None if its default holds.
pub(crate) fn origin(key: &str) -> Option<String> {
    Sources::load(&SERVER_SETTINGS).find(key).map(|(_, origin)| origin)
}

/// The faults of a configuration, at least one.
#[derive(Debug)]
pub(crate) struct Faults {
    faults: Vec<Fault>,
    format: Format,
}

/// The fields of the line that reports one fault.
type Fault = Vec<(&'static str, String)>;

impl Faults {
    /// Logs each fault, in the format that the configuration selects.
    pub(crate) fn log(&self) {
        logging::set_format(self.format);
        for fault in &self.faults {
            let fields: Vec<Field<'_>> = fault.iter().map(|(key, text)| (*key, text as _)).collect();
            logging::event(Level::Critical, "config", Outcome::Fail, &fields);
        }
    }

    /// Describes each fault in a line for people.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.faults.iter().map(|fault| {
            let fields = fault.iter().map(|(key, text)| format!(" | {key}: {}", one_line(text)));
            format!("configuration{}", fields.collect::<String>())
        })
    }
}

/// The environment, the settings of the file, and the faults found so far.
struct Sources {
    settings: &'static Settings,
    config_file: String,
    /// The file's values by section and key, each with its line.
    entries: HashMap<(&'static str, String), (String, usize)>,
    faults: Vec<Fault>,
}

impl Sources {
    /// Reads the environment only.
    fn new(settings: &'static Settings) -> Self {
        let mut sources =
            Self { settings, config_file: "none".into(), entries: HashMap::new(), faults: vec![] };
        sources.get("TZ", "", &ZONE);
        sources
    }

    /// Reads the file too. A missing one is no fault.
    fn load(settings: &'static Settings) -> Self {
        let mut sources = Self::new(settings);
        match File::open(CONFIG_FILE).and_then(read_whole) {
            Ok(bytes) => {
                let path = absolute(CONFIG_FILE).unwrap_or(CONFIG_FILE.into());
                sources.config_file = path.display().to_string();
                sources.parse(&bytes);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => sources.faults.push(vec![("error", format!("can't read {CONFIG_FILE}: {error}"))]),
        }
        sources
    }

    /// Reads an INI file as Python's `configparser` does, which the original uses: `=` or `:`, and a comment has a line of
    /// its own. But no value spans lines, and names may be in any case.
    fn parse(&mut self, bytes: &[u8]) {
        let mut section = None;
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes); // Some editors write this mark first.
        for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            match (str::from_utf8(line).map(str::trim), section) {
                (Err(_), _) => self.fault_at(number, vec![], "the line is not UTF-8".to_owned()),
                (Ok(line), _) if line.is_empty() || line.starts_with(['#', ';']) => {}
                (Ok(line), _) if line.starts_with('[') => section = self.section(number, line),
                (Ok(line), Some(settings)) => self.entry(number, line, settings),
                (Ok(line), None) if self.faults.is_empty() => {
                    self.fault_at(number, vec![], format!("{line:?} is before the first [SECTION]"));
                }
                (Ok(_), None) => {} // Its section is unknown, which is a fault already.
            }
        }
    }

    fn section(&mut self, number: usize, line: &str) -> Option<&'static Settings> {
        let name = line.split_inclusive(']').next().unwrap_or_default();
        let found = TABLES.into_iter().find(|table| table.section.eq_ignore_ascii_case(name));
        if found.is_none() {
            let near = nearest(name, TABLES.into_iter().map(|table| table.section));
            self.fault_at(number, vec![], format!("there is no section {name}; the nearest name is {near}"));
        }
        found
    }

    fn entry(&mut self, line: usize, text: &str, settings: &'static Settings) {
        let Some((key, value)) = text.split_once(['=', ':']) else {
            return self.fault_at(line, vec![], format!("{text:?} has no value: KEY = VALUE is needed"));
        };
        let (key, value) = (key.trim_end().to_ascii_uppercase(), value.trim_start().to_owned());
        let has = |table: &&Settings| table.rows.iter().any(|setting| setting.key == key);
        let is_variable = |setting: &&Setting| AGENCY_SETTINGS.variable(setting.key) == key;
        let place = (settings.section, key.clone());
        let error = if let Some((_, first)) = self.entries.get(&place) {
            format!("line {first} sets this key already")
        } else if has(&settings) {
            self.entries.insert(place, (value, line));
            return;
        } else if let Some(other) = TABLES.into_iter().find(has) {
            format!("this setting belongs to the section {}", other.section)
        } else if let Some(Setting { key, .. }) = AGENCY_SETTINGS.rows.iter().find(is_variable) {
            let section = AGENCY_SETTINGS.section;
            format!("this is an environment variable; here it is {key}, in the section {section}")
        } else {
            let near = nearest(&key, settings.rows.iter().map(|setting| setting.key));
            format!("there is no such setting; the nearest name is {near}")
        };
        self.fault_at(line, vec![("key", key), ("value", value)], error);
    }

    fn fault_at(&mut self, line: usize, mut fields: Fault, error: String) {
        fields.extend([("origin", format!("{CONFIG_FILE} line {line}")), ("error", error)]);
        self.faults.push(fields);
    }

    /// Returns the text given for a setting, and where it was given.
    fn find(&self, key: &str) -> Option<(String, String)> {
        let name = self.settings.variable(key);
        if let Some(value) = env::var_os(&name) {
            return Some((value.to_string_lossy().into_owned(), format!("environment variable {name}")));
        }
        let (value, line) = self.entries.get(&(self.settings.section, key.to_owned()))?;
        Some((value.clone(), format!("{CONFIG_FILE} line {line}")))
    }

    /// Returns the value of a setting. If it is not allowed, adds a fault and returns `None`.
    fn get<T>(&mut self, key: &str, default: &str, Kind(allowed, read): &Kind<T>) -> Option<T> {
        let (text, origin) = self.find(key).unzip();
        let found = read(text.as_deref().unwrap_or(default));
        if found.is_none() {
            let before_comment = text.as_ref().and_then(|text| text.split(['#', ';']).next());
            let has_comment = before_comment.is_some_and(|value| read(value.trim_end()).is_some());
            let comment = has_comment.then_some("a comment must be on a line of its own");
            let error = if text.is_none() { Some("not set") } else { comment };
            let fields = [
                ("key", Some(self.settings.variable(key))),
                ("value", text),
                ("origin", origin),
                ("allowed", Some((*allowed).to_owned())),
                ("error", error.map(str::to_owned)),
            ];
            self.faults.push(fields.into_iter().filter_map(|(key, text)| Some((key, text?))).collect());
        }
        found
    }

    fn into_faults(self) -> Faults {
        let format = self.find(LOG_FORMAT).and_then(|(text, _)| Format::from_name(&text));
        Faults { faults: self.faults, format: format.unwrap_or(Format::Text) }
    }
}

/// Returns the name that is most like a mistyped one. A typo leaves the letters before it and after it unchanged.
fn nearest(typo: &str, names: impl Iterator<Item = &'static str>) -> &'static str {
    let typo = typo.to_ascii_uppercase();
    let likeness = |name: &&str| {
        let before = zip(typo.bytes(), name.bytes()).take_while(|(a, b)| a == b).count();
        let after = zip(typo.bytes().rev(), name.bytes().rev()).take_while(|(a, b)| a == b).count();
        200 * (before + after) / (typo.len() + name.len())
    };
    names.max_by_key(likeness).unwrap_or_default()
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

//! The configuration: `config.ini` in the current directory, and environment variables, which override it.
//!
//! Each setting is one row of a table below: its field, its key, its default, what is allowed, and what it is for. The
//! help, the faults and `server --check` are made from the same rows. To add a setting, add a row. `values` has the functions
//! that read values of several settings.

mod values;

use std::collections::HashMap;
use std::env;
use std::fs::File;
use std::io::ErrorKind;
use std::iter::zip;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{PathBuf, absolute};
use std::time::Duration;

pub(crate) use self::values::{Protocol, host_and_port, with_id};
use self::values::{go_duration, host, optional, path, seconds};
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
            fn read(mut sources: Sources) -> Result<Self, Faults> {
                $(let $field = sources.get(stringify!($key), $default, &$kind);)*
                match ($($field,)*) {
                    ($(Some($field),)*) if sources.faults.is_empty() => {
                        Ok(Self { $($field,)* config_file: sources.config_file })
                    }
                    _ => Err(sources.into_faults()),
                }
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
        Kind("a list of agencies such as 2,5-7, or all", |text| text.parse().ok()),
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
    protocol: Protocol = PROTOCOL, "session", Kind("session or classic", Protocol::from_name),
        "classic is for a server that knows only the classic messages";
    bets_file: PathBuf = BETS_FILE, "./agency-{id}.csv", Kind("a path; {id} stands for the agency's number", path),
        "the bets: first name, last name, document, birthdate, number";
}

static TABLES: [&Settings; 2] = [&SERVER_SETTINGS, &AGENCY_SETTINGS];

impl Settings {
    /// The environment variable that overrides a setting. `LOG_FORMAT` has no prefix: it is the same for all programs.
    pub(crate) fn variable(&self, key: &str) -> String {
        if key == LOG_FORMAT { key.to_owned() } else { format!("{}{key}", self.prefix) }
    }

    fn with_variable(&self, name: &str) -> Option<&Setting> {
        self.rows.iter().find(|setting| self.variable(setting.key) == name)
    }
}

impl ServerConfig {
    pub(crate) fn load() -> Result<Self, Faults> {
        let config = Self::read(Sources::load(&SERVER_SETTINGS))?;
        if config.tls_dir.is_some() || config.plain_agencies.is_empty() {
            return Ok(config);
        }
        // Its operator believes that the other agencies must prove who they are.
        let error = "without TLS_DIR all agencies may come without a certificate";
        let value = config.plain_agencies.to_string();
        let fields = [("key", "PLAIN_AGENCIES".to_owned()), ("value", value), ("error", error.to_owned())];
        Err(Faults { faults: vec![fields.to_vec()], format: Some(config.log_format) })
    }

    pub(crate) fn listen_address(&self) -> SocketAddr {
        SocketAddr::new(*self.host.as_ref().unwrap_or(&ALL_ADDRESSES), self.port)
    }
}

impl AgencyConfig {
    pub(crate) fn load() -> Result<Self, Faults> {
        let mut config = Self::read(Sources::load(&AGENCY_SETTINGS))?;
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
pub(crate) fn in_force() -> Result<String, Faults> {
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
    let table = SERVER_SETTINGS.rows.iter().map(line).collect();
    ServerConfig::read(sources).map(|_| table)
}

/// Where a setting of the server was given. None if its default holds.
pub(crate) fn origin(key: &str) -> Option<String> {
    Sources::load(&SERVER_SETTINGS).find(key).map(|(_, origin)| origin)
}

/// The faults of a configuration, at least one.
#[derive(Debug)]
pub(crate) struct Faults {
    faults: Vec<Fault>,
    format: Option<Format>,
}

/// The fields of the line that reports one fault.
type Fault = Vec<(&'static str, String)>;

impl Faults {
    /// Logs each fault, in the format that the configuration selects.
    pub(crate) fn log(&self) {
        if let Some(format) = self.format {
            logging::set_format(format);
        }
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
    fn new(settings: &'static Settings) -> Self {
        let fault = |zone| {
            let [key, origin, allowed] =
                ["TZ", "environment variable TZ", time_zone::ALLOWED].map(str::to_owned);
            vec![("key", key), ("value", zone), ("origin", origin), ("allowed", allowed)]
        };
        let faults = time_zone::unknown().map(fault).into_iter().collect();
        Self { settings, config_file: "none".to_owned(), entries: HashMap::new(), faults }
    }

    /// Reads the file; a missing one is no fault.
    fn load(settings: &'static Settings) -> Self {
        let mut sources = Self::new(settings);
        match File::open(CONFIG_FILE).and_then(read_whole) {
            Ok(bytes) => {
                sources.config_file =
                    absolute(CONFIG_FILE).unwrap_or(CONFIG_FILE.into()).display().to_string();
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
            let Ok(line) = str::from_utf8(line).map(str::trim) else {
                self.fault_at(number, vec![], "the line is not UTF-8".to_owned());
                continue;
            };
            match section {
                _ if line.is_empty() || line.starts_with(['#', ';']) => {}
                _ if line.starts_with('[') => section = self.section(number, line),
                Some(settings) => self.entry(number, line, settings),
                None if self.faults.is_empty() => {
                    self.fault_at(number, vec![], format!("{line:?} is before the first [SECTION]"));
                }
                None => {} // Its section is unknown, which is a fault already.
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
        let place = (settings.section, key.clone());
        let error = if let Some((_, first)) = self.entries.get(&place) {
            format!("line {first} sets this key already")
        } else if has(&settings) {
            self.entries.insert(place, (value, line));
            return;
        } else if let Some(other) = TABLES.into_iter().find(has) {
            format!("this setting belongs to the section {}", other.section)
        } else if let Some(Setting { key, .. }) = AGENCY_SETTINGS.with_variable(&key) {
            format!(
                "this is an environment variable; here it is {key}, in the section {}",
                AGENCY_SETTINGS.section
            )
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
            let has_comment =
                |text: &String| text.split(['#', ';']).any(|part| read(part.trim_end()).is_some());
            let error = match &text {
                None => Some("not set".to_owned()),
                Some(text) if has_comment(text) => Some("a comment must be on a line of its own".to_owned()),
                Some(_) => None,
            };
            let (key, allowed) = (Some(self.settings.variable(key)), Some((*allowed).to_owned()));
            let fields =
                [("key", key), ("value", text), ("origin", origin), ("allowed", allowed), ("error", error)];
            self.faults.push(fields.into_iter().filter_map(|(key, text)| Some((key, text?))).collect());
        }
        found
    }

    fn into_faults(self) -> Faults {
        let format = self.find(LOG_FORMAT).and_then(|(text, _)| Format::from_name(&text));
        Faults { faults: self.faults, format }
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

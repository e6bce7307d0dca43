//! Where values come from: the environment first, else the file, else the default.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use configparser::ini::{Ini, IniDefault};
use memchr::memchr_iter;
use thiserror::Error;

use super::settings::{Key, Setting, Settings};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The environment variable of that name.
    Environment(String),
    /// That section of the file.
    File(PathBuf, &'static str),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::File(path, section) => write!(f, "{} [{section}]", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Why the configuration can't be used. One line, whatever it is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A value that is not allowed.
    #[error("{key} is {value:?} (from {origin}), but must be {allowed}")]
    Value {
        /// The setting.
        key: String,
        /// What it was set to.
        value: String,
        /// By whom.
        origin: Source,
        /// What would be allowed.
        allowed: &'static str,
    },
    /// A key in the file that is none of ours.
    #[error("{key} = {value:?} in {origin} is no setting; the settings are {allowed}")]
    UnknownKey {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// The file.
        origin: Source,
        /// All that there are.
        allowed: String,
    },
    /// The file can't be read, or is no INI file.
    #[error("{}: {error}; allowed is an INI file, such as [DEFAULT] and below it SERVER_PORT = 12345", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
}

/// The variable of that name of this process's environment.
pub fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// All that was said about the settings of one program.
pub struct Sources<'a> {
    settings: Settings,
    environment: &'a dyn Fn(&str) -> Option<String>,
    path: &'a Path,
    /// By key, what the section of the file gives.
    file: BTreeMap<&'static str, String>,
}

impl<'a> Sources<'a> {
    /// Reads the file. One that is not there gives nothing.
    pub fn load(
        settings: Settings,
        path: &'a Path,
        environment: &'a dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        Ok(Self { settings, environment, path, file: read_section(path, settings)? })
    }

    /// The environment alone.
    pub fn without_file(settings: Settings, environment: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { settings, environment, path: Path::new(""), file: BTreeMap::new() }
    }

    /// What a setting was given as, and by whom.
    pub fn find(&self, setting: &Setting) -> (String, Source) {
        let name = self.settings.variable(setting.key);
        if let Some(value) = (self.environment)(&name) {
            return (value, Source::Environment(name));
        }
        match self.file.get(setting.key) {
            Some(value) => (value.clone(), Source::File(self.path.to_owned(), self.settings.section)),
            None => (setting.default.to_owned(), Source::Default),
        }
    }

    /// The value of a setting.
    pub fn get<T>(&self, key: &Key<T>) -> Result<T, ConfigError> {
        self.read(&key.setting, key.read)
    }

    /// The value of a setting, in words.
    pub fn shown(&self, setting: &Setting) -> Result<String, ConfigError> {
        self.read(setting, setting.shown)
    }

    fn read<T>(&self, setting: &Setting, read: fn(&str) -> Option<T>) -> Result<T, ConfigError> {
        read(&self.find(setting).0).ok_or_else(|| self.refused(setting, setting.allowed))
    }

    /// Its value is none of those that are allowed.
    pub fn refused(&self, setting: &Setting, allowed: &'static str) -> ConfigError {
        let (value, origin) = self.find(setting);
        ConfigError::Value { key: self.settings.variable(setting.key), value, origin, allowed }
    }
}

fn read_section(path: &Path, settings: Settings) -> Result<BTreeMap<&'static str, String>, ConfigError> {
    let bad = |error: String| ConfigError::File { path: path.to_owned(), error };
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(bad(error.to_string())),
    };
    let text = text(&bytes).map_err(bad)?;
    check_lines(text).map_err(bad)?;
    let mut sections = Ini::new_from_defaults(python_defaults()).read(text.to_owned()).map_err(bad)?;
    let section = sections.remove(&settings.section.to_ascii_lowercase()).unwrap_or_default();
    let values = section.into_iter().map(|(key, value)| {
        let value = value.unwrap_or_default();
        match settings.rows.iter().find(|setting| setting.key.eq_ignore_ascii_case(&key)) {
            Some(setting) => Ok((setting.key, value)),
            None => Err(unknown_key(&key, value, path, settings)),
        }
    });
    values.collect()
}

/// The file's text, without the mark that some editors put at its beginning.
fn text(bytes: &[u8]) -> Result<&str, String> {
    let text = str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        format!("line {}: it is not UTF-8", memchr_iter(b'\n', before).count() + 1)
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Refuses what the library takes and Python's `configparser` does not: of two values of a key nobody could say which is
/// meant.
fn check_lines(text: &str) -> Result<(), String> {
    let mut section = None;
    let mut keys = HashSet::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        match line.chars().next() {
            None | Some('#' | ';') => continue,
            Some('[') => {
                section = Some(line.to_ascii_lowercase());
                continue;
            }
            Some(_) => {}
        }
        let refused = |why: &str| Err(format!("line {number}: {line:?} {why}"));
        let Some(section) = &section else { return refused("stands before the first [SECTION]") };
        let Some((key, _)) = line.split_once(['=', ':']) else { return refused("has no value") };
        if !keys.insert((section.clone(), key.trim_end().to_ascii_lowercase())) {
            return refused("gives a key a second time");
        }
    }
    Ok(())
}

fn unknown_key(key: &str, value: String, path: &Path, settings: Settings) -> ConfigError {
    ConfigError::UnknownKey {
        key: key.to_ascii_uppercase(),
        value,
        origin: Source::File(path.to_owned(), settings.section),
        allowed: settings.rows.iter().map(|setting| setting.key).collect::<Vec<_>>().join(", "),
    }
}

/// The INI dialect of Python's `configparser`, which the original's file is written in: comments only on lines of
/// their own.
fn python_defaults() -> IniDefault {
    let mut defaults = Ini::new().defaults();
    defaults.enable_inline_comments = false;
    defaults
}

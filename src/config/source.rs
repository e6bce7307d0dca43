//! Where values come from: the environment first, else the file, else the default.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use configparser::ini::{Ini, IniDefault};
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
        let (value, origin) = self.find(setting);
        read(&value).ok_or_else(|| ConfigError::Value {
            key: self.settings.variable(setting.key),
            value,
            origin,
            allowed: setting.allowed,
        })
    }
}

fn read_section(path: &Path, settings: Settings) -> Result<BTreeMap<&'static str, String>, ConfigError> {
    let bad = |error: String| ConfigError::File { path: path.to_owned(), error };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(bad(error.to_string())),
    };
    let mut sections = Ini::new_from_defaults(python_defaults()).read(text).map_err(bad)?;
    if sections.contains_key(NO_SECTION) {
        return Err(bad("a key stands before the first [SECTION]".to_owned()));
    }
    let section = sections.remove(&settings.section.to_ascii_lowercase()).unwrap_or_default();
    let values = section.into_iter().map(|(key, value)| {
        let value = value.ok_or_else(|| bad(format!("{key:?} has no value")))?;
        match settings.rows.iter().find(|setting| setting.key.eq_ignore_ascii_case(&key)) {
            Some(setting) => Ok((setting.key, value)),
            None => Err(unknown_key(&key, value, path, settings)),
        }
    });
    values.collect()
}

fn unknown_key(key: &str, value: String, path: &Path, settings: Settings) -> ConfigError {
    ConfigError::UnknownKey {
        key: key.to_ascii_uppercase(),
        value,
        origin: Source::File(path.to_owned(), settings.section),
        allowed: settings.rows.iter().map(|setting| setting.key).collect::<Vec<_>>().join(", "),
    }
}

/// No section can have this name: brackets end at the last `]`, and names are trimmed.
const NO_SECTION: &str = " before the first section ";

/// The INI dialect of Python's `configparser`, which the original's file is written in: comments only on lines of
/// their own.
fn python_defaults() -> IniDefault {
    let mut defaults = Ini::new().defaults();
    NO_SECTION.clone_into(&mut defaults.default_section);
    defaults.enable_inline_comments = false;
    defaults
}

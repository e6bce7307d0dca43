//! What is in force, for people: each setting of the server with its value and where that came from.

use std::fmt::Write as _;
use std::path::Path;

use super::settings::{SERVER_SETTINGS, Setting, server};
use super::source::{Sources, environment};
use super::value::Host;
use super::{CONFIG_FILE, ConfigError, ServerConfig};
use crate::logging::one_line;

/// What a server would run with that is started here and now, a line for each setting.
///
/// # Errors
/// The first thing that is wrong, as [`ServerConfig::load`] finds it.
pub fn in_force() -> Result<String, ConfigError> {
    ServerConfig::load()?;
    let rows = rows(Path::new(CONFIG_FILE), &environment)?;
    let width = |column: fn(&[String; 3]) -> &String| {
        rows.iter().map(|row| column(row).chars().count()).max().unwrap_or(0)
    };
    let (keys, values) = (width(|[key, ..]| key), width(|[_, value, _]| value));
    let mut text = String::new();
    for [key, value, origin] in &rows {
        // Writing to a String cannot fail.
        writeln!(text, "{key:<keys$}  {value:<values$}  {origin}").unwrap_or_default();
    }
    Ok(text)
}

/// The key of each setting, its value, and where that came from.
fn rows(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Vec<[String; 3]>, ConfigError> {
    let sources = Sources::load(SERVER_SETTINGS, path, environment)?;
    SERVER_SETTINGS.rows.iter().map(|setting| row(&sources, setting)).collect()
}

fn row(sources: &Sources<'_>, setting: &Setting) -> Result<[String; 3], ConfigError> {
    let (given, origin) = sources.find(setting);
    let (given, value) = (one_line(&given), one_line(&sources.shown(setting)?));
    let is_host = setting.key == server::SERVER_IP.setting.key;
    let origin = match sources.get(&server::SERVER_IP)? {
        Host::Name(host) if is_host => format!("{origin}; {host} is a host name, which means all addresses"),
        _ if value == given => origin.to_string(),
        _ => format!("{origin}, as {given}"),
    };
    Ok([setting.key.to_owned(), value, origin])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_stands_with_its_value_and_its_origin() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CONFIG_FILE);
        std::fs::write(&path, "[DEFAULT]\nserver_ip = server\nCLIENT_TIMEOUT = 2.50\n").unwrap();
        let environment = |name: &str| (name == "LOGGING_LEVEL").then(|| "debug".to_owned());
        let rows = rows(&path, &environment).unwrap();
        assert_eq!(rows.len(), SERVER_SETTINGS.rows.len());
        let row = |key| rows.iter().find(|row| row[0] == key).map(|row| (&*row[1], &*row[2])).unwrap();
        assert_eq!(row("SERVER_PORT"), ("12345", "default"));
        assert_eq!(row("LOGGING_LEVEL"), ("DEBUG", "environment variable LOGGING_LEVEL, as debug"));
        let file = format!("{} [DEFAULT]", path.display());
        assert_eq!(row("CLIENT_TIMEOUT"), ("2.5", &*format!("{file}, as 2.50")));
        assert_eq!(
            row("SERVER_IP"),
            ("0.0.0.0", &*format!("{file}; server is a host name, which means all addresses"))
        );
    }
}

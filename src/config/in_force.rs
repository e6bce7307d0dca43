//! What is in force, for people: each setting of the server with its value and where that came from.

use std::fmt;
use std::path::Path;

use super::{
    CONFIG_FILE, ConfigError, LOG_FORMAT, Origin, SERVER_SECTION, SERVER_SETTINGS, ServerConfig, Values,
    environment,
};
use crate::logging::one_line;

/// The settings of a server, each with its value and its origin.
#[derive(Debug)]
pub struct InForce {
    rows: Vec<(&'static str, String, String)>,
}

impl InForce {
    /// What a server would run with that is started here and now.
    ///
    /// # Errors
    /// The first thing that is wrong, as [`ServerConfig::load`] finds it.
    pub fn load() -> Result<Self, ConfigError> {
        Self::load_from(Path::new(CONFIG_FILE), environment)
    }

    fn load_from(
        path: &Path,
        environment: impl Fn(&str) -> Option<String> + Copy,
    ) -> Result<Self, ConfigError> {
        let config = ServerConfig::load_from(path, environment)?;
        let values = Values::load(path, SERVER_SECTION, "", SERVER_SETTINGS, environment)?;
        let rows = SERVER_SETTINGS.iter().zip(values.found).map(|(setting, (given, origin))| {
            let given = one_line(&given);
            let value = config.value_of(setting.key).unwrap_or_else(|| given.clone());
            (setting.key, value, explain(setting.key, &given, &origin, &config))
        });
        Ok(Self { rows: rows.collect() })
    }
}

impl ServerConfig {
    /// What a setting means where that need not be the text that it was given as; none where it is.
    fn value_of(&self, key: &str) -> Option<String> {
        match key {
            "SERVER_IP" => Some(self.ip.to_string()),
            "SERVER_PORT" => Some(self.port.to_string()),
            "SERVER_LISTEN_BACKLOG" => Some(self.listen_backlog.to_string()),
            "LOGGING_LEVEL" => Some(self.logging_level.name().to_owned()),
            LOG_FORMAT => Some(self.log_format.name().to_owned()),
            "CLIENTS_AMOUNT" => Some(self.clients_amount.to_string()),
            "LOTTERY_WINNER_NUMBER" => Some(self.winner_number.to_string()),
            "MAX_CLIENTS" => Some(self.max_clients.to_string()),
            "CLIENT_TIMEOUT" => Some(self.client_timeout.as_secs_f64().to_string()),
            "MAX_PAYLOAD" => Some(self.max_payload.to_string()),
            _ => None,
        }
    }
}

fn explain(key: &str, given: &str, origin: &Origin, config: &ServerConfig) -> String {
    match (key, &config.ignored_host) {
        ("SERVER_IP", Some(host)) => format!("{origin}; {host} is a host name, which means all addresses"),
        _ if matches!(origin, Origin::Default) || config.value_of(key).is_none_or(|value| value == given) => {
            origin.to_string()
        }
        _ => format!("{origin}, as {given}"),
    }
}

impl fmt::Display for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: fn(&(&str, String, String)) -> usize| self.rows.iter().map(column).max();
        let keys = width(|(key, ..)| key.len()).unwrap_or(0);
        let values = width(|(_, value, _)| value.chars().count()).unwrap_or(0);
        for (key, value, origin) in &self.rows {
            writeln!(f, "{key:<keys$}  {value:<values$}  {origin}")?;
        }
        Ok(())
    }
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
        let in_force = InForce::load_from(&path, environment).unwrap();
        assert_eq!(in_force.rows.len(), SERVER_SETTINGS.len());
        let row = |key| in_force.rows.iter().find(|row| row.0 == key).map(|row| (&*row.1, &*row.2)).unwrap();
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

//! Logs: one line per event on standard error, for people or as JSON.
//!
//! Panics are logged here too, with their text and place; a client sees neither.

use crate::ConfigError;
use serde::{Deserialize, Deserializer, Serialize, de};
use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text for a terminal.
    #[default]
    Human,
    /// One JSON object a line, with the fields of the enclosing spans.
    Json,
}

/// The table `[log]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Directives as in `RUST_LOG`: `info`, or `info,livemerge_host_agent=debug`.
    #[serde(deserialize_with = "filter")]
    pub filter: String,
    /// Look of the lines.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            filter: "info".to_owned(),
            format: LogFormat::default(),
        }
    }
}

/// Starts logging for the whole process and sends panics to the log.
///
/// Call it once, first thing after the configuration is loaded: a later call keeps the first
/// subscriber.
///
/// # Errors
/// [`ConfigError::LogFilter`] when the filter cannot be understood.
pub fn init(config: &LogConfig) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(&config.filter).map_err(|source| ConfigError::LogFilter {
        filter: config.filter.clone(),
        source,
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started = match config.format {
        LogFormat::Human => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    match started {
        Ok(()) => std::panic::set_hook(Box::new(log_panic)),
        Err(error) => tracing::debug!(%error, "logging was started before"),
    }
    Ok(())
}

/// Refuses a bad filter while its line or variable is still known.
fn filter<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    match EnvFilter::try_new(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(de::Error::custom(format!(
            "`{text}` is not a log filter: {error}"
        ))),
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let text = panic.payload_as_str().unwrap_or("(no text)");
    let place = panic.location().map(ToString::to_string);
    tracing::error!(place = place.as_deref(), text, "panic");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_refused_by_name() {
        let config = LogConfig {
            filter: "info,=".to_owned(),
            format: LogFormat::Json,
        };
        let refused = init(&config).unwrap_err();
        assert!(refused.to_string().contains("info,="), "{refused}");
        let refused = toml::from_str::<LogConfig>("filter = 'info,='").unwrap_err();
        assert!(refused.message().contains("info,="), "{refused}");
    }
}

//! The configuration in effect: defaults < TOML file < environment < flags.
//!
//! A configuration is any serde type. Every table of it (the type and each nested struct) carries
//! `#[serde(default, deny_unknown_fields)]`, so that a file may set one key of a table and an
//! unknown key is refused.
//!
//! Environment: `<PREFIX><TABLE>__<KEY>`, upper case, tables separated by two underscores:
//! `LIVEMERGE_AGENT_LISTEN__ADDRESS` is `listen.address` under the prefix `LIVEMERGE_AGENT_`.
//! A variable with the prefix that names no key is refused, except those that Kubernetes puts
//! into a pod for each Service of its namespace (`.._SERVICE_HOST`, `.._PORT_80_TCP`, ..).
//!
//! The text of a variable or flag is read as a TOML value where the key takes it so (`8`, `true`,
//! `["a"]`), else as a plain string.
//!
//! A table is merged key by key; anything else, arrays too, is replaced whole.

use crate::ConfigError;
use serde::{Serialize, de::DeserializeOwned};
use std::ffi::OsString;
use std::path::Path;
use toml::{Table, Value};

/// Loads a configuration. `env` may hold any variables, only those with `env_prefix` count;
/// string leaves of `overrides` are read as variables are.
///
/// # Errors
/// [`ConfigError::Read`] and [`ConfigError::File`] (with the line) for the file,
/// [`ConfigError::Setting`] for a variable or a flag, by its name.
pub fn load<T>(
    file: Option<&Path>,
    env_prefix: &str,
    env: impl IntoIterator<Item = (String, String)>,
    overrides: Table,
) -> Result<T, ConfigError>
where
    T: DeserializeOwned + Serialize + Default,
{
    let mut settings = Table::try_from(T::default()).map_err(ConfigError::Unprintable)?;
    if let Some(path) = file {
        overlay(&mut settings, read_file::<T>(path)?);
    }
    let mut given = Vec::new();
    for (name, value) in variables(env_prefix, env) {
        let key = name[env_prefix.len()..].to_lowercase();
        given.push(Setting {
            path: key.split("__").map(str::to_owned).collect(),
            value: Value::String(value),
            origin: name,
        });
    }
    for (path, value) in leaves(overrides) {
        given.push(Setting {
            origin: format!("--set {}", path.join(".")),
            path,
            value,
        });
    }
    assign_all::<T>(&mut settings, given)?;
    settings.try_into().map_err(|error| ConfigError::Setting {
        origin: "configuration".to_owned(),
        message: error.message().to_owned(),
    })
}

/// The configuration as TOML, as `--print-config` shows it.
///
/// # Errors
/// [`ConfigError::Unprintable`] when the type cannot be expressed in TOML.
pub fn to_toml<T: Serialize>(config: &T) -> Result<String, ConfigError> {
    toml::to_string_pretty(config).map_err(ConfigError::Unprintable)
}

/// The variables with the prefix as text; the others may hold anything.
pub(crate) fn environment(
    prefix: &str,
    vars: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, ConfigError> {
    vars.filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with(prefix))
        .map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(ConfigError::Setting {
                origin: name,
                message: "is not UTF-8".to_owned(),
            }),
        })
        .collect()
}

/// Sets the value at `path`, making the tables on the way.
pub(crate) fn insert(table: &mut Table, path: &[&str], value: Value) {
    match path {
        [] => {}
        [key] => {
            table.insert((*key).to_owned(), value);
        }
        [key, rest @ ..] => {
            let next = table
                .entry(*key)
                .or_insert_with(|| Value::Table(Table::new()));
            if !next.is_table() {
                *next = Value::Table(Table::new());
            }
            if let Value::Table(next) = next {
                insert(next, rest, value);
            }
        }
    }
}

/// Reads the file on its own terms first: only then does an error know its line.
fn read_file<T: DeserializeOwned>(path: &Path) -> Result<Table, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let refused = |error: toml::de::Error| ConfigError::File {
        path: path.to_owned(),
        line: error.span().map(|span| line_of(&text, span.start)),
        message: error.message().to_owned(),
    };
    toml::from_str::<T>(&text).map_err(refused)?;
    toml::from_str(&text).map_err(refused)
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

fn overlay(base: &mut Table, above: Table) {
    for (key, value) in above {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(above)) => overlay(base, above),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// The variables that are settings, in the order of their names.
fn variables(
    prefix: &str,
    env: impl IntoIterator<Item = (String, String)>,
) -> Vec<(String, String)> {
    let mut found: Vec<_> = env
        .into_iter()
        .filter(|(name, value)| {
            name.strip_prefix(prefix)
                .is_some_and(|rest| !is_service_link(rest, value))
        })
        .collect();
    found.sort();
    found
}

/// Whether Kubernetes made this variable for a Service, whose name may begin like ours.
fn is_service_link(name: &str, value: &str) -> bool {
    let names_port = name.split_once("PORT_").is_some_and(|(_, rest)| {
        rest.split('_')
            .next()
            .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    });
    let is_url = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    name.ends_with("SERVICE_HOST")
        || name.contains("SERVICE_PORT")
        || names_port
        || (name.ends_with("PORT") && is_url)
}

/// One value from a variable or a flag.
struct Setting {
    origin: String,
    path: Vec<String>,
    value: Value,
}

impl Setting {
    fn keys(&self) -> Vec<&str> {
        self.path.iter().map(String::as_str).collect()
    }

    /// The TOML value that the text spells, or the text.
    fn likely(&self) -> Value {
        let literal = self.value.as_str().and_then(|text| text.parse().ok());
        literal.unwrap_or_else(|| self.value.clone())
    }
}

/// Sets the values in order, each where the configuration takes it. Those that it does not take
/// alone are tried together with those that follow: of a table that has no defaults, the first key
/// is incomplete without the second.
fn assign_all<T: DeserializeOwned>(
    settings: &mut Table,
    given: Vec<Setting>,
) -> Result<(), ConfigError> {
    let mut refused: Vec<(Setting, String)> = Vec::new();
    for setting in given {
        let mut attempt = settings.clone();
        for (earlier, _) in &refused {
            insert(&mut attempt, &earlier.keys(), earlier.likely());
        }
        if assign::<T>(&mut attempt, &setting).is_ok() {
            *settings = attempt;
            refused.clear();
        } else if let Err(message) = assign::<T>(settings, &setting) {
            refused.push((setting, message));
        }
    }
    refused
        .into_iter()
        .next()
        .map_or(Ok(()), |(setting, message)| {
            Err(ConfigError::Setting {
                origin: setting.origin,
                message,
            })
        })
}

/// Sets one value if the configuration takes it, else says why not.
fn assign<T: DeserializeOwned>(settings: &mut Table, setting: &Setting) -> Result<(), String> {
    let mut refusal = None;
    for candidate in [setting.likely(), setting.value.clone()] {
        let mut attempt = settings.clone();
        insert(&mut attempt, &setting.keys(), candidate);
        match attempt.clone().try_into::<T>() {
            Ok(_) => {
                *settings = attempt;
                return Ok(());
            }
            Err(error) => refusal = refusal.or(Some(error.message().to_owned())),
        }
    }
    Err(refusal.unwrap_or_default())
}

/// Every value of the table that is not itself a table, with its path.
fn leaves(table: Table) -> Vec<(Vec<String>, Value)> {
    let mut found = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => {
                for (mut path, value) in leaves(inner) {
                    path.insert(0, key.clone());
                    found.push((path, value));
                }
            }
            value => found.push((vec![key], value)),
        }
    }
    found
}

#[cfg(test)]
mod tests;

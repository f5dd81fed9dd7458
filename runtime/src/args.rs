//! The command line both servers share.

use crate::{ConfigError, LogFormat, config};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, Write};
use std::path::PathBuf;
use toml::{Table, Value};

/// Flags to flatten into a server's own `clap` parser.
///
/// `--log-format` sets `log.format`: the configuration carries a [`LogConfig`](crate::LogConfig)
/// under the name `log`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// TOML file to read the configuration from
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Load the configuration, say whether it is usable, and end
    #[arg(long)]
    pub check_config: bool,

    /// Print the configuration in effect as TOML and end
    #[arg(long)]
    pub print_config: bool,

    /// Set one value above file and environment: --set server.drain_seconds=5
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub settings: Vec<(String, String)>,

    /// Permit plaintext on an address that other machines can reach
    #[arg(long)]
    pub insecure: bool,

    /// Look of the log lines
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormat>,
}

impl Args {
    /// The configuration in effect: defaults, then the file, then this process's environment
    /// variables that begin with `env_prefix`, then the flags. See [`config::load`].
    ///
    /// # Errors
    /// Any [`ConfigError`] of [`config::load`], or a variable that is not UTF-8.
    pub fn load<T>(&self, env_prefix: &str) -> Result<T, ConfigError>
    where
        T: DeserializeOwned + Serialize + Default,
    {
        let environment = config::environment(env_prefix, std::env::vars_os())?;
        config::load(
            self.config.as_deref(),
            env_prefix,
            environment,
            self.overrides(),
        )
    }

    /// Does what `--print-config` and `--check-config` ask for, on `out`; true when either was
    /// given and the program is to end now.
    ///
    /// # Errors
    /// When `out` cannot be written, or the configuration cannot be printed.
    pub fn report<T: Serialize>(&self, config: &T, out: &mut impl Write) -> io::Result<bool> {
        if self.print_config {
            let text = config::to_toml(config).map_err(io::Error::other)?;
            out.write_all(text.as_bytes())?;
        } else if self.check_config {
            writeln!(out, "the configuration is usable")?;
        }
        Ok(self.print_config || self.check_config)
    }

    fn overrides(&self) -> Table {
        let mut overrides = Table::new();
        for (key, value) in &self.settings {
            let path: Vec<&str> = key.split('.').collect();
            config::insert(&mut overrides, &path, Value::String(value.clone()));
        }
        if let Some(format) = self.log_format {
            let name = match format {
                LogFormat::Human => "human",
                LogFormat::Json => "json",
            };
            config::insert(
                &mut overrides,
                &["log", "format"],
                Value::String(name.to_owned()),
            );
        }
        overrides
    }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, as in server.drain_seconds=5".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogConfig;
    use clap::Parser;
    use serde::Deserialize;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Config {
        log: LogConfig,
    }

    fn parse(flags: &[&str]) -> Result<Args, clap::Error> {
        Cli::try_parse_from(std::iter::once("server").chain(flags.iter().copied())).map(|c| c.args)
    }

    #[test]
    fn flags_reach_the_configuration() {
        let args = parse(&["--set", "log.filter=debug,h2=off", "--log-format", "json"]).unwrap();
        let config: Config = args.load("LIVEMERGE_ARGS_TEST_").unwrap();
        assert_eq!(config.log.filter, "debug,h2=off");
        assert_eq!(config.log.format, LogFormat::Json);
    }

    #[test]
    fn a_flag_without_a_value_is_refused() {
        assert!(parse(&["--set", "log.filter"]).is_err());
        assert!(parse(&["--set", "=debug"]).is_err());
    }

    #[test]
    fn the_printed_configuration_loads_again() {
        let args = parse(&["--print-config", "--set", "log.filter=warn"]).unwrap();
        let config: Config = args.load("LIVEMERGE_ARGS_TEST_").unwrap();
        let mut out = Vec::new();
        assert!(args.report(&config, &mut out).unwrap());
        let again: Config = toml::from_str(std::str::from_utf8(&out).unwrap()).unwrap();
        assert_eq!(again.log, config.log);
    }

    #[test]
    fn a_plain_start_reports_nothing() {
        let mut out = Vec::new();
        assert!(
            !parse(&[])
                .unwrap()
                .report(&Config::default(), &mut out)
                .unwrap()
        );
        assert!(out.is_empty());
    }
}

//! What can go wrong before and while a server runs.

use crate::SecurityFileError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The configuration is not usable: the operator has to change it, a restart does not help.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file could not be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file that was named.
        path: PathBuf,
        /// Why it could not be read.
        #[source]
        source: io::Error,
    },
    /// The file holds an unknown key, a wrong type, or is not TOML.
    #[error("{}:{}: {message}", path.display(), line.map_or("?".to_owned(), |l| l.to_string()))]
    File {
        /// The file that was read.
        path: PathBuf,
        /// Line of the offence, counted from 1; absent where it has no single place.
        line: Option<usize>,
        /// What is wrong, naming the key.
        message: String,
    },
    /// An environment variable or a `--set` flag names an unknown key or holds a wrong value.
    #[error("{origin}: {message}")]
    Setting {
        /// The variable or the flag, as the operator wrote it.
        origin: String,
        /// What is wrong.
        message: String,
    },
    /// A configuration that TOML cannot express (a bug in the configuration type).
    #[error("the configuration cannot be written as TOML")]
    Unprintable(#[source] toml::ser::Error),
    /// The log filter could not be understood.
    #[error("log.filter: `{filter}` is not a filter")]
    LogFilter {
        /// The filter as configured.
        filter: String,
        /// What the parser says.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// An address that other machines can reach, without both TLS and known callers, and without
    /// `--insecure`.
    #[error(
        "listen.address: {address} can be reached from other machines and needs [tls] and [auth]; \
         set both, listen on loopback or a unix socket, or pass --insecure"
    )]
    Insecure {
        /// The address that was refused.
        address: SocketAddr,
    },
    /// A collector of traces that cannot be called.
    #[error("traces.endpoint: {endpoint} {why}")]
    Traces {
        /// The endpoint as configured.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },
    /// An address for browsers that other machines can reach, without both TLS and known callers,
    /// and without `--insecure`.
    #[error(
        "{table}.listen: {address} can be reached from other machines and needs [tls] and [auth]; \
         set both, listen on loopback, or pass --insecure"
    )]
    InsecureWeb {
        /// The table of the configuration.
        table: &'static str,
        /// The address that was refused.
        address: SocketAddr,
    },
    /// An address for metrics that other machines can reach, without a word that they may.
    #[error(
        "metrics.listen: {address} can be reached from other machines, and metrics have no TLS; \
         listen on loopback, set metrics.plaintext, or pass --insecure"
    )]
    InsecureMetrics {
        /// The address that was refused.
        address: SocketAddr,
    },
    /// A file of certificates, keys or tokens cannot be used.
    #[error(transparent)]
    SecurityFile(#[from] SecurityFileError),
}

impl ConfigError {
    /// A key that does not go with the others.
    pub(crate) fn conflict(key: &str, message: &str) -> Self {
        ConfigError::Setting {
            origin: key.to_owned(),
            message: message.to_owned(),
        }
    }
}

/// The server could not start or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration forbids it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address could not be bound: taken, not ours, or not permitted.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address as configured.
        address: String,
        /// Why it could not be bound.
        #[source]
        source: io::Error,
    },
    /// A file descriptor set handed to the server is malformed (a bug in the build).
    #[error("a file descriptor set is malformed: {0}")]
    Descriptors(String),
    /// SIGTERM and SIGINT cannot be waited for.
    #[error("cannot install the signal handlers")]
    Signals(#[source] io::Error),
    /// The accept loop ended by a panic.
    #[error("the accept loop ended unexpectedly")]
    AcceptLoop(#[source] tokio::task::JoinError),
}

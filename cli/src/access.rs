//! How the server is called: with TLS or without, and what it is shown. The rules are those by which
//! the programs call each other.

use crate::args::AccessArgs;
use crate::connect::Server;
use crate::failure::{Exit, Failure};
use livemerge_proto::DESCRIPTORS;
use livemerge_runtime::client::{CallPolicy, Methods, Patience, Patient};
use livemerge_runtime::{ClientConfig, ConfigError, Line};
use std::num::NonZeroU32;
use tonic::transport::Endpoint;

/// What the generated clients call through.
pub(crate) type Wire = Patient<Line>;

/// How often a call is made: somebody waits for the answer.
const TRIES: NonZeroU32 = NonZeroU32::new(3).expect("not zero");

/// Keys of a `[client]` table that are flags here, by another spelling.
const FLAGS: [(&str, &str); 5] = [
    ("client.ca_file", "--ca-file"),
    ("client.cert_file", "--cert-file"),
    ("client.key_file", "--key-file"),
    ("client.server_name", "--server-name"),
    ("client.token_file", "--token-file"),
];

/// The wire to a server, connected by the first call.
///
/// # Errors
/// When a file cannot be used, or what is asked for would be less safe than it looks.
pub(crate) fn wire(
    server: &Server,
    access: &AccessArgs,
    bounds: impl FnOnce(Endpoint) -> Endpoint,
) -> Result<Wire, Failure> {
    let config = ClientConfig {
        ca_file: access.ca_file.clone(),
        cert_file: access.cert_file.clone(),
        key_file: access.key_file.clone(),
        server_name: access.server_name.clone(),
        token_file: access.token_file.clone(),
    };
    config.check().map_err(|error| refused(&error))?;
    // Whoever names an http:// server has seen that it is one. A token is not sent there.
    let anywhere = true;
    let admitted = config.admit(&server.to_string(), anywhere);
    admitted.map_err(usage)?;
    let client = config.open(anywhere).map_err(|error| refused(&error))?;
    let line = client.line(&server.to_string(), bounds).map_err(usage)?;
    Ok(patience().over(line))
}

/// What may be called again is, as the contracts say.
fn patience() -> Patience {
    let methods = Methods::of(DESCRIPTORS).expect("the build has made the descriptors");
    let policy = CallPolicy {
        tries: TRIES,
        ..CallPolicy::default()
    };
    Patience::new(methods, policy)
}

fn refused(error: &ConfigError) -> Failure {
    let source = std::error::Error::source(error);
    usage(match source {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}

fn usage(message: String) -> Failure {
    let spelt = FLAGS
        .iter()
        .fold(message, |message, (key, flag)| message.replace(key, flag));
    Failure::new(Exit::Usage, spelt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn refused(server: &str, access: &AccessArgs) -> Option<String> {
        let wire = wire(&server.parse().unwrap(), access, |endpoint| endpoint);
        wire.err().map(|failure| failure.message().to_owned())
    }

    /// With files that are not there: whatever comes as far as those was admitted.
    fn nowhere() -> Option<PathBuf> {
        Some("/nowhere/file".into())
    }

    #[tokio::test]
    async fn nothing_is_sent_less_safely_than_it_looks() {
        let with_ca = AccessArgs {
            ca_file: nowhere(),
            ..AccessArgs::default()
        };
        let with_token = AccessArgs {
            token_file: nowhere(),
            ..AccessArgs::default()
        };
        for (server, none, ca, token) in [
            ("http://127.0.0.1:1", true, false, true),
            ("http://[::1]:1", true, false, true),
            ("http://192.0.2.1:1", true, false, false),
            ("https://192.0.2.1:1", false, true, false),
            ("HTTPS://192.0.2.1:1", false, true, false),
            ("unix:/run/a.sock", true, true, true),
        ] {
            let admitted = |access: &AccessArgs| match refused(server, access) {
                None => true,
                Some(text) => text.contains("cannot read /nowhere/file"),
            };
            assert_eq!(admitted(&AccessArgs::default()), none, "{server}");
            assert_eq!(admitted(&with_ca), ca, "{server}");
            assert_eq!(admitted(&with_token), token, "{server}");
        }
    }

    #[tokio::test]
    async fn what_is_refused_is_named_as_it_is_given() {
        let https = "https://192.0.2.1:1";
        let half = AccessArgs {
            cert_file: nowhere(),
            ..AccessArgs::default()
        };
        for (access, text) in [
            (AccessArgs::default(), "https://192.0.2.1:1 needs --ca-file"),
            (half, "--cert-file: needs --key-file"),
        ] {
            assert_eq!(refused(https, &access).as_deref(), Some(text));
        }
    }

    #[tokio::test]
    async fn a_token_is_not_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let access = AccessArgs {
            token_file: Some(path.clone()),
            ..AccessArgs::default()
        };
        for bad in ["", "hush hush", "hush\nhush"] {
            std::fs::write(&path, bad).unwrap();
            let text = refused("unix:/run/a.sock", &access).unwrap();
            assert!(
                text.contains("one token") && !text.contains("hush"),
                "{text}"
            );
        }
    }
}

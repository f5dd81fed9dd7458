//! What is written nowhere: tokens and keys.

use crate::authority::Files;
use crate::rig::{Rig, call, token};
use livemerge_runtime::{Args, AuthConfig, ClientConfig, Role, Security, TlsConfig};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use tracing_subscriber::fmt::MakeWriter;

/// A log that is read again.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Log;

    fn make_writer(&self) -> Log {
        self.clone()
    }
}

/// Of the whole process, the other tests too.
#[tokio::test]
async fn no_log_line_has_a_token_or_a_key() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_ansi(false)
        .with_env_filter("trace,h2=debug,hyper=debug");
    tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
    let rig = Rig::with_tokens().await;
    let line = rig.line(&ClientConfig {
        token_file: Some(rig.files.put("token", &token(Role::Viewer))),
        ..ClientConfig::default()
    });
    for path in ["/test.Who/Read", "/test.Who/Write"] {
        call(&line, path, &[]).await;
        call(&line, &format!("{path}?token={}", token(Role::Viewer)), &[]).await;
    }
    let line = rig.line(&ClientConfig::default());
    for header in ["Bearer hush-hush", "hush-hush", "Basic hush-hush"] {
        call(&line, "/test.Who/Read", &[("authorization", header)]).await;
    }
    rig.files.put("tokens.toml", "[tokens]\na = \"hush-hush\"");
    rig.reload().await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        text.contains("token:viewer"),
        "who asked stands there: {text}"
    );
    assert!(text.contains("changed files are not usable"), "{text}");
    assert!(!text.contains("hush"), "{text}");
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    tls: TlsConfig,
    auth: Option<AuthConfig>,
    client: ClientConfig,
}

#[test]
fn the_printed_configuration_has_paths_and_no_secrets() {
    let files = Files::new();
    let secret = |name: &str| files.put(name, "hush-hush").display().to_string();
    let text = format!(
        "[tls]\ncert_file = '{0}'\nkey_file = '{1}'\nclient_ca_file = '{0}'\n\
         [auth]\ntokens_file = '{2}'\n[auth.subjects]\n'spiffe://a/b' = 'server'\n\
         [client]\nca_file = '{0}'\ncert_file = '{0}'\nkey_file = '{1}'\ntoken_file = '{3}'\n",
        secret("cert"),
        secret("key"),
        secret("tokens"),
        secret("token"),
    );
    let args = Args {
        config: Some(files.put("config.toml", &text)),
        print_config: true,
        ..Args::default()
    };
    let config: Config = args.load("LIVEMERGE_SECRET_TEST_").unwrap();
    Security::check(&config.tls, config.auth.as_ref()).unwrap();
    config.client.check().unwrap();
    let mut out = Vec::new();
    assert!(args.report(&config, &mut out).unwrap());
    let printed = String::from_utf8(out).unwrap();
    assert!(
        printed.contains("spiffe://a/b") && printed.contains("/token\""),
        "{printed}"
    );
    assert!(!printed.contains("hush"), "{printed}");
    let again: Config = toml::from_str(&printed).unwrap();
    assert_eq!((again.tls, again.auth), (config.tls, config.auth));

    for (table, key) in [("tls", "key"), ("auth", "token"), ("client", "token")] {
        let text = format!("[{table}]\n{key} = \"hush-hush\"\n");
        let args = Args {
            config: Some(files.put("config.toml", &text)),
            ..Args::default()
        };
        let refused = args
            .load::<Config>("LIVEMERGE_SECRET_TEST_")
            .unwrap_err()
            .to_string();
        assert!(refused.contains(&format!("`{key}`")), "{refused}");
        assert!(!refused.contains("hush"), "{refused}");
    }
}

use super::*;
use livemerge_runtime::config::load;
use std::io::Write as _;
use tempfile::NamedTempFile;

const PREFIX: &str = "LIVEMERGE_SERVER_";

/// The configuration of a file's text, or what the operator reads, from the line on.
fn from_file(text: &str) -> Result<Config, String> {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let outcome = load(Some(file.path()), PREFIX, [], Default::default());
    outcome.map_err(|error| {
        let text = error.to_string();
        let path = file.path().display().to_string();
        text.strip_prefix(&path)
            .expect("the file is named")
            .to_owned()
    })
}

fn from_variable(key: &str, value: &str) -> Result<Config, String> {
    let variable = (format!("{PREFIX}{key}"), value.to_owned());
    load(None, PREFIX, [variable], Default::default()).map_err(|error| error.to_string())
}

#[test]
fn every_key_has_a_default_that_is_admitted() {
    let config = from_file("").unwrap();
    assert_eq!(config.listen, ListenConfig::loopback(7420));
    config.check(false).unwrap();
    assert_eq!(
        config.heartbeat.policy().unwrap().heartbeat,
        Duration::from_secs(2)
    );
    assert!(config.hosts.is_empty());
}

#[test]
fn every_key_is_read() {
    let config = from_file(
        r#"
        listen.address = "unix:/run/livemerge/api.sock"
        server.drain_seconds = 3
        log.filter = "debug"
        store.path = "/srv/record.db"
        [heartbeat]
        interval_ms = 100
        silence_ms = 300
        [hosts.host-1]
        endpoint = "http://192.0.2.1:7421"
        [hosts."rack.2"]
        endpoint = "unix:/run/agent.sock"
        "#,
    )
    .unwrap();
    assert_eq!(
        config.listen.address.to_string(),
        "unix:/run/livemerge/api.sock"
    );
    assert_eq!(config.server.drain_seconds, 3);
    assert_eq!(config.log.filter, "debug");
    assert_eq!(config.store.path, PathBuf::from("/srv/record.db"));
    let policy = config.heartbeat.policy().unwrap();
    assert_eq!(
        (policy.heartbeat, policy.silence),
        (Duration::from_millis(100), Duration::from_millis(300))
    );
    let hosts: Vec<_> = config
        .hosts
        .iter()
        .map(|(id, host)| (id.as_str(), host.endpoint.as_str()))
        .collect();
    assert_eq!(
        hosts,
        [
            ("host-1", "http://192.0.2.1:7421"),
            ("rack.2", "unix:/run/agent.sock")
        ]
    );
}

#[test]
fn a_file_is_refused_with_line_and_key() {
    let cases = [
        ("\nstroe = {}\n", 2, "unknown field `stroe`"),
        ("[store]\nfile = \"/x\"\n", 2, "unknown field `file`"),
        (
            "[listen]\naddress = \"127.0.0.1:1\"\nport = 1\n",
            3,
            "unknown field `port`",
        ),
        ("[server]\ndrain = 1\n", 2, "unknown field `drain`"),
        ("[log]\n\nlevel = \"debug\"\n", 3, "unknown field `level`"),
        ("[heartbeat]\ninterval = 1\n", 2, "unknown field `interval`"),
        (
            "[hosts.a]\nendpoint = \"http://a:1\"\nport = 1\n",
            3,
            "unknown field `port`",
        ),
        ("[hosts.a]\n", 1, "missing field `endpoint`"),
        (
            "[hosts.Host_A]\nendpoint = \"http://a:1\"\n",
            1,
            "must be 1 to 63 of",
        ),
        ("[heartbeat]\ninterval_ms = \"2s\"\n", 2, "expected u64"),
        ("[heartbeat]\ninterval_ms = -1\n", 2, "expected u64"),
        (
            "[listen]\naddress = \"localhost\"\n",
            2,
            "`localhost` is neither",
        ),
        (
            "[store]\npath = \"record.db\"\n",
            2,
            "\"record.db\" is not the absolute path of a file",
        ),
        ("\n[store]\npath = 7\n", 3, "expected a string"),
        ("[hosts.a]\nendpoint = \"a:1\"\n", 2, "\"a:1\" must be"),
        ("[store\n", 1, ""),
    ];
    for (text, line, what) in cases {
        let error = from_file(text).expect_err(text);
        assert!(error.starts_with(&format!(":{line}: ")), "{text}{error}");
        assert!(error.contains(what), "{text}{error}");
    }
}

#[test]
fn a_variable_is_refused_by_its_name() {
    let cases = [
        ("STORE__FILE", "/x", "unknown field `file`"),
        (
            "STORE__PATH",
            "record.db",
            "is not the absolute path of a file",
        ),
        ("HEARTBEAT__INTERVAL_MS", "soon", "expected u64"),
        ("HOSTS__A__ENDPOINT", "https://a", "must be"),
    ];
    for (key, value, what) in cases {
        let error = from_variable(key, value).expect_err(key);
        assert!(
            error.starts_with(&format!("{PREFIX}{key}: ")) && error.contains(what),
            "{error}"
        );
    }
    let config = from_variable("STORE__PATH", "/srv/a b.db").unwrap();
    assert_eq!(config.store.path, PathBuf::from("/srv/a b.db"));
}

#[test]
fn the_record_is_an_absolute_file() {
    for good in [
        "/record.db",
        "/var/lib/livemerge/api-server.db",
        "/a/../b.db",
    ] {
        assert!(from_variable("STORE__PATH", good).is_ok(), "{good}");
    }
    for bad in [
        "",
        ".",
        "record.db",
        "./record.db",
        "~/record.db",
        ":memory:",
        "/",
        "/var/lib/",
        "/var/..",
        "file:/x",
    ] {
        assert!(from_variable("STORE__PATH", bad).is_err(), "{bad}");
    }
}

#[test]
fn an_endpoint_is_an_address_and_a_port() {
    let endpoint = |text: &str| from_variable("HOSTS__A__ENDPOINT", text);
    for good in [
        "http://192.0.2.1:7421",
        "http://host-1.rack:7421",
        "http://[2001:db8::1]:7421",
        "http://a:1/",
        "unix:/run/agent.sock",
    ] {
        assert!(endpoint(good).is_ok(), "{good}");
    }
    let bad = [
        "",
        "a",
        "a:1",
        "http://",
        "http://a",
        "http://a:0",
        "http://a:x",
        "http://a:70000",
        "http://:1",
        "https://a",
        "ftp://a:1",
        "http://a:1/path",
        "http://a:1?q",
        "http://me@a:1",
        "http://a b:1",
        "unix:",
        "unix:/",
        "unix:agent.sock",
    ];
    for bad in bad {
        let error = endpoint(bad).expect_err(bad);
        assert!(error.contains("`http://ADDRESS:PORT`"), "{error}");
    }
}

#[test]
fn heartbeats_are_within_their_range() {
    for (interval_ms, silence_ms, what) in [
        (
            49,
            6_000,
            "heartbeat.interval_ms is 49, not within 50 to 15000",
        ),
        (15_001, 60_000, "heartbeat.interval_ms is 15001"),
        (
            2_000,
            2_000,
            "heartbeat.silence_ms is 2000, not more than the interval",
        ),
    ] {
        let error = HeartbeatConfig {
            interval_ms,
            silence_ms,
            ..HeartbeatConfig::default()
        }
        .policy()
        .unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
    for (interval_ms, silence_ms) in [(50, 51), (15_000, 15_001), (2_000, 86_400_000)] {
        assert!(
            HeartbeatConfig {
                interval_ms,
                silence_ms,
                ..HeartbeatConfig::default()
            }
            .policy()
            .is_ok()
        );
    }
    for (answer_seconds, admitted) in [(0, false), (1, true), (300, true), (301, false)] {
        let heartbeat = HeartbeatConfig {
            answer_seconds,
            ..HeartbeatConfig::default()
        };
        assert_eq!(heartbeat.policy().is_ok(), admitted, "{answer_seconds}");
    }
}

/// Behind the end of the process's clock, that is: a time that nobody can have meant.
#[test]
fn a_time_without_end_is_refused_by_its_key() {
    let defaults = toml::Table::try_from(Config::default()).unwrap();
    let mut seen = 0;
    for (table, keys) in &defaults {
        let keys = keys.as_table().into_iter().flat_map(toml::Table::keys);
        let ends = ["_seconds", "_ms", "_s"];
        for key in keys.filter(|key| ends.iter().any(|end| key.ends_with(end))) {
            let config = from_file(&format!("[{table}]\n{key} = {}\n", i64::MAX)).unwrap();
            let refused = config.check(false).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("{table}.{key}")), "{refused}");
            seen += 1;
        }
    }
    assert_eq!(seen, 9 + 3 + 1, "of server, heartbeat and discovery");
}

/// What `--print-config` shows can be given back as a file.
#[test]
fn the_printed_configuration_is_read_again() {
    let config = from_variable("HOSTS__A__ENDPOINT", "http://a:1").unwrap();
    let text = livemerge_runtime::config::to_toml(&config).unwrap();
    let again = livemerge_runtime::config::to_toml(&from_file(&text).unwrap()).unwrap();
    assert_eq!(again, text);
}

#[test]
fn what_would_be_open_to_others_is_refused() {
    let cert = "[tls]\ncert_file = '/c'\nkey_file = '/k'\n";
    let auth = "[auth]\ntokens_file = '/t'\n";
    let far = "[listen]\naddress = '0.0.0.0:1'\n";
    for (text, named) in [
        (far.to_owned(), "listen.address"),
        (format!("{far}{cert}"), "listen.address"),
        (format!("{far}{auth}"), "listen.address"),
        ("[web]\nlisten = '0.0.0.0:1'\n".to_owned(), "web.listen"),
        (
            "[client]\ntoken_file = '/t'\n".to_owned(),
            "client.token_file",
        ),
        (
            "[hosts.h1]\nendpoint = 'http://192.0.2.1:1'\n".to_owned(),
            "hosts.h1.endpoint",
        ),
        (
            "[hosts.h1]\nendpoint = 'HTTPS://192.0.2.1:1'\n".to_owned(),
            "hosts.h1.endpoint",
        ),
        (
            "[console]\nlisten = '192.0.2.1:1'\n".to_owned(),
            "console.listen",
        ),
        ("[auth]\n".to_owned(), "auth"),
        (
            "[agents]\ncertificate = 'host'\n".to_owned(),
            "agents.certificate",
        ),
    ] {
        let refused = from_file(&text)
            .unwrap()
            .check(false)
            .unwrap_err()
            .to_string();
        assert!(refused.starts_with(named), "{text}: {refused}");
    }
    let both = from_file(&format!("{far}{cert}{auth}")).unwrap();
    both.check(false).unwrap();
    let missing = both.check_files().unwrap_err().to_string();
    assert!(missing.contains("cannot read /"), "{missing}");
    from_file(far).unwrap().check(true).unwrap();
}

#[test]
fn pages_are_let_in_by_their_exact_origin() {
    let origins = |list: &str| from_file(&format!("[web]\nallowed_origins = [{list}]\n"));
    let config = origins("'https://console.example.org', 'http://127.0.0.1:8080'").unwrap();
    assert_eq!(config.web.allowed_origins.len(), 2);
    assert_eq!(Config::default().web.listen, None);
    for bad in [
        "*",
        "null",
        "https://*.example.org",
        "console.example.org",
        "https://a/",
    ] {
        let refused = origins(&format!("'{bad}'")).unwrap_err();
        assert!(refused.contains(&format!("`{bad}`")), "{refused}");
    }
}

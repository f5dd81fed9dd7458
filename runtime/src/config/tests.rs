use super::*;
use serde::Deserialize;
use std::io::Write;

const PREFIX: &str = "LIVEMERGE_";

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    name: String,
    pool: Pool,
    shelves: std::collections::BTreeMap<String, Shelf>,
}

/// A table without defaults.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shelf {
    label: String,
    width: u16,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Pool {
    size: u16,
    eager: bool,
    tags: Vec<String>,
    note: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        // Differs from Pool::default(), as a server's own port does from ListenConfig's.
        Config {
            name: "default".into(),
            pool: Pool {
                size: 10,
                ..Pool::default()
            },
            shelves: std::collections::BTreeMap::new(),
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Pool {
            size: 1,
            eager: false,
            tags: vec!["a".into(), "b".into()],
            note: None,
        }
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect()
}

fn from_file(text: &str) -> Result<Config, ConfigError> {
    load(Some(file(text).path()), PREFIX, [], Table::new())
}

fn from_env(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    load(None, PREFIX, env(pairs), Table::new())
}

#[test]
fn each_source_overrides_the_one_before() {
    let text = "name = 'file'\n[pool]\nsize = 20\ntags = ['c']\n";
    let file = file(text);
    let vars = env(&[
        ("LIVEMERGE_POOL__SIZE", "30"),
        ("LIVEMERGE_POOL__EAGER", "true"),
    ]);
    let flags: Table = toml::from_str("[pool]\nsize = '40'\n").unwrap();

    let nothing: Config = load(None, PREFIX, [], Table::new()).unwrap();
    assert_eq!(nothing, Config::default());
    let with_file: Config = load(Some(file.path()), PREFIX, [], Table::new()).unwrap();
    assert_eq!((with_file.name.as_str(), with_file.pool.size), ("file", 20));
    let with_env: Config = load(Some(file.path()), PREFIX, vars.clone(), Table::new()).unwrap();
    assert_eq!((with_env.pool.size, with_env.pool.eager), (30, true));
    let with_flags: Config = load(Some(file.path()), PREFIX, vars, flags).unwrap();
    assert_eq!(with_flags.pool.size, 40);
    assert_eq!(with_flags.pool.tags, ["c"], "an array is replaced whole");
    assert_eq!(with_flags.name, "file");
}

#[test]
fn a_table_named_in_part_keeps_the_other_defaults_of_the_configuration() {
    assert_eq!(from_file("[pool]\neager = true\n").unwrap().pool.size, 10);
}

#[test]
fn an_unknown_key_in_the_file_is_refused_with_its_line() {
    let refused = from_file("name = 'x'\n\n[pool]\nsize = 2\nsiez = 3\n").unwrap_err();
    match &refused {
        ConfigError::File { line, message, .. } => {
            assert_eq!(*line, Some(5));
            assert!(message.contains("siez"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert!(refused.to_string().contains(":5: "), "{refused}");
}

#[test]
fn a_wrong_type_and_broken_toml_are_refused_with_their_line() {
    for (text, expected) in [
        ("name = 'x'\n[pool]\nsize = 'big'\n", 3),
        ("name = 'x'\nname\n", 2),
    ] {
        match from_file(text).unwrap_err() {
            ConfigError::File { line, .. } => assert_eq!(line, Some(expected), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_not_taken_for_an_empty_one() {
    let missing = Path::new("/nonexistent/livemerge.toml");
    let refused = load::<Config>(Some(missing), PREFIX, [], Table::new()).unwrap_err();
    assert!(matches!(refused, ConfigError::Read { .. }), "{refused:?}");
}

#[test]
fn an_unknown_variable_is_refused_by_name() {
    for name in [
        "LIVEMERGE_POOL__SIEZ",
        "LIVEMERGE_POOL_SIZE",
        "LIVEMERGE_NAME__X",
    ] {
        let refused = from_env(&[(name, "3")]).unwrap_err();
        assert!(refused.to_string().starts_with(name), "{refused}");
    }
}

#[test]
fn a_wrong_value_names_the_variable_or_the_flag() {
    let refused = from_env(&[("LIVEMERGE_POOL__SIZE", "many")]).unwrap_err();
    assert!(
        refused.to_string().starts_with("LIVEMERGE_POOL__SIZE: "),
        "{refused}"
    );
    let flags: Table = toml::from_str("[pool]\nsiez = '40'\n").unwrap();
    let refused = load::<Config>(None, PREFIX, [], flags).unwrap_err();
    assert!(
        refused.to_string().starts_with("--set pool.siez: "),
        "{refused}"
    );
}

#[test]
fn the_keys_of_a_table_without_defaults_may_come_one_by_one() {
    let config = from_env(&[
        ("LIVEMERGE_SHELVES__TOP__LABEL", "a"),
        ("LIVEMERGE_SHELVES__TOP__WIDTH", "7"),
        ("LIVEMERGE_NAME", "other"),
    ]);
    let (label, width) = ("a".to_owned(), 7);
    let shelves = [("top".to_owned(), Shelf { label, width })].into();
    let config = config.unwrap();
    assert_eq!((config.name.as_str(), config.shelves), ("other", shelves));
    let lone = from_env(&[
        ("LIVEMERGE_NAME", "other"),
        ("LIVEMERGE_SHELVES__TOP__WIDTH", "7"),
    ]);
    let said = lone.unwrap_err().to_string();
    assert!(said.contains("LIVEMERGE_SHELVES__TOP__WIDTH"), "{said}");
    assert!(said.contains("missing field `label`"), "{said}");
}

#[test]
fn text_is_read_as_the_key_takes_it() {
    let config = from_env(&[
        ("LIVEMERGE_NAME", "123"),
        ("LIVEMERGE_POOL__NOTE", "true"),
        ("LIVEMERGE_POOL__TAGS", "['x', 'y']"),
        ("OTHER_POOL__SIZE", "9"),
    ])
    .unwrap();
    assert_eq!(config.name, "123");
    assert_eq!(config.pool.note.as_deref(), Some("true"));
    assert_eq!(config.pool.tags, ["x", "y"]);
    assert_eq!(
        config.pool.size, 10,
        "a variable without the prefix is not ours"
    );
}

#[test]
fn variables_that_kubernetes_makes_for_services_are_not_settings() {
    let config = from_env(&[
        ("LIVEMERGE_SERVICE_HOST", "10.0.0.1"),
        ("LIVEMERGE_API_SERVICE_PORT_GRPC", "50051"),
        ("LIVEMERGE_PORT", "tcp://10.0.0.1:50051"),
        ("LIVEMERGE_API_PORT_50051_TCP_ADDR", "10.0.0.1"),
    ])
    .unwrap();
    assert_eq!(config, Config::default());
    assert!(from_env(&[("LIVEMERGE_PORT", "50051")]).is_err());
}

#[cfg(unix)]
#[test]
fn only_our_variables_have_to_be_utf8() {
    use std::os::unix::ffi::OsStringExt;
    let broken = || OsString::from_vec(vec![0xff]);
    let other = [(OsString::from("PATH"), broken())];
    assert!(environment(PREFIX, other.into_iter()).unwrap().is_empty());
    let ours = [(OsString::from("LIVEMERGE_NAME"), broken())];
    let refused = environment(PREFIX, ours.into_iter()).unwrap_err();
    assert!(
        refused.to_string().starts_with("LIVEMERGE_NAME: "),
        "{refused}"
    );
}

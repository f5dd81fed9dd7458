use super::*;

fn refusal(text: &str) -> String {
    let config: Config = toml::from_str(text).unwrap();
    config.check(false).unwrap_err().to_string()
}

/// Behind the end of the process's clock, that is: a time that nobody can have meant.
#[test]
fn a_time_without_end_is_refused_by_its_key() {
    Config::default().check(false).unwrap();
    let defaults = toml::Table::try_from(Config::default()).unwrap();
    let mut seen = 0;
    for (table, keys) in &defaults {
        let keys = keys.as_table().into_iter().flat_map(toml::Table::keys);
        for key in keys.filter(|key| key.ends_with("_seconds") || key.ends_with("_ms")) {
            let refused = refusal(&format!("[{table}]\n{key} = {}\n", i64::MAX));
            assert!(refused.starts_with(&format!("{table}.{key}")), "{refused}");
            seen += 1;
        }
    }
    assert_eq!(
        seen,
        9 + 1 + 2 + 2,
        "of server, hypervisor, merge and freeze"
    );
}

#[test]
fn what_is_removed_is_kept_for_a_century_at_most() {
    for kind in [
        "kind = 'file'\npath = '/images'",
        "kind = 'lvm'\ngroup = 'vg'",
        "kind = 'object'\nurl = 's3://bucket/prefix'",
    ] {
        let kept = |seconds: u64| {
            format!("[storage.a]\n{kind}\nremoval = {{ keep_seconds = {seconds} }}\n")
        };
        let config: Config = toml::from_str(&kept(3_153_600_000)).unwrap();
        config.check(false).unwrap();
        for seconds in [3_153_600_001, i64::MAX.unsigned_abs()] {
            let refused = refusal(&kept(seconds));
            let named = format!("storage.a.removal.keep_seconds is {seconds}, not within");
            assert!(refused.starts_with(&named), "{refused}");
        }
    }
}

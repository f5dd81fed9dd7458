//! Leaves out of a configuration what may be a secret.
//!
//! LiveMerge's configurations hold none: credentials come from files and the environment. What somebody
//! wrote into one all the same is recognised by its key, or as a part of a URL.

use toml::{Table, Value};

const LEFT_OUT: &str = "(left out)";
/// What the name of a secret has in it.
const NAMES: [&str; 6] = [
    "password",
    "secret",
    "token",
    "credential",
    "signature",
    "accesskey",
];
/// What the name of a place that holds one ends in.
const PLACES: [&str; 3] = ["file", "path", "dir"];

/// The configuration without secrets; `None` when it is no TOML, of which nothing can be told.
pub(crate) fn config(text: &str) -> Option<String> {
    let mut table: Table = text.parse().ok()?;
    within(&mut table);
    toml::to_string_pretty(&table).ok()
}

fn within(table: &mut Table) {
    for (key, value) in table.iter_mut() {
        if is_secret(key) && !value.is_table() {
            *value = Value::String(LEFT_OUT.to_owned());
        }
        of_value(value);
    }
}

fn of_value(value: &mut Value) {
    match value {
        Value::Table(table) => within(table),
        Value::Array(values) => values.iter_mut().for_each(of_value),
        Value::String(text) => *text = url(text),
        _ => {}
    }
}

fn is_secret(key: &str) -> bool {
    let key: String = key.to_lowercase().replace(['_', '-'], "");
    NAMES.iter().any(|name| key.contains(name)) && !PLACES.iter().any(|end| key.ends_with(end))
}

/// A URL without who calls, and without parameters that may be secrets; any other text as it is.
pub(crate) fn url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (rest, None),
    };
    let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    let authority = match authority.rsplit_once('@') {
        Some((_who, host)) => format!("{LEFT_OUT}@{host}"),
        None => authority.to_owned(),
    };
    let query = query.map(|query| {
        let parameters = query
            .split('&')
            .map(|parameter| match parameter.split_once('=') {
                Some((name, _)) if is_secret(name) => format!("{name}={LEFT_OUT}"),
                _ => parameter.to_owned(),
            });
        format!("?{}", parameters.collect::<Vec<_>>().join("&"))
    });
    format!("{scheme}://{authority}{path}{}", query.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_left_out_and_all_else_stays() {
        let text = "[auth]\ntokens_file = '/etc/t'\nbearer_token = 'hush'\nsecret_keys = ['hush']\n\
                    [hypervisor]\nuri = 'qemu:///embed?root=/x'\n\
                    [storage.s]\nurl = 's3://user:hush@b/p?X-Amz-Signature=hush&region=eu'\nkeep = 7\n";
        let shown = config(text).unwrap();
        assert!(!shown.contains("hush"), "{shown}");
        for kept in [
            "/etc/t",
            "qemu:///embed?root=/x",
            "@b/p",
            "region=eu",
            "keep = 7",
        ] {
            assert!(shown.contains(kept), "{kept}: {shown}");
        }
        assert_eq!(config("token hush"), None);
    }

    #[test]
    fn a_text_that_is_no_url_stays() {
        for text in [
            "",
            "unix:/run/a.sock",
            "info,h2=off",
            "http://h:1/metrics",
            "a://b?c",
        ] {
            assert_eq!(url(text), text);
        }
    }
}

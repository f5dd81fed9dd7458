//! Labels of snapshots, checked one by one.

use livemerge_proto::fields::Fields;
use std::collections::{BTreeMap, HashMap};

/// So many labels has a snapshot at most.
const MOST: usize = 32;
const KEY_BYTES: usize = 63;
const VALUE_CHARS: usize = 256;

pub(super) fn labels(
    fields: &mut Fields,
    field: &str,
    labels: HashMap<String, String>,
) -> Option<BTreeMap<String, String>> {
    if labels.len() > MOST {
        fields.reject(field, format_args!("must have at most {MOST} labels"));
        return None;
    }
    let labels: BTreeMap<_, _> = labels.into_iter().collect();
    let checked: Vec<_> = labels
        .into_iter()
        .map(|(key, value)| label(fields, field, key, value))
        .collect();
    checked.into_iter().collect()
}

fn label(fields: &mut Fields, field: &str, key: String, value: String) -> Option<(String, String)> {
    let at = format!("{field}[{key:?}]");
    if !is_key(&key) {
        fields.reject(&at, "must have a key of 1 to 63 of `a-z 0-9 . / _ -`");
        return None;
    }
    Some((key, fields.text(&at, value, VALUE_CHARS)?))
}

fn is_key(key: &str) -> bool {
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase()
            || byte.is_ascii_digit()
            || matches!(byte, b'.' | b'/' | b'_' | b'-')
    };
    (1..=KEY_BYTES).contains(&key.len()) && key.bytes().all(allowed)
}

/// Tells labels from others.
pub(super) fn text(labels: &BTreeMap<String, String>) -> String {
    format!("{labels:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(given: &[(&str, &str)]) -> Vec<String> {
        let given = given
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let mut fields = Fields::new();
        let parsed = labels(&mut fields, "labels", given.collect());
        match fields.check() {
            Ok(()) => {
                assert!(parsed.is_some());
                vec![]
            }
            Err(problem) => problem
                .violations
                .into_iter()
                .map(|(field, _)| field)
                .collect(),
        }
    }

    #[test]
    fn every_bad_label_is_named() {
        let (long_key, long) = ("k".repeat(64), "v".repeat(257));
        let fits = [("k".repeat(63), "ü".repeat(256))];
        let fits: Vec<_> = fits.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(bad(&fits), [""; 0]);
        assert_eq!(bad(&[("team/a.b_c-1", ""), ("x", "two\nlines")]), [""; 0]);
        let named = bad(&[
            ("", "x"),
            ("A", "x"),
            (&long_key, "x"),
            ("v", &long),
            ("w", "\u{7}"),
        ]);
        assert_eq!(named.len(), 5);
        assert!(named.contains(&"labels[\"v\"]".to_owned()), "{named:?}");
    }

    #[test]
    fn labels_are_not_without_number() {
        let many: Vec<String> = (0..33).map(|number| number.to_string()).collect();
        let many: Vec<_> = many.iter().map(|key| (&**key, "")).collect();
        assert_eq!(bad(&many[..32]), [""; 0]);
        assert_eq!(bad(&many), ["labels"]);
    }
}

//! A request against its rules.

use super::compile::{
    FieldRules, ListRules, MapRules, MessageRules, TextRules, ValueRules, number,
};
use super::text;
use super::{MOST_VIOLATIONS, Violation};
use prost_reflect::{DynamicMessage, MapKey, Value};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use uuid::Uuid;

/// So much of a map's key stands in a path: it may be as long as a message.
const KEY_CHARS: usize = 64;

/// A place in a request. Becomes a text when something is wrong there.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
    Key(&'a Path<'a>, &'a str),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Item(parent, place) => write!(f, "{parent}[{place}]"),
            Path::Key(parent, key) => {
                let begin: String = key.chars().take(KEY_CHARS).collect();
                write!(f, "{parent}[{begin:?}]")
            }
        }
    }
}

pub(super) fn message(
    rules: &MessageRules,
    message: &DynamicMessage,
    at: &Path<'_>,
    found: &mut Vec<Violation>,
) {
    for of_field in &rules.fields {
        let at = Path::Field(at, of_field.field.name());
        field(of_field, message, &at, found);
    }
}

fn field(rules: &FieldRules, message: &DynamicMessage, at: &Path<'_>, found: &mut Vec<Violation>) {
    if !message.has_field(&rules.field) {
        if rules.required {
            return found.push((at.to_string(), text::REQUIRED.to_owned()));
        }
        if rules.optional {
            return;
        }
    }
    value(&rules.value, &message.get_field(&rules.field), at, found);
}

fn value(rules: &ValueRules, value: &Value, at: &Path<'_>, found: &mut Vec<Violation>) {
    match (rules, value) {
        (ValueRules::Text(rules), Value::String(given)) => required_text(rules, given, at, found),
        (ValueRules::List(rules), Value::List(items)) => list(rules, items, at, found),
        (ValueRules::Map(rules), Value::Map(pairs)) => map(rules, pairs, at, found),
        (ValueRules::Message(rules), Value::Message(given)) => message(rules, given, at, found),
        (ValueRules::Enum(rules), Value::EnumNumber(number)) if !rules.allowed.contains(number) => {
            found.push((at.to_string(), rules.must.clone()));
        }
        (ValueRules::Number(bounds), given) if number(given).is_some_and(|it| !bounds.hold(it)) => {
            found.push((at.to_string(), text::of_number(*bounds)));
        }
        (ValueRules::Time(bounds), given) if number(given).is_some_and(|it| !bounds.hold(it)) => {
            found.push((at.to_string(), text::of_time(*bounds)));
        }
        _ => {}
    }
}

/// What is wrong with an empty text is that it is empty.
fn required_text(rules: &TextRules, given: &str, at: &Path<'_>, found: &mut Vec<Violation>) {
    let mut broken = broken(rules, given);
    if given.is_empty() {
        broken = broken
            .into_iter()
            .take(1)
            .map(|_| text::REQUIRED.to_owned())
            .collect();
    }
    found.extend(broken.into_iter().map(|must| (at.to_string(), must)));
}

/// What a text must be and is not.
fn broken(rules: &TextRules, given: &str) -> Vec<String> {
    let mut broken = Vec::new();
    if let Some(most) = rules.max_chars.filter(|most| given.chars().count() > *most) {
        broken.push(text::of_length(most));
    }
    if let Some(pattern) = rules
        .pattern
        .as_ref()
        .filter(|it| !it.regex.is_match(given))
    {
        broken.push(pattern.must.to_owned());
    }
    if rules.uuid && !is_uuid(given) {
        broken.push(text::UUID.to_owned());
    }
    if rules.not_in.iter().any(|refused| refused == given) {
        broken.push(text::of_refused(given));
    }
    broken
}

/// In its hyphenated form alone.
fn is_uuid(text: &str) -> bool {
    text.len() == 36 && Uuid::try_parse(text).is_ok()
}

fn list(rules: &ListRules, items: &[Value], at: &Path<'_>, found: &mut Vec<Violation>) {
    if !rules.count.hold(items.len() as i128) {
        found.push((at.to_string(), text::of_count(rules.count)));
        // Its items are not looked at: a small message can hold millions of them.
        return;
    }
    let mut seen = HashSet::new();
    let mut texts = items.iter().filter_map(Value::as_str);
    if rules.unique && !texts.all(|text| seen.insert(text)) {
        found.push((at.to_string(), text::UNIQUE.to_owned()));
    }
    for (place, item) in items.iter().enumerate() {
        if found.len() >= MOST_VIOLATIONS {
            return;
        }
        value(&rules.item, item, &Path::Item(at, place), found);
    }
}

fn map(
    rules: &MapRules,
    pairs: &HashMap<MapKey, Value>,
    at: &Path<'_>,
    found: &mut Vec<Violation>,
) {
    if !rules.count.hold(pairs.len() as i128) {
        found.push((at.to_string(), text::of_count(rules.count)));
        return;
    }
    // In an order that stays.
    let pairs = pairs
        .iter()
        .filter_map(|(key, value)| Some((key.as_str()?, value.as_str()?)));
    for (key, value) in pairs.collect::<BTreeMap<_, _>>() {
        let at = Path::Key(at, key);
        let broken = broken(&rules.key, key)
            .into_iter()
            .chain(broken(&rules.value, value));
        found.extend(broken.map(|must| (at.to_string(), must)));
    }
}

//! From the options of descriptors to rules that can be evaluated.

use super::text;
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, Value,
};
use regex::Regex;

/// Of the enum `buf.validate.Ignore`.
const IGNORE_IF_ZERO_VALUE: i32 = 1;

/// A rule of the contracts that is not evaluated here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct UnknownRule {
    /// The full name of the field, or of the message.
    pub field: String,
    /// What is not known.
    pub why: String,
}

/// The fields of a message that can be bad.
pub(super) struct MessageRules {
    pub message: MessageDescriptor,
    pub fields: Vec<FieldRules>,
}

pub(super) struct FieldRules {
    pub field: FieldDescriptor,
    /// Must be set.
    pub required: bool,
    /// Is not looked at while it is not set.
    pub optional: bool,
    pub value: ValueRules,
}

#[derive(Default)]
pub(super) enum ValueRules {
    #[default]
    Any,
    Text(TextRules),
    Number(Bounds),
    /// In nanoseconds.
    Time(Bounds),
    Enum(EnumRules),
    List(Box<ListRules>),
    Map(Box<MapRules>),
    Message(MessageRules),
}

#[derive(Default)]
pub(super) struct TextRules {
    pub max_chars: Option<usize>,
    pub pattern: Option<Pattern>,
    pub uuid: bool,
    pub not_in: Vec<String>,
}

pub(super) struct Pattern {
    pub regex: Regex,
    /// For people.
    pub must: &'static str,
}

/// Both ends are allowed.
#[derive(Default, Clone, Copy)]
pub(super) struct Bounds {
    pub least: Option<i128>,
    pub most: Option<i128>,
}

pub(super) struct EnumRules {
    pub allowed: Vec<i32>,
    /// For people.
    pub must: String,
}

#[derive(Default)]
pub(super) struct ListRules {
    pub count: Bounds,
    pub unique: bool,
    pub item: ValueRules,
}

#[derive(Default)]
pub(super) struct MapRules {
    pub count: Bounds,
    pub key: TextRules,
    pub value: TextRules,
}

impl MessageRules {
    /// The rules of a message and of those within it.
    pub(super) fn compile(
        contracts: &DescriptorPool,
        message: MessageDescriptor,
    ) -> Result<Self, UnknownRule> {
        if crosses_fields(contracts, &message) {
            return Err(UnknownRule {
                field: message.full_name().to_owned(),
                why: "rules of several fields together are not evaluated".to_owned(),
            });
        }
        let mut fields = Vec::new();
        for field in message.fields() {
            let rules = FieldRules::compile(contracts, field)?;
            if rules.required || !matches!(rules.value, ValueRules::Any) {
                fields.push(rules);
            }
        }
        Ok(Self { message, fields })
    }
}

impl FieldRules {
    fn compile(contracts: &DescriptorPool, field: FieldDescriptor) -> Result<Self, UnknownRule> {
        let mut rules = Self {
            required: false,
            optional: field.supports_presence(),
            value: ValueRules::within(contracts, &field)?,
            field,
        };
        if let Some(declared) = declared(contracts, &rules.field) {
            let field = rules.field.full_name().to_owned();
            rules
                .read(&declared)
                .map_err(|why| UnknownRule { field, why })?;
        }
        Ok(rules)
    }

    fn read(&mut self, declared: &DynamicMessage) -> Result<(), String> {
        for (rule, value) in declared.fields() {
            match (rule.name(), value) {
                ("required", Value::Bool(required)) => self.required = *required,
                ("ignore", Value::EnumNumber(IGNORE_IF_ZERO_VALUE)) => self.optional = true,
                (kind, Value::Message(rules)) => {
                    let within = std::mem::take(&mut self.value);
                    self.value = ValueRules::read(kind, rules, &self.field.kind(), within)?;
                }
                (other, _) => return Err(unknown(other)),
            }
        }
        Ok(())
    }
}

impl ValueRules {
    /// The rules that a field has because of its messages' own.
    fn within(contracts: &DescriptorPool, field: &FieldDescriptor) -> Result<Self, UnknownRule> {
        let Kind::Message(message) = field.kind() else {
            return Ok(Self::Any);
        };
        if field.is_map() || message.package_name() == "google.protobuf" {
            return Ok(Self::Any);
        }
        let rules = MessageRules::compile(contracts, message)?;
        Ok(match rules.fields.is_empty() {
            true => Self::Any,
            false if field.is_list() => Self::List(Box::new(ListRules {
                item: Self::Message(rules),
                ..ListRules::default()
            })),
            false => Self::Message(rules),
        })
    }

    /// The rules of one kind (`string`, `int64`, ...) for a value of a type.
    fn read(kind: &str, rules: &DynamicMessage, of: &Kind, within: Self) -> Result<Self, String> {
        Ok(match (kind, of) {
            ("string", Kind::String) => Self::Text(TextRules::read(rules)?),
            ("int32", Kind::Int32) | ("int64", Kind::Int64) => Self::Number(Bounds::read(rules)?),
            ("duration", Kind::Message(_)) => Self::Time(Bounds::read(rules)?),
            ("enum", Kind::Enum(values)) => Self::Enum(EnumRules::read(rules, values)?),
            ("repeated", _) => Self::List(Box::new(ListRules::read(rules, of, within)?)),
            ("map", _) => Self::Map(Box::new(MapRules::read(rules)?)),
            _ => return Err(unknown(kind)),
        })
    }
}

impl TextRules {
    fn read(rules: &DynamicMessage) -> Result<Self, String> {
        let mut read = Self::default();
        for (rule, value) in rules.fields() {
            match (rule.name(), value) {
                ("max_len", Value::U64(chars)) => read.max_chars = usize::try_from(*chars).ok(),
                ("uuid", Value::Bool(uuid)) => read.uuid = *uuid,
                ("pattern", Value::String(pattern)) => read.pattern = Some(Pattern::new(pattern)?),
                ("not_in", Value::List(texts)) => {
                    let texts = texts.iter().filter_map(Value::as_str);
                    read.not_in = texts.map(str::to_owned).collect();
                }
                (other, _) => return Err(unknown(other)),
            }
        }
        Ok(read)
    }

    /// Of the keys or values of a map.
    fn within(declared: &Value) -> Result<Self, String> {
        let mut read = Self::default();
        for (kind, rules) in declared
            .as_message()
            .into_iter()
            .flat_map(DynamicMessage::fields)
        {
            read = match (kind.name(), rules) {
                ("string", Value::Message(rules)) => Self::read(rules)?,
                (other, _) => return Err(unknown(other)),
            };
        }
        Ok(read)
    }
}

impl Pattern {
    fn new(pattern: &str) -> Result<Self, String> {
        let regex = Regex::new(pattern).map_err(|error| error.to_string())?;
        let must = text::of_pattern(pattern)
            .ok_or_else(|| format!("the pattern {pattern} has no text for people"))?;
        Ok(Self { regex, must })
    }
}

impl Bounds {
    fn read(rules: &DynamicMessage) -> Result<Self, String> {
        let mut read = Self::default();
        for (rule, value) in rules.fields() {
            let number = number(value).ok_or_else(|| unknown(rule.name()))?;
            match rule.name() {
                "gte" => read.least = Some(number),
                "gt" => read.least = Some(number + 1),
                "lte" => read.most = Some(number),
                other => return Err(unknown(other)),
            }
        }
        Ok(read)
    }

    pub(super) fn hold(self, number: i128) -> bool {
        self.least.is_none_or(|least| number >= least)
            && self.most.is_none_or(|most| number <= most)
    }
}

impl EnumRules {
    fn read(rules: &DynamicMessage, values: &EnumDescriptor) -> Result<Self, String> {
        // An enum of proto3 may have any number, so that no other rule means much.
        if rules.get_field_by_name("defined_only").as_deref() != Some(&Value::Bool(true)) {
            return Err("an enum must be defined_only".to_owned());
        }
        let mut not_in = Vec::new();
        for (rule, value) in rules.fields() {
            match (rule.name(), value) {
                ("defined_only", _) => {}
                ("not_in", Value::List(numbers)) => {
                    not_in = numbers.iter().filter_map(Value::as_i32).collect();
                }
                (other, _) => return Err(unknown(other)),
            }
        }
        let allowed = values
            .values()
            .filter(|value| !not_in.contains(&value.number()));
        let allowed: Vec<_> = allowed.collect();
        Ok(Self {
            must: text::of_enum(values, &allowed),
            allowed: allowed.iter().map(|value| value.number()).collect(),
        })
    }
}

impl ListRules {
    fn read(rules: &DynamicMessage, of: &Kind, within: ValueRules) -> Result<Self, String> {
        let mut read = match within {
            ValueRules::List(list) => *list,
            _ => Self::default(),
        };
        for (rule, value) in rules.fields() {
            match (rule.name(), value) {
                ("min_items", Value::U64(count)) => read.count.least = Some((*count).into()),
                ("max_items", Value::U64(count)) => read.count.most = Some((*count).into()),
                ("unique", Value::Bool(unique)) if *of == Kind::String => read.unique = *unique,
                ("items", Value::Message(item)) => {
                    for (kind, rules) in item.fields() {
                        let rules = rules.as_message().ok_or_else(|| unknown(kind.name()))?;
                        read.item = ValueRules::read(kind.name(), rules, of, ValueRules::Any)?;
                    }
                }
                (other, _) => return Err(unknown(other)),
            }
        }
        Ok(read)
    }
}

impl MapRules {
    fn read(rules: &DynamicMessage) -> Result<Self, String> {
        let mut read = Self::default();
        for (rule, value) in rules.fields() {
            match (rule.name(), value) {
                ("max_pairs", Value::U64(count)) => read.count.most = Some((*count).into()),
                ("keys", keys) => read.key = TextRules::within(keys)?,
                ("values", values) => read.value = TextRules::within(values)?,
                (other, _) => return Err(unknown(other)),
            }
        }
        Ok(read)
    }
}

/// Whether a message declares more than its fields do.
fn crosses_fields(contracts: &DescriptorPool, message: &MessageDescriptor) -> bool {
    let has = |options: DynamicMessage, rules: &str| {
        let rules = contracts.get_extension_by_name(rules);
        rules.is_some_and(|rules| options.has_extension(&rules))
    };
    let mut oneofs = message.oneofs();
    let of_oneof = oneofs.any(|oneof| has(oneof.options(), "buf.validate.oneof"));
    of_oneof || has(message.options(), "buf.validate.message")
}

/// What a field declares, if anything.
fn declared(contracts: &DescriptorPool, field: &FieldDescriptor) -> Option<DynamicMessage> {
    let rules = contracts.get_extension_by_name("buf.validate.field")?;
    let options = field.options();
    let declared = options
        .has_extension(&rules)
        .then(|| options.get_extension(&rules))?;
    declared.as_message().cloned()
}

/// A number, or a duration's nanoseconds.
pub(super) fn number(value: &Value) -> Option<i128> {
    match value {
        Value::I32(number) => Some((*number).into()),
        Value::I64(number) => Some((*number).into()),
        Value::Message(duration) => {
            let part = |name| number(duration.get_field_by_name(name)?.as_ref());
            Some(part("seconds")? * 1_000_000_000 + part("nanos")?)
        }
        _ => None,
    }
}

fn unknown(rule: &str) -> String {
    format!("the rule `{rule}` is not one that is evaluated")
}

//! Which methods may be called again, as the contracts say by `idempotency_level`.

use prost::{DecodeError, Message as _};
use prost_types::method_options::IdempotencyLevel;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What makes a change repeatable: its request carries this.
const REQUEST_ID: &str = "request_id";

/// What a method does to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    Read,
    /// A change that a server makes once for each request id.
    Change,
    /// A stream, which is for [`Watch`](super::Watch) to open again.
    Stream,
    /// A change that may be made twice.
    Other,
}

/// The methods of a set of descriptors. One that is not among them is never repeated.
#[derive(Clone, Debug, Default)]
pub struct Methods(Arc<HashMap<String, Effect>>);

impl Methods {
    /// Those of an encoded `FileDescriptorSet`, as the build of the protos makes it.
    ///
    /// # Errors
    /// When it is none.
    pub fn of(descriptors: &[u8]) -> Result<Self, DecodeError> {
        let set = FileDescriptorSet::decode(descriptors)?;
        let messages = set.file.iter().flat_map(|file| {
            let named = |message: &'_ DescriptorProto| qualified(file, message.name());
            file.message_type
                .iter()
                .map(move |message| (named(message), message))
        });
        let with_id: HashSet<String> = messages
            .filter(|(_, message)| message.field.iter().any(|field| field.name() == REQUEST_ID))
            .map(|(name, _)| name)
            .collect();
        let methods = set.file.iter().flat_map(|file| {
            file.service.iter().flat_map(|service| {
                let service_name = qualified(file, service.name())[1..].to_owned();
                let path = move |method: &MethodDescriptorProto| {
                    format!("/{service_name}/{}", method.name())
                };
                let with_id = &with_id;
                let method = move |method| (path(method), effect(method, with_id));
                service.method.iter().map(method)
            })
        });
        Ok(Methods(Arc::new(methods.collect())))
    }

    /// The same for callers whose changes somebody else repeats: of these methods reads alone are.
    #[must_use]
    pub fn reads_alone(&self) -> Self {
        let effects = self.0.iter().map(|(path, effect)| {
            let effect = match effect {
                Effect::Change => Effect::Other,
                effect => *effect,
            };
            (path.clone(), effect)
        });
        Methods(Arc::new(effects.collect()))
    }

    /// `None` of a method that is not known.
    pub(super) fn effect(&self, path: &str) -> Option<Effect> {
        self.0.get(path).copied()
    }
}

fn effect(method: &MethodDescriptorProto, with_id: &HashSet<String>) -> Effect {
    if method.client_streaming() || method.server_streaming() {
        return Effect::Stream;
    }
    let options = method.options.as_ref();
    match options.map_or(IdempotencyLevel::IdempotencyUnknown, |options| {
        options.idempotency_level()
    }) {
        IdempotencyLevel::NoSideEffects => Effect::Read,
        IdempotencyLevel::Idempotent if with_id.contains(method.input_type()) => Effect::Change,
        IdempotencyLevel::Idempotent | IdempotencyLevel::IdempotencyUnknown => Effect::Other,
    }
}

/// `.package.Name`, as descriptors refer to it.
fn qualified(file: &FileDescriptorProto, name: &str) -> String {
    match file.package() {
        "" => format!(".{name}"),
        package => format!(".{package}.{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::{FieldDescriptorProto, MethodOptions, ServiceDescriptorProto};

    fn method(name: &str, input: &str, level: Option<IdempotencyLevel>) -> MethodDescriptorProto {
        MethodDescriptorProto {
            name: Some(name.to_owned()),
            input_type: Some(format!(".p.v1.{input}")),
            options: level.map(|level| MethodOptions {
                idempotency_level: Some(level.into()),
                ..MethodOptions::default()
            }),
            ..MethodDescriptorProto::default()
        }
    }

    fn message(name: &str, field: &str) -> DescriptorProto {
        DescriptorProto {
            name: Some(name.to_owned()),
            field: vec![FieldDescriptorProto {
                name: Some(field.to_owned()),
                ..FieldDescriptorProto::default()
            }],
            ..DescriptorProto::default()
        }
    }

    #[test]
    fn what_may_be_repeated_is_what_the_contracts_say() {
        let read = Some(IdempotencyLevel::NoSideEffects);
        let change = Some(IdempotencyLevel::Idempotent);
        let mut watch = method("Watch", "Named", read);
        watch.server_streaming = Some(true);
        let set = FileDescriptorSet {
            file: vec![FileDescriptorProto {
                package: Some("p.v1".to_owned()),
                message_type: vec![message("Named", "request_id"), message("Nameless", "id")],
                service: vec![ServiceDescriptorProto {
                    name: Some("S".to_owned()),
                    method: vec![
                        method("Get", "Nameless", read),
                        method("Change", "Named", change),
                        method("Claims", "Nameless", change),
                        method("Silent", "Named", None),
                        watch,
                    ],
                    ..ServiceDescriptorProto::default()
                }],
                ..FileDescriptorProto::default()
            }],
        };
        let methods = Methods::of(&set.encode_to_vec()).unwrap();
        for (name, effect, of_reads) in [
            ("Get", Some(Effect::Read), Some(Effect::Read)),
            ("Change", Some(Effect::Change), Some(Effect::Other)),
            ("Claims", Some(Effect::Other), Some(Effect::Other)),
            ("Silent", Some(Effect::Other), Some(Effect::Other)),
            ("Watch", Some(Effect::Stream), Some(Effect::Stream)),
            ("Nobodys", None, None),
        ] {
            let path = format!("/p.v1.S/{name}");
            assert_eq!(methods.effect(&path), effect, "{name}");
            assert_eq!(methods.reads_alone().effect(&path), of_reads, "{name}");
        }
        assert!(Methods::of(b"nonsense").is_err());
    }
}

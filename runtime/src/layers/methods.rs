//! What kinds of methods a server has, by their paths (`/package.Service/Method`).

use std::collections::HashSet;
use std::sync::Arc;

/// What health and reflection begin with.
const OWN: [&str; 2] = ["/grpc.health.", "/grpc.reflection."];

/// Streams of the services that every server has.
const OWN_STREAMS: [&str; 3] = [
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// How long a method takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is answered as soon as that can be done.
    Unary,
    /// One answer, which may be waited for.
    Wait,
    /// A stream that goes on until somebody ends it.
    Watch,
}

/// The methods that are not answered at once. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Methods(Arc<Long>);

#[derive(Clone, Debug)]
struct Long {
    watches: HashSet<String>,
    waits: HashSet<String>,
}

impl Default for Methods {
    fn default() -> Self {
        Methods(Arc::new(Long {
            watches: OWN_STREAMS.map(str::to_owned).into(),
            waits: HashSet::new(),
        }))
    }
}

impl Methods {
    pub(crate) fn add_watches(&mut self, paths: impl IntoIterator<Item = String>) {
        Arc::make_mut(&mut self.0).watches.extend(paths);
    }

    pub(crate) fn add_waits(&mut self, paths: impl IntoIterator<Item = String>) {
        Arc::make_mut(&mut self.0).waits.extend(paths);
    }

    pub(crate) fn kind(&self, path: &str) -> Kind {
        if self.0.watches.contains(path) {
            Kind::Watch
        } else if self.0.waits.contains(path) {
            Kind::Wait
        } else {
            Kind::Unary
        }
    }

    /// Whether it is one of health or reflection.
    pub(crate) fn is_own(path: &str) -> bool {
        OWN.iter().any(|own| path.starts_with(own))
    }
}

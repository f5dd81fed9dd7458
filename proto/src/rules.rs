//! The rules that the .proto files declare for requests (`buf.validate`), evaluated.
//!
//! ```text
//!   .proto ─▶ descriptors ─▶ compile (once a process) ─▶ evaluate (each request) ─▶ violations
//!                               text: what people read of each rule
//! ```
//!
//! Invariants:
//! - Every rule in the contracts is evaluated. One that is not known here, or has no text for people, is
//!   an error of [`Rules::compile`]; none is passed over.
//! - A request is told all that is wrong with it, under the paths that every implementation of
//!   `buf.validate` gives.
//!
//! Known are the standard rules that the contracts use. What a field alone cannot tell, as a disk that is
//! named twice, handlers check with [`crate::fields::Fields`].

mod compile;
mod evaluate;
#[cfg(test)]
mod tests;
mod text;

pub use compile::UnknownRule;

use compile::MessageRules;
use evaluate::Path;
use prost::Name;
use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage as _};
use std::collections::HashMap;
use std::sync::LazyLock;

/// A bad field's path, and what it must be.
pub(crate) type Violation = (String, String);

/// So many bad fields are looked for in one request: more are in none that is meant well, and what a
/// small message can hold shall cost no more than it.
pub(crate) const MOST_VIOLATIONS: usize = 2_000;

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let contracts = DescriptorPool::decode(crate::DESCRIPTORS).expect("the build has made them");
    Rules::compile(&contracts).expect("a test compiles the rules of the contracts")
});

/// The rules of all requests.
pub struct Rules {
    /// By the message's full name.
    requests: HashMap<String, MessageRules>,
}

impl Rules {
    /// Reads the rules of what every method of every service takes.
    ///
    /// # Errors
    /// A rule that is not evaluated here.
    pub fn compile(contracts: &DescriptorPool) -> Result<Self, UnknownRule> {
        let mut requests = HashMap::new();
        for service in contracts.services() {
            for method in service.methods() {
                let rules = MessageRules::compile(contracts, method.input())?;
                requests.insert(method.input().full_name().to_owned(), rules);
            }
        }
        Ok(Self { requests })
    }

    /// Compiles those of these contracts, so that no request has to wait for it.
    pub fn prepare() {
        LazyLock::force(&RULES);
    }

    /// All that is wrong with a request: each bad field's path, and what it must be.
    pub fn violations(&self, request: &DynamicMessage) -> Vec<(String, String)> {
        let descriptor = request.descriptor();
        let rules = self.requests.get(descriptor.full_name());
        rules.map_or_else(Vec::new, |rules| found(rules, request))
    }
}

/// Compiles the rules of these contracts, once: a server does it before it serves, so that no request
/// waits for it.
pub fn prepare() {
    LazyLock::force(&RULES);
}

/// All that is wrong with a request of these contracts.
pub(crate) fn violations<M: Name>(request: &M) -> Vec<Violation> {
    let rules = RULES.requests.get(&M::full_name());
    let rules = rules.expect("what a handler reads is what its method takes");
    let mut message = DynamicMessage::new(rules.message.clone());
    let read = message.transcode_from(request);
    read.expect("both are made of the same contracts");
    found(rules, &message)
}

fn found(rules: &MessageRules, request: &DynamicMessage) -> Vec<Violation> {
    let mut found = Vec::new();
    evaluate::message(rules, request, &Path::Root, &mut found);
    found
}

//! Who may do what: [`Role`], and the [`Caller`] that a request was found to come from.

use serde::{Deserialize, Serialize};

/// What a caller is trusted with. The rules of a server say which of them a method takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Reads, and orders changes from the API server.
    Operator,
    /// A host agent: makes its host known.
    Agent,
    /// An API server: orders changes from the host agents.
    Server,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 4] = [Role::Viewer, Role::Operator, Role::Agent, Role::Server];

    /// As it is written in a configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Agent => "agent",
            Role::Server => "server",
        }
    }

    /// The same, read.
    pub(super) fn named(text: &str) -> Option<Self> {
        Role::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// Whom a request comes from, among its extensions once it was admitted. A request to an open
/// method, or to a server without `[auth]`, has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    name: String,
    role: Role,
    host: Option<String>,
}

impl Caller {
    pub(crate) fn new(name: String, role: Role, host: Option<String>) -> Self {
        Caller { name, role, host }
    }

    /// The name whose role let the request in: of a certificate (`spiffe://…` or a DNS name), of a
    /// token (`token:NAME`), or of whom a signed token is about (`jwt:SUBJECT`).
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The role that let the request in.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The only host that this caller may speak for; none if it is not bound to one.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }
}

/// Whom a credential shows, before it is known what for.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Told to those who are refused.
    pub(crate) name: String,
    /// What each of its names and roles would be let in as; none for a stranger whose credential
    /// is good.
    pub(crate) grants: Vec<Caller>,
}

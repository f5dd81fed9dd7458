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
}

/// Whom a request comes from, among its extensions once it was admitted. A request to an open
/// method, or to a server without `[auth]`, has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    name: String,
    roles: Vec<Role>,
}

impl Caller {
    pub(crate) fn new(name: String, roles: Vec<Role>) -> Self {
        Caller { name, roles }
    }

    /// The name of the certificate (`spiffe://…` or a DNS name), or `token:` and the token's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The roles that the configuration gives this caller; none for a stranger whose certificate
    /// is good.
    #[must_use]
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }
}

//! The rules of a server: which roles each method takes. A method without a rule is refused.

use super::Role;
use std::collections::HashMap;

/// Health tells no secrets, and probes have no credentials.
const HEALTH: &str = "grpc.health.v1.Health";
const HEALTH_METHODS: [&str; 3] = ["Check", "List", "Watch"];
const REFLECTION: [&str; 2] = [
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// Which callers a method takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody, without credentials.
    Open,
    /// Callers that have one of these roles.
    Roles(Vec<Role>),
}

/// The rule of each method, by its path.
#[derive(Clone, Debug)]
pub struct Rules(HashMap<String, Access>);

impl Default for Rules {
    fn default() -> Self {
        Rules::new()
    }
}

impl Rules {
    /// The rules of what every server serves: health is open, reflection is for those who read.
    #[must_use]
    pub fn new() -> Self {
        let open = HEALTH_METHODS.map(|method| (path(HEALTH, method), Access::Open));
        let rules = Rules(HashMap::from(open));
        REFLECTION.iter().fold(rules, |rules, service| {
            let readers = [Role::Viewer, Role::Operator];
            rules.permit(service, &["ServerReflectionInfo"], &readers)
        })
    }

    /// Permits methods of a service, by its full name, to callers with one of the roles. A later
    /// rule of a method replaces an earlier one.
    #[must_use]
    pub fn permit(mut self, service: &str, methods: &[&str], roles: &[Role]) -> Self {
        for method in methods {
            let access = Access::Roles(roles.to_vec());
            self.0.insert(path(service, method), access);
        }
        self
    }

    /// Whether a caller with this role may call the method at this path (`/package.Service/Method`);
    /// none when there is no rule, so that it may not.
    #[must_use]
    pub fn permits(&self, path: &str, role: Role) -> Option<bool> {
        self.access(path).map(|access| match access {
            Access::Open => true,
            Access::Roles(roles) => roles.contains(&role),
        })
    }

    /// Every path that has a rule.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(crate) fn access(&self, path: &str) -> Option<&Access> {
        self.0.get(path)
    }
}

fn path(service: &str, method: &str) -> String {
    format!("/{service}/{method}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_without_a_rule_is_for_nobody() {
        let rules = Rules::new().permit("p.S", &["Get"], &[Role::Viewer]);
        assert_eq!(rules.permits("/p.S/Get", Role::Viewer), Some(true));
        assert_eq!(rules.permits("/p.S/Get", Role::Server), Some(false));
        for path in ["/p.S/Put", "/p.S/get", "/p.S/Get/", "/p.S", "", "/"] {
            for role in Role::ALL {
                assert_eq!(rules.permits(path, role), None, "{path}");
            }
        }
    }

    #[test]
    fn health_is_open_and_reflection_is_for_those_who_read() {
        let rules = Rules::new();
        for role in Role::ALL {
            let health = rules.permits("/grpc.health.v1.Health/Check", role);
            assert_eq!(health, Some(true));
            for service in REFLECTION {
                let path = format!("/{service}/ServerReflectionInfo");
                let reads = matches!(role, Role::Viewer | Role::Operator);
                assert_eq!(rules.permits(&path, role), Some(reads), "{path}");
            }
        }
    }
}

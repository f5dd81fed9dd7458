//! Who a request comes from, and whether it may. Asked before anything is looked up, so that a
//! refusal tells nothing of what exists.

use super::files::{OfFiles, SecurityFileError};
use super::peer::Peer;
use super::rules::{Access, Rules};
use super::tokens::Tokens;
use super::{AuthConfig, Caller, Role};
use crate::layers::status;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use std::collections::BTreeMap;
use std::sync::Arc;
use tonic::Status;

/// A caller's name whose certificate has none.
const NAMELESS: &str = "certificate without a name";

/// Decides on each request.
#[derive(Debug)]
pub(crate) struct Guard {
    rules: Rules,
    subjects: BTreeMap<String, Role>,
    tokens: Option<Arc<OfFiles<Tokens>>>,
}

impl Guard {
    /// The guard of a server; none where nothing is configured.
    pub(super) fn open(auth: &AuthConfig, rules: Rules) -> Result<Option<Self>, SecurityFileError> {
        if !auth.is_on() {
            return Ok(None);
        }
        let tokens = match auth.tokens_file.clone() {
            None => None,
            Some(path) => {
                let named = path.clone();
                let parse = move |contents: &[Vec<u8>]| Tokens::parse(&named, &contents[0]);
                Some(Arc::new(OfFiles::open(vec![path], parse)?))
            }
        };
        let subjects = auth.subjects.iter();
        Ok(Some(Guard {
            rules,
            subjects: subjects
                .map(|(name, role)| (canonical(name), *role))
                .collect(),
            tokens,
        }))
    }

    pub(super) fn tokens(&self) -> Option<&Arc<OfFiles<Tokens>>> {
        self.tokens.as_ref()
    }

    /// Whether a request may pass, and whose it is; nobody's where the method is open.
    pub(crate) fn admit(
        &self,
        path: &str,
        headers: &HeaderMap,
        peer: Option<&Peer>,
    ) -> Result<Option<Caller>, Status> {
        let access = self.rules.access(path);
        if access == Some(&Access::Open) {
            return Ok(None);
        }
        let caller = self.caller(headers, peer)?;
        match access {
            Some(Access::Roles(roles))
                if caller.roles().iter().any(|role| roles.contains(role)) =>
            {
                Ok(Some(caller))
            }
            _ => {
                tracing::info!(caller = caller.name(), "not permitted");
                Err(status::not_permitted(path, caller.name()))
            }
        }
    }

    /// A token says more than a certificate, which may be a proxy's; a wrong one is not made good
    /// by a certificate.
    fn caller(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Result<Caller, Status> {
        if peer.is_some_and(|peer| !peer.is_good()) {
            return Err(status::credentials_invalid(
                "the client's certificate is good no more",
            ));
        }
        let refused = || status::credentials_invalid("the bearer token is not known");
        match bearer(headers).map_err(|Unreadable| refused())? {
            Some(token) => {
                let tokens = self.tokens.as_ref().ok_or_else(refused)?;
                tokens.get().caller(token).ok_or_else(refused)
            }
            None => peer
                .map(|peer| self.of_certificate(peer))
                .ok_or_else(status::credentials_missing),
        }
    }

    fn of_certificate(&self, peer: &Peer) -> Caller {
        let known = |name: &String| Some((name.clone(), *self.subjects.get(name)?));
        let matched: Vec<(String, Role)> = peer.names().iter().filter_map(known).collect();
        let name = matched.first().map(|(name, _)| name);
        let name = name.or(peer.names().first());
        let name = name.map_or_else(|| NAMELESS.to_owned(), String::clone);
        Caller::new(name, matched.into_iter().map(|(_, role)| role).collect())
    }
}

/// As names of certificates are compared: DNS names in lower case.
fn canonical(subject: &str) -> String {
    if subject.contains(':') {
        subject.to_owned()
    } else {
        subject.to_ascii_lowercase()
    }
}

/// An `authorization` that is not one bearer token.
#[derive(Debug)]
struct Unreadable;

/// The token of `authorization: Bearer TOKEN`, if there is that header. It is looked for nowhere else.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Unreadable> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Unreadable);
    }
    let text = value.to_str().map_err(|_| Unreadable)?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token)),
        _ => Err(Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_token_is_read_from_one_bearer_header_alone() {
        assert!(matches!(bearer(&headers(&[])), Ok(None)));
        for good in ["Bearer t", "bearer t", "BEARER t"] {
            assert_eq!(bearer(&headers(&[good])).unwrap(), Some("t"), "{good}");
        }
        for bad in ["t", "Basic t", "Bearer", "Bearer\tt", ""] {
            assert!(bearer(&headers(&[bad])).is_err(), "{bad}");
        }
        assert!(bearer(&headers(&["Bearer t", "Bearer t"])).is_err());
    }
}

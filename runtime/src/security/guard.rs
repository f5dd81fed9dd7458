//! Who a request comes from, and whether it may. Asked before anything is looked up, so that a
//! refusal tells nothing of what exists.
//!
//! What a call was let in by may be revoked while it goes on: [`Guard::until_refused`] asks again
//! now and then, and whenever a file has changed.

use super::files::{LOOK, OfFiles, Watched};
use super::jwt::Jwts;
use super::peer::Peer;
use super::role::Shown;
use super::rules::{Access, Rules};
use super::subjects::{SubjectName, Subjects};
use super::tokens::Tokens;
use super::{AuthConfig, Caller, Role};
use crate::ConfigError;
use crate::layers::status;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use std::sync::Arc;
use tokio::sync::watch;
use tonic::Status;

/// A caller's name whose certificate has none.
const NAMELESS: &str = "certificate without a name";

/// Decides on each request.
#[derive(Debug)]
pub(crate) struct Guard {
    rules: Rules,
    subjects: Subjects,
    more_subjects: Option<Arc<OfFiles<Subjects>>>,
    tokens: Option<Arc<OfFiles<Tokens>>>,
    jwts: Option<Jwts>,
    changes: watch::Sender<()>,
}

/// What a request shows, to be asked about again.
pub(crate) struct Credentials {
    path: String,
    bearer: Result<Option<String>, Unreadable>,
    peer: Option<Arc<Peer>>,
}

impl Credentials {
    pub(crate) fn new(path: &str, headers: &HeaderMap, peer: Option<Arc<Peer>>) -> Self {
        Credentials {
            path: path.to_owned(),
            bearer: bearer(headers).map(|token| token.map(str::to_owned)),
            peer,
        }
    }
}

impl Guard {
    pub(super) fn open(auth: &AuthConfig, rules: Rules) -> Result<Self, ConfigError> {
        let subjects = Subjects::new(&auth.subjects)
            .map_err(|problem| ConfigError::conflict("auth.subjects", &problem))?;
        let tokens = auth.tokens_file.clone().map(|path| {
            let named = path.clone();
            OfFiles::open(vec![path], move |contents| {
                Tokens::parse(&named, &contents[0])
            })
        });
        let more_subjects = auth.subjects_file.clone().map(|path| {
            let (named, beside) = (path.clone(), subjects.clone());
            OfFiles::open(vec![path], move |contents| {
                Subjects::parse(&named, &contents[0], &beside)
            })
        });
        Ok(Guard {
            rules,
            tokens: tokens.transpose()?.map(Arc::new),
            more_subjects: more_subjects.transpose()?.map(Arc::new),
            jwts: auth.jwt.as_ref().map(Jwts::open).transpose()?,
            subjects,
            changes: watch::Sender::new(()),
        })
    }

    /// The files, to be looked at.
    pub(super) fn watched(&self) -> impl Iterator<Item = Arc<dyn Watched>> {
        let tokens = self.tokens.clone().map(|files| files as Arc<dyn Watched>);
        let subjects = self.more_subjects.clone();
        let subjects = subjects.map(|files| files as Arc<dyn Watched>);
        let keys = self.jwts.as_ref().map(Jwts::watched);
        tokens.into_iter().chain(subjects).chain(keys)
    }

    /// Whoever is let in is asked about again, now.
    pub(super) fn something_changed(&self) {
        self.changes.send_replace(());
    }

    /// Whether a request may pass, and whose it is; nobody's where the method is open.
    pub(crate) fn admit(&self, shown: &Credentials) -> Result<Option<Caller>, Status> {
        let access = self.rules.access(&shown.path);
        if access == Some(&Access::Open) {
            return Ok(None);
        }
        let caller = self.shown(shown)?;
        let admitted = |grant: &Caller| match access {
            Some(Access::Roles(roles)) => roles.contains(&grant.role()),
            _ => false,
        };
        if let Some(grant) = caller.grants.into_iter().find(admitted) {
            return Ok(Some(grant));
        }
        tracing::info!(caller = caller.name, "not permitted");
        Err(status::not_permitted(&shown.path, &caller.name))
    }

    /// Waits until what was let in would be let in no more, and says why.
    pub(crate) async fn until_refused(self: Arc<Self>, shown: Credentials) -> Status {
        let mut changes = self.changes.subscribe();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _changed = changes.changed() => {}
            }
            if let Err(status) = self.admit(&shown) {
                let why = status.message();
                tracing::info!(path = shown.path, why, "a call is ended before its time");
                return status;
            }
        }
    }

    /// A token says more than a certificate, which may be a proxy's; a wrong one is not made good
    /// by a certificate.
    fn shown(&self, shown: &Credentials) -> Result<Shown, Status> {
        let peer = shown.peer.as_deref();
        if peer.is_some_and(|peer| !peer.is_good()) {
            return Err(status::credentials_invalid(
                "the client's certificate is good no more",
            ));
        }
        match &shown.bearer {
            Err(Unreadable) => Err(unknown_token()),
            Ok(Some(token)) => self.of_token(token),
            Ok(None) => self.of_certificate(peer.ok_or_else(status::credentials_missing)?),
        }
    }

    fn of_token(&self, token: &str) -> Result<Shown, Status> {
        let known = self.tokens.as_ref();
        if let Some(shown) = known.and_then(|tokens| tokens.get().shown(token)) {
            return Ok(shown);
        }
        let jwts = self.jwts.as_ref().ok_or_else(unknown_token)?;
        jwts.shown(token).map_err(|why| {
            tracing::info!(%why, "a signed token is refused");
            status::credentials_invalid(why.told())
        })
    }

    fn of_certificate(&self, peer: &Peer) -> Result<Shown, Status> {
        let names = peer.names();
        if has_two_identities(names) {
            return Err(status::credentials_invalid(
                "the client's certificate has more than one SPIFFE name",
            ));
        }
        let grants = self.grants(names);
        let known = grants.first().map(|grant| grant.name().to_owned());
        let name = known.or_else(|| names.first().map(ToString::to_string));
        Ok(Shown {
            name: name.unwrap_or_else(|| NAMELESS.to_owned()),
            grants,
        })
    }

    fn grants(&self, names: &[SubjectName]) -> Vec<Caller> {
        let more = self.more_subjects.as_ref().map(|files| files.get());
        let grants = names.iter().filter_map(|name| {
            let more = more.as_ref().and_then(|more| more.grant(name));
            self.subjects.grant(name).or(more)
        });
        grants.collect()
    }

    /// Whether one of a certificate's names is that of a host's agent, and of no other's.
    pub(super) fn binds(&self, names: &[SubjectName], host: &str) -> bool {
        let of_host = |grant: &Caller| grant.role() == Role::Agent && grant.host() == Some(host);
        !has_two_identities(names) && self.grants(names).iter().any(of_host)
    }
}

/// SPIFFE: an identity has one name, and whoever has two is none of them.
fn has_two_identities(names: &[SubjectName]) -> bool {
    names.iter().filter(|name| name.is_spiffe()).count() > 1
}

fn unknown_token() -> Status {
    status::credentials_invalid("the bearer token is not known")
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

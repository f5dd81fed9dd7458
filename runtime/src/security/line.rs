//! A channel whose requests carry a bearer token, if there is one; or none, which says why.

use super::files::{OfFiles, SecurityFileError};
use futures::future::{Either, Ready, ready};
use http::HeaderValue;
use http::header::AUTHORIZATION;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tonic::transport::channel::ResponseFuture;
use tonic::transport::{Channel, Error};
use tower::Service;

/// What generated clients call through.
#[derive(Clone, Debug)]
pub struct Line {
    way: Way,
    /// What is open as long as somebody has a line like this.
    _shared: Option<Arc<Line>>,
}

#[derive(Clone, Debug)]
enum Way {
    Open(Channel, Option<Arc<BearerFile>>),
    /// Every call is answered with this.
    Barred(Arc<str>),
}

impl Line {
    pub(super) fn new(channel: Channel, bearer: Option<Arc<BearerFile>>) -> Self {
        Way::Open(channel, bearer).into()
    }

    /// A line to where nobody may call: each call is UNAVAILABLE for this cause.
    #[must_use]
    pub fn barred(cause: &str) -> Self {
        Way::Barred(cause.into()).into()
    }

    /// The channel alone, for a client that takes nothing else; `None` where nobody may call.
    pub(crate) fn channel(&self) -> Option<Channel> {
        match &self.way {
            Way::Open(channel, _) => Some(channel.clone()),
            Way::Barred(_) => None,
        }
    }

    /// Another one over the same connection.
    pub(crate) fn sharing(line: Arc<Line>) -> Self {
        Line {
            way: line.way.clone(),
            _shared: Some(line),
        }
    }
}

impl From<Way> for Line {
    fn from(way: Way) -> Self {
        Line { way, _shared: None }
    }
}

impl From<Channel> for Line {
    fn from(channel: Channel) -> Self {
        Line::new(channel, None)
    }
}

impl Service<http::Request<Body>> for Line {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = Either<ResponseFuture, Ready<Result<Self::Response, Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match &mut self.way {
            Way::Open(channel, _) => channel.poll_ready(cx),
            Way::Barred(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        match &mut self.way {
            Way::Open(channel, bearer) => {
                if let Some(bearer) = bearer {
                    request.headers_mut().insert(AUTHORIZATION, bearer.header());
                }
                Either::Left(channel.call(request))
            }
            Way::Barred(cause) => {
                let status = Status::unavailable(format!("it may not be called: {cause}"));
                Either::Right(ready(Ok(status.into_http())))
            }
        }
    }
}

/// A file that holds a token, read again when it changes.
#[derive(Debug)]
pub(super) struct BearerFile(OfFiles<HeaderValue>);

impl BearerFile {
    pub(super) fn open(path: PathBuf) -> Result<Self, SecurityFileError> {
        let named = path.clone();
        let parse = move |contents: &[Vec<u8>]| header(&named, &contents[0]);
        OfFiles::open(vec![path], parse).map(BearerFile)
    }

    fn header(&self) -> HeaderValue {
        self.0.fresh().as_ref().clone()
    }
}

fn header(path: &Path, content: &[u8]) -> Result<HeaderValue, SecurityFileError> {
    let refused = || SecurityFileError::content(path, "must hold one token and nothing else");
    let token = content.trim_ascii();
    if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
        return Err(refused());
    }
    let mut header =
        HeaderValue::from_bytes(&[b"Bearer ", token].concat()).map_err(|_| refused())?;
    // Neither printed nor kept in the compression tables of HTTP/2.
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_holds_one_token_which_is_not_printed() {
        let path = Path::new("token");
        let read = header(path, b"hush-hush\n").unwrap();
        assert_eq!(read.as_bytes(), b"Bearer hush-hush");
        assert!(!format!("{read:?}").contains("hush"));
        for bad in ["", "\n", "hush hush", "hush\nhush", "h\u{fc}sh"] {
            let refused = header(path, bad.as_bytes()).unwrap_err().to_string();
            assert_eq!(refused, "token: must hold one token and nothing else");
        }
    }
}

//! A channel whose requests carry a bearer token, if there is one.

use super::files::{OfFiles, SecurityFileError};
use http::HeaderValue;
use http::header::AUTHORIZATION;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tonic::body::Body;
use tonic::transport::channel::ResponseFuture;
use tonic::transport::{Channel, Error};
use tower::Service;

/// How often the token's file is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What generated clients call through.
#[derive(Clone, Debug)]
pub struct Line {
    channel: Channel,
    bearer: Option<Arc<BearerFile>>,
}

impl Line {
    pub(super) fn new(channel: Channel, bearer: Option<Arc<BearerFile>>) -> Self {
        Line { channel, bearer }
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
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if let Some(bearer) = &self.bearer {
            request.headers_mut().insert(AUTHORIZATION, bearer.header());
        }
        self.channel.call(request)
    }
}

/// A file that holds a token, read again when it changes.
#[derive(Debug)]
pub(super) struct BearerFile {
    header: OfFiles<HeaderValue>,
    looked_at: Mutex<Instant>,
}

impl BearerFile {
    pub(super) fn open(path: PathBuf) -> Result<Self, SecurityFileError> {
        let named = path.clone();
        let parse = move |contents: &[Vec<u8>]| header(&named, &contents[0]);
        Ok(BearerFile {
            header: OfFiles::open(vec![path], parse)?,
            looked_at: Mutex::new(Instant::now()),
        })
    }

    fn header(&self) -> HeaderValue {
        let mut looked_at = self
            .looked_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if looked_at.elapsed() >= LOOK {
            *looked_at = Instant::now();
            drop(looked_at);
            self.header.look();
        }
        self.header.get().as_ref().clone()
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

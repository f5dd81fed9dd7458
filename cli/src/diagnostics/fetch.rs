//! Reads metrics where a server or an agent serves them.

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::time::Duration;
use tokio::net::TcpStream;

const TIME_LIMIT: Duration = Duration::from_secs(10);
/// Far more than the metrics of the largest site.
const MOST_BYTES: usize = 16 << 20;

/// The answer's text.
///
/// # Errors
/// For people: what is wrong with the address, or that nobody answers well.
pub(crate) async fn metrics(url: &str) -> Result<Vec<u8>, String> {
    let uri: Uri = url.parse().map_err(|_| "is not a URL".to_owned())?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http"), Some(host)) => {
            let port = uri.port_u16().unwrap_or(80);
            let asked = tokio::time::timeout(TIME_LIMIT, get(host, port, &uri)).await;
            let asked = asked.map_err(|_elapsed| "no answer in time".to_owned())?;
            asked.map_err(|error| error.to_string())
        }
        _ => Err("must be `http://ADDRESS:PORT/metrics`".to_owned()),
    }
}

async fn get(host: &str, port: u16, uri: &Uri) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
    // An IPv6 address stands in brackets in a URL.
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, port)).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let driven = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, format!("{host}:{port}"))
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    if !answer.status().is_success() {
        return Err(format!("answered {}", answer.status()).into());
    }
    let body = Limited::new(answer.into_body(), MOST_BYTES)
        .collect()
        .await?;
    driven.abort();
    Ok(body.to_bytes().into())
}

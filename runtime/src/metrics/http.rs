//! Where metrics are read: `GET /metrics`, by HTTP on a port that serves nothing else.

use super::Metrics;
use crate::listen::optional;
use crate::{ConfigError, ServeError, Shutdown};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

const OPEN_METRICS: &str = "application/openmetrics-text";
/// Scrapes at once; more of them wait.
const CONNECTIONS: usize = 16;
/// For a connection that says nothing, and for the rest after an accept that failed.
const PATIENCE: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// The table `[metrics]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Where metrics are served; `None`, in a file the empty text: nowhere.
    #[serde(with = "optional")]
    pub listen: Option<SocketAddr>,
    /// Whether other machines may read them all the same: in plaintext, and whoever reaches the port.
    pub plaintext: bool,
}

impl MetricsConfig {
    /// Whether the address may be listened on: there is no TLS, and nobody is asked who he is.
    ///
    /// # Errors
    /// [`ConfigError::InsecureMetrics`] for one that other machines can reach, unless `insecure`, or that is
    /// what is wished of the metrics alone.
    pub fn admit(&self, insecure: bool) -> Result<(), ConfigError> {
        let wished = insecure || self.plaintext;
        match self.listen {
            Some(address) if !wished && !address.ip().to_canonical().is_loopback() => {
                Err(ConfigError::InsecureMetrics { address })
            }
            _ => Ok(()),
        }
    }

    /// Serves metrics until the server drains, if that is configured; gives the address in effect.
    ///
    /// # Errors
    /// As [`admit`](Self::admit), and [`ServeError::Bind`].
    pub async fn serve(
        &self,
        insecure: bool,
        metrics: &Metrics,
        shutdown: &Shutdown,
    ) -> Result<Option<SocketAddr>, ServeError> {
        self.admit(insecure)?;
        let Some(address) = self.listen else {
            return Ok(None);
        };
        let failed = |source| ServeError::Bind {
            address: address.to_string(),
            source,
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!(%address, "metrics are served");
        let serving = accept(listener, metrics.clone());
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(serving));
        Ok(Some(address))
    }
}

async fn accept(listener: TcpListener, metrics: Metrics) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let metrics = metrics.clone();
                tokio::spawn(async move {
                    answer(stream, metrics).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a scrape was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, metrics: Metrics) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(&request, &metrics);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    // A scraper that leaves is no news.
    let _left = http.serve_connection(TokioIo::new(stream), service).await;
}

fn respond<B>(request: &Request<B>, metrics: &Metrics) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return refused(StatusCode::NOT_FOUND);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return refused(StatusCode::METHOD_NOT_ALLOWED);
    }
    let accepts = |form: &str| {
        let accepted = request.headers().get_all(header::ACCEPT).iter();
        accepted
            .filter_map(|value| value.to_str().ok())
            .any(|it| it.contains(form))
    };
    let (form, text) = if accepts(OPEN_METRICS) {
        (
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            metrics.text(),
        )
    } else {
        (
            "text/plain; version=0.0.4; charset=utf-8",
            metrics.prometheus_text(),
        )
    };
    let mut response = Response::new(Full::from(text));
    let form = header::HeaderValue::from_static(form);
    response.headers_mut().insert(header::CONTENT_TYPE, form);
    response
}

fn refused(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn at(listen: &str) -> MetricsConfig {
        toml::from_str(&format!("listen = {listen:?}")).unwrap()
    }

    #[test]
    fn it_is_off_by_default_and_on_loopback_alone_without_more_words() {
        assert_eq!(MetricsConfig::default(), at(""));
        assert!(toml::from_str::<MetricsConfig>("listen = 'here'").is_err());
        assert!(at("127.0.0.1:0").admit(false).is_ok());
        let refused = at("0.0.0.0:1").admit(false).unwrap_err();
        assert!(
            refused.to_string().starts_with("metrics.listen"),
            "{refused}"
        );
        assert!(at("0.0.0.0:1").admit(true).is_ok());
        let open = MetricsConfig {
            plaintext: true,
            ..at("0.0.0.0:1")
        };
        assert!(open.admit(false).is_ok());
    }

    async fn get(address: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{head}\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_scrape_gets_the_form_that_it_takes_and_nothing_else_is_served() {
        let (metrics, shutdown) = (Metrics::default(), Shutdown::new());
        let config = at("127.0.0.1:0");
        let address = config
            .serve(false, &metrics, &shutdown)
            .await
            .unwrap()
            .unwrap();
        let open = format!("GET /metrics HTTP/1.1\r\naccept: {OPEN_METRICS};version=1.0.0,*/*");
        let answer = get(address, &open).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"));
        assert!(answer.ends_with("# EOF\n"));
        let answer = get(address, "GET /metrics HTTP/1.1").await;
        assert!(
            answer.contains("content-type: text/plain; version=0.0.4"),
            "{answer}"
        );
        assert!(answer.contains("livemerge_build_info{"));
        assert!(
            get(address, "GET / HTTP/1.1")
                .await
                .starts_with("HTTP/1.1 404")
        );
        assert!(
            get(address, "POST /metrics HTTP/1.1")
                .await
                .starts_with("HTTP/1.1 405")
        );
        shutdown.cancel();
    }
}

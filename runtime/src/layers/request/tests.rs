use super::*;
use std::sync::{Arc, Mutex};

/// What is logged while `serve` runs, as text.
async fn logged<F: Future<Output = ()>>(serve: impl FnOnce() -> F) -> String {
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || Lines(lines.clone()))
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    serve().await;
    drop(guard);
    String::from_utf8(log.lock().unwrap().clone()).unwrap()
}

struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn request(path: &str) -> http::Request<Body> {
    let request = http::Request::post(path).header(REQUEST_ID, "req-9");
    request.body(Body::empty()).unwrap()
}

async fn serve(path: &str, status: Status) {
    let service = tower::service_fn(move |_| {
        let response = status.clone().into_http::<Body>();
        async { Ok::<_, Infallible>(response) }
    });
    RequestSpan::new(service).call(request(path)).await.unwrap();
}

#[tokio::test]
async fn a_request_is_logged_once_with_its_code_and_ids() {
    let log = logged(|| serve("/p.S/Get", Status::not_found("gone"))).await;
    assert_eq!(log.lines().count(), 1, "{log}");
    for part in ["INFO", "code=NotFound", "duration_ms=", "req-9", "/p.S/Get"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    let log = logged(|| serve("/p.S/Get", Status::internal("boom"))).await;
    assert!(
        log.contains("ERROR") && log.contains("code=Internal"),
        "{log}"
    );
}

#[tokio::test]
async fn a_client_that_leaves_is_logged() {
    let log = logged(|| async {
        let service = tower::service_fn(|_| std::future::pending());
        drop(RequestSpan::new(service).call(request("/p.S/Get")));
    })
    .await;
    assert!(
        log.contains("client left before the end") && log.contains("req-9"),
        "{log}"
    );
}

#[tokio::test]
async fn a_probe_is_logged_only_when_it_fails() {
    let path = "/grpc.health.v1.Health/Check";
    assert_eq!(logged(|| serve(path, Status::ok(""))).await, "");
    let log = logged(|| serve(path, Status::not_found("who"))).await;
    assert!(log.contains("code=NotFound"), "{log}");
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn headers(name: &'static str, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    headers
}

#[test]
fn a_usable_request_id_is_kept_and_another_replaced() {
    assert_eq!(request_id(&headers(REQUEST_ID, "req-1")), "req-1");
    for foreign in ["", "two words", "é", &"x".repeat(129)] {
        let made = request_id(&headers(REQUEST_ID, foreign));
        assert!(Uuid::parse_str(&made).is_ok(), "{made}");
    }
}

#[tokio::test]
async fn a_valid_trace_is_continued_with_a_span_of_our_own() {
    let service = tower::service_fn(|request: http::Request<Body>| async move {
        let ids = request.extensions().get::<RequestIds>().cloned();
        assert_eq!(ids.map(|ids| ids.trace), TraceContext::current());
        let onward = TraceContext::current().unwrap().to_string();
        Ok::<_, Infallible>(Status::ok(onward).into_http::<Body>())
    });
    let answer = async |traceparent: &str| {
        let request = http::Request::post("/p.S/Get").header(TRACEPARENT, traceparent);
        let request = request.body(Body::empty()).unwrap();
        let answer = RequestSpan::new(service).call(request).await.unwrap();
        let status = Status::from_header_map(answer.headers()).unwrap();
        status.message().parse::<TraceContext>().unwrap()
    };
    let caller = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let onward = answer(&caller).await;
    assert_eq!(onward.trace_id(), TRACE);
    assert!(onward.to_string().ends_with("-01"));
    assert_ne!(onward.to_string(), caller);
    assert_ne!(answer("00-not-a-trace").await.trace_id(), TRACE);
}

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

fn ids(name: &'static str, value: &str) -> RequestIds {
    let mut headers = HeaderMap::new();
    headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    RequestIds::from_headers(&headers)
}

#[test]
fn a_usable_request_id_is_kept_and_another_replaced() {
    assert_eq!(ids(REQUEST_ID, "req-1").request_id, "req-1");
    for foreign in ["", "two words", "é", &"x".repeat(129)] {
        let made = ids(REQUEST_ID, foreign).request_id;
        assert!(Uuid::parse_str(&made).is_ok(), "{made}");
    }
}

#[test]
fn a_valid_trace_is_continued_with_a_span_of_our_own() {
    let ids = ids(TRACEPARENT, &format!("00-{TRACE}-00f067aa0ba902b7-01"));
    assert_eq!(
        (ids.trace_id.as_str(), ids.trace_flags.as_str()),
        (TRACE, "01")
    );
    assert_ne!(ids.span_id, "00f067aa0ba902b7");
    let onward = parse_traceparent(&ids.traceparent());
    assert_eq!(onward, Some((TRACE.to_owned(), "01".to_owned())));
}

#[test]
fn an_invalid_trace_is_replaced() {
    let zeros = "0".repeat(32);
    for text in [
        String::new(),
        format!("00-{TRACE}-00f067aa0ba902b7"),
        format!("ff-{TRACE}-00f067aa0ba902b7-01"),
        format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
        format!("00-{TRACE}-0000000000000000-01"),
        format!("00-{zeros}-00f067aa0ba902b7-01"),
        format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
    ] {
        assert_eq!(parse_traceparent(&text), None, "{text}");
        let made = ids(TRACEPARENT, &text);
        assert!(parse_traceparent(&made.traceparent()).is_some(), "{made:?}");
    }
    assert!(parse_traceparent(&format!("01-{TRACE}-00f067aa0ba902b7-01-more")).is_some());
}

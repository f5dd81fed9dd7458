//! The console: its files as browsers get them, and who may call from its address.

use super::raw::{Form, call, send};
use super::{GET, LIST};
use crate::any_id;
use crate::secured::{Secured, token};
use livemerge_proto::v1;
use livemerge_runtime::Role;

const PAGE: &str = "/";

/// The files that the page names.
fn named(page: &[u8]) -> Vec<String> {
    let page = str::from_utf8(page).unwrap();
    let quoted = page.split('"').filter(|text| text.contains("/assets/"));
    quoted
        .map(|name| name.trim_start_matches('.').to_owned())
        .collect()
}

#[tokio::test]
async fn a_browser_gets_the_page_and_all_that_it_names() {
    let secured = Secured::serve(&any_id()).await;
    let get = async |path: &str| send(&secured.console, "GET", path, &[], &[]).await;
    let page = get(PAGE).await;
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self'"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    let files = named(&page.body);
    assert!(files.len() >= 2, "{files:?}");
    for path in files {
        let file = get(&path).await;
        assert_eq!(file.status, 200, "{path}");
        let kept = Some("public, max-age=31536000, immutable");
        assert_eq!(file.header("cache-control"), kept, "{path}");
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
        let accepts = [("accept-encoding", "gzip".to_owned())];
        let small = send(&secured.console, "GET", &path, &accepts, &[]).await;
        if small.header("content-encoding") == Some("gzip") {
            assert!(small.body.len() < file.body.len(), "{path}");
        } else {
            assert!(file.body.len() < 2048, "{path}");
        }
    }
    let head = send(&secured.console, "HEAD", PAGE, &[], &[]).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(get("/nothing.js").await.status, 404);
    assert_eq!(get("/assets/../index.html").await.status, 404);
    let post = send(&secured.console, "POST", PAGE, &[], &[]).await;
    assert_eq!(post.status, 405);
    // The address for pages from elsewhere has none.
    let web = send(&secured.web, "GET", PAGE, &[], &[]).await;
    assert_eq!(web.status, 404);
}

#[tokio::test]
async fn its_own_pages_may_call_and_no_others_whatever_name_points_there() {
    let secured = Secured::serve(&any_id()).await;
    let port = secured.console.rsplit_once(':').unwrap().1;
    let list = v1::ListSnapshotsRequest {
        vm_id: "-".to_owned(),
        ..v1::ListSnapshotsRequest::default()
    };
    let from = async |origin: &str| {
        let bearer = format!("Bearer {}", token(Role::Viewer));
        let headers = [("authorization", bearer), ("origin", origin.to_owned())];
        call(&secured.console, LIST, Form::Binary, &headers, &list).await
    };
    for own in [
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
    ] {
        let answer = from(&own).await;
        assert_eq!(answer.status, 200, "{own}");
        let (lists, trailers) = answer.messages::<v1::ListSnapshotsResponse>(Form::Binary);
        assert_eq!(lists.len(), 1);
        assert!(trailers.contains("grpc-status:0"), "{trailers}");
    }
    for other in [
        format!("http://rebound.example.org:{port}"),
        "http://127.0.0.1".to_owned(),
        "http://localhost:1".to_owned(),
        "null".to_owned(),
    ] {
        let answer = from(&other).await;
        assert_eq!((answer.status, answer.body.len()), (403, 0), "{other}");
    }
}

/// It is the same gate.
#[tokio::test]
async fn nobody_is_let_in_for_coming_from_the_console() {
    let secured = Secured::serve(&any_id()).await;
    let get = v1::GetSnapshotRequest {
        snapshot_id: any_id(),
    };
    let headers = [("origin", format!("http://{}", secured.console))];
    let answer = call(&secured.console, GET, Form::Binary, &headers, &get).await;
    let (code, reason) = answer.grpc_status(Form::Binary);
    assert_eq!((&*code, &*reason), ("16", "CREDENTIALS_MISSING"));
}

//! Browsers: gRPC-Web over HTTP/1.1, as it stands on the wire.

mod console;
mod raw;

use crate::secured::{CONSOLE, Secured, token};
use crate::{any_id, until};
use livemerge_api_server::config::Config;
use livemerge_proto::v1;
use livemerge_proto::v1::event_service_client::EventServiceClient;
use livemerge_proto::v1::inventory_service_client::InventoryServiceClient;
use livemerge_proto::v1::operation_service_client::OperationServiceClient;
use livemerge_proto::v1::snapshot_service_client::SnapshotServiceClient;
use livemerge_runtime::Role;
use raw::{Answer, Form, call, send};
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// For what must come.
const SOON: Duration = Duration::from_secs(30);
const LIST: &str = "/livemerge.v1.SnapshotService/ListSnapshots";
const GET: &str = "/livemerge.v1.SnapshotService/GetSnapshot";
const DELETE: &str = "/livemerge.v1.SnapshotService/DeleteSnapshot";

fn as_role(role: Role) -> [(&'static str, String); 2] {
    let bearer = format!("Bearer {}", token(role));
    [("authorization", bearer), ("origin", CONSOLE.to_owned())]
}

/// Takes one, as gRPC does it: its id.
async fn snapshot(secured: &Secured, vm: &str) -> String {
    let line = secured.line(Some(Role::Operator));
    let mut inventory = InventoryServiceClient::new(line.clone());
    until("the machine", async || {
        let vm_id = vm.to_owned();
        inventory.get_vm(v1::GetVmRequest { vm_id }).await.ok()
    })
    .await;
    let request = v1::CreateSnapshotRequest {
        request_id: any_id(),
        vm_id: vm.to_owned(),
        name: "s1".to_owned(),
        ..v1::CreateSnapshotRequest::default()
    };
    let mut snapshots = SnapshotServiceClient::new(line.clone());
    let answer = snapshots.create_snapshot(request).await.unwrap();
    let request = v1::WaitOperationRequest {
        operation_id: answer.into_inner().operation.unwrap().id,
        timeout: None,
    };
    let mut operations = OperationServiceClient::new(line);
    let ended = operations.wait_operation(request).await.unwrap();
    ended.into_inner().operation.unwrap().snapshot_id
}

#[tokio::test]
async fn a_page_reads_snapshots_in_both_forms() {
    let vm = any_id();
    let secured = Secured::serve(&vm).await;
    let snapshot_id = snapshot(&secured, &vm).await;
    for form in [Form::Binary, Form::Text] {
        let list = v1::ListSnapshotsRequest {
            vm_id: vm.clone(),
            ..v1::ListSnapshotsRequest::default()
        };
        let answer = call(&secured.web, LIST, form, &as_role(Role::Viewer), &list).await;
        let (listed, trailers) = answer.messages::<v1::ListSnapshotsResponse>(form);
        assert_eq!(listed[0].snapshots[0].id, snapshot_id);
        assert!(trailers.contains("grpc-status:0"), "{trailers}");

        let get = v1::GetSnapshotRequest {
            snapshot_id: snapshot_id.clone(),
        };
        let answer = call(&secured.web, GET, form, &as_role(Role::Viewer), &get).await;
        let (got, trailers) = answer.messages::<v1::GetSnapshotResponse>(form);
        assert_eq!(got[0].snapshot.as_ref().unwrap().name, "s1");
        assert!(trailers.contains("grpc-status:0"), "{trailers}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(CONSOLE));
        let exposed = answer.header("access-control-expose-headers").unwrap();
        for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
            assert!(
                exposed.split(',').any(|exposed| exposed == name),
                "{exposed}"
            );
        }
    }
}

#[tokio::test]
async fn roles_hold_for_pages_too() {
    let secured = Secured::serve(&any_id()).await;
    let delete = v1::DeleteSnapshotRequest {
        request_id: any_id(),
        snapshot_id: any_id(),
        ..v1::DeleteSnapshotRequest::default()
    };
    let anybody = [("origin", CONSOLE.to_owned())];
    let (viewer, operator) = (as_role(Role::Viewer), as_role(Role::Operator));
    for (headers, status, reason) in [
        (&anybody[..], "16", "CREDENTIALS_MISSING"),
        (&viewer, "7", "METHOD_NOT_PERMITTED"),
        // Let through: there is no such snapshot.
        (&operator, "5", "SNAPSHOT_NOT_FOUND"),
    ] {
        for form in [Form::Binary, Form::Text] {
            let answer = call(&secured.web, DELETE, form, headers, &delete).await;
            assert_eq!(
                answer.grpc_status(form),
                (status.to_owned(), reason.to_owned())
            );
            assert_eq!(answer.header("access-control-allow-origin"), Some(CONSOLE));
        }
    }
}

#[tokio::test]
async fn pages_have_no_places_beside_those_of_other_clients() {
    let mut config = Config::default();
    // Nobody holds more than it leaves free: one.
    config.server.max_concurrent_calls = NonZeroU32::new(2).unwrap();
    let secured = Secured::serve_as(&any_id(), config).await;
    let mut events = EventServiceClient::new(secured.line(Some(Role::Viewer)));
    let watch = v1::WatchEventsRequest::default();
    let held = events.watch_events(watch).await.unwrap();

    let get = async || {
        let get = v1::GetSnapshotRequest {
            snapshot_id: any_id(),
        };
        let headers = as_role(Role::Viewer);
        let answer = call(&secured.web, GET, Form::Binary, &headers, &get).await;
        answer.grpc_status(Form::Binary).1
    };
    assert_eq!(get().await, "SERVER_OVERLOADED");
    drop(held);
    until("the place is free", async || {
        (get().await == "SNAPSHOT_NOT_FOUND").then_some(())
    })
    .await;
}

#[tokio::test]
async fn deadlines_hold_for_pages_too() {
    let vm_id = any_id();
    let secured = Secured::serve(&vm_id).await;
    let mut inventory = InventoryServiceClient::new(secured.line(Some(Role::Viewer)));
    until("the machine", async || {
        let vm_id = vm_id.clone();
        inventory.get_vm(v1::GetVmRequest { vm_id }).await.ok()
    })
    .await;
    let [bearer, origin] = as_role(Role::Viewer);
    let headers = [bearer, origin, ("grpc-timeout", "0n".to_owned())];
    // Its host is asked for that.
    let path = "/livemerge.v1.InventoryService/GetVolumeChain";
    let chain = v1::GetVolumeChainRequest {
        vm_id,
        ..v1::GetVolumeChainRequest::default()
    };
    let answer = call(&secured.web, path, Form::Binary, &headers, &chain).await;
    assert_eq!(
        answer.grpc_status(Form::Binary),
        ("4".to_owned(), "DEADLINE_EXCEEDED".to_owned())
    );
}

/// A page's connection that was open, until it is closed from the other side.
async fn is_closed(mut stream: TcpStream) {
    let mut rest = Vec::new();
    // Closed or broken is the same to it.
    let closed = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await;
    drop(closed.expect("it is closed"));
}

#[tokio::test]
async fn a_request_that_never_comes_to_its_end_is_given_up() {
    let mut config = Config::default();
    config.server.keepalive_interval_seconds = NonZeroU64::MIN;
    config.server.max_connection_age_seconds = 0;
    let secured = Secured::serve_as(&any_id(), config).await;
    let mut stream = TcpStream::connect(&secured.web).await.unwrap();
    let half = b"POST /livemerge.v1.SnapshotService/ListSnapshots HTTP/1.1\r\nhost: console";
    stream.write_all(half).await.unwrap();
    is_closed(stream).await;
}

#[tokio::test]
async fn a_page_connects_again_when_its_connection_is_old() {
    let mut config = Config::default();
    config.server.keepalive_interval_seconds = NonZeroU64::new(3600).unwrap();
    config.server.max_connection_age_seconds = 1;
    let secured = Secured::serve_as(&any_id(), config).await;
    let mut stream = TcpStream::connect(&secured.web).await.unwrap();
    let foreign = "POST / HTTP/1.1\r\nhost: console\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(foreign.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 404");
    // It would be kept for the next request.
    is_closed(stream).await;
}

async fn preflight(secured: &Secured, origin: &str) -> Answer {
    let headers = [
        ("origin", origin.to_owned()),
        ("access-control-request-method", "POST".to_owned()),
        (
            "access-control-request-headers",
            "authorization,content-type,x-grpc-web".to_owned(),
        ),
    ];
    send(&secured.web, "OPTIONS", LIST, &headers, &[]).await
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_may_call() {
    let secured = Secured::serve(&any_id()).await;
    let answer = preflight(&secured, CONSOLE).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some(CONSOLE));
    assert_eq!(answer.header("access-control-allow-methods"), Some("POST"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    let allowed = answer.header("access-control-allow-headers").unwrap();
    for name in [
        "authorization",
        "content-type",
        "x-grpc-web",
        "grpc-timeout",
    ] {
        assert!(
            allowed.split(',').any(|allowed| allowed == name),
            "{allowed}"
        );
    }
}

#[tokio::test]
async fn a_page_from_elsewhere_may_not() {
    let secured = Secured::serve(&any_id()).await;
    for origin in [
        "https://evil.example.org",
        "https://console.example.org.evil.example",
        "https://console.example.org:8443",
        "http://console.example.org",
        "https://CONSOLE.example.org",
        "null",
        "",
    ] {
        let mut answers = vec![preflight(&secured, origin).await];
        let mut headers = as_role(Role::Operator);
        headers[1].1 = origin.to_owned();
        let list = v1::ListSnapshotsRequest::default();
        answers.push(call(&secured.web, LIST, Form::Binary, &headers, &list).await);
        for answer in answers {
            assert_eq!((answer.status, answer.body.len()), (403, 0), "{origin:?}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    }
}

#[tokio::test]
async fn what_is_no_call_of_a_page_is_not_served() {
    let secured = Secured::serve(&any_id()).await;
    let plain = [("content-type", "application/grpc".to_owned())];
    for (method, headers, status) in [
        ("GET", &[][..], 404),
        ("POST", &[], 404),
        // gRPC itself is HTTP/2.
        ("POST", &plain, 400),
    ] {
        let answer = send(&secured.web, method, LIST, headers, &[]).await;
        assert_eq!(answer.status, status, "{method}");
    }
    // Nor is gRPC-Web where gRPC is.
    let main = secured.address.strip_prefix("http://").unwrap();
    let web = [("content-type", "application/grpc-web".to_owned())];
    assert!(raw::try_send(main, "POST", LIST, &web, &[]).await.is_none());
}

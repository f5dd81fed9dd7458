//! Messages compressed on the wire, where both sides want it.

use crate::any_id;
use crate::secured::Secured;
use livemerge_api_server::config::Config;
use livemerge_proto::v1;
use livemerge_proto::v1::snapshot_service_client::SnapshotServiceClient;
use livemerge_runtime::{Compression, Line, Role};
use tonic::Code;
use tonic::codec::CompressionEncoding;

const ENCODINGS: [(CompressionEncoding, &str); 2] = [
    (CompressionEncoding::Gzip, "gzip"),
    (CompressionEncoding::Zstd, "zstd"),
];

fn client(secured: &Secured) -> SnapshotServiceClient<Line> {
    SnapshotServiceClient::new(secured.line(Some(Role::Operator)))
}

/// How the server compressed its answer to a list.
async fn answered(mut client: SnapshotServiceClient<Line>) -> Result<Option<String>, Code> {
    let request = v1::ListSnapshotsRequest {
        vm_id: "-".to_owned(),
        ..v1::ListSnapshotsRequest::default()
    };
    let answer = client.list_snapshots(request).await;
    let answer = answer.map_err(|status| status.code())?;
    let encoding = answer.metadata().get("grpc-encoding");
    Ok(encoding.map(|name| name.to_str().unwrap().to_owned()))
}

#[tokio::test]
async fn messages_are_compressed_for_those_who_ask_for_it() {
    let secured = Secured::serve(&any_id()).await;
    assert_eq!(answered(client(&secured)).await, Ok(None));
    for (encoding, name) in ENCODINGS {
        let asks = client(&secured).accept_compressed(encoding);
        assert_eq!(answered(asks).await, Ok(Some(name.to_owned())));
        let sends = client(&secured).send_compressed(encoding);
        assert_eq!(answered(sends).await, Ok(None));
    }
}

#[tokio::test]
async fn what_is_configured_off_is_neither_taken_nor_sent() {
    let mut config = Config::default();
    config.server.compression = vec![Compression::Zstd];
    let secured = Secured::serve_as(&any_id(), config).await;
    let gzip = CompressionEncoding::Gzip;
    let asks = client(&secured).accept_compressed(gzip);
    assert_eq!(answered(asks).await, Ok(None));
    let sends = client(&secured).send_compressed(gzip);
    assert_eq!(answered(sends).await, Err(Code::Unimplemented));
}

#[tokio::test]
async fn a_small_message_that_is_large_when_it_is_read_is_refused() {
    let secured = Secured::serve(&any_id()).await;
    for (encoding, _) in ENCODINGS {
        let mut client = client(&secured).send_compressed(encoding);
        let request = v1::ListSnapshotsRequest {
            page_token: "0".repeat(5 << 20),
            ..v1::ListSnapshotsRequest::default()
        };
        let refused = client.list_snapshots(request).await.unwrap_err();
        let codes = [Code::OutOfRange, Code::ResourceExhausted];
        assert!(codes.contains(&refused.code()), "{refused:?}");
    }
}

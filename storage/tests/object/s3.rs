//! The same on a real S3 server: the contract, a client without permission, wrong credentials, a
//! server that hangs, and one that asks for fewer requests.

use crate::rig::{LEASE, Objects, Rig, keys, order};
use livemerge_storage::conformance::proxy::{Proxy, Way};
use livemerge_storage::conformance::{Fixture as _, run};
use livemerge_storage::{Call, Metered, ObjectVolumes, RemovalState, StorageError, VolumeStore as _};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt as _, PutPayload, RetryConfig};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Who may do what.
const IDENTITIES: &str = r#"{"identities": [
    {"name": "writer", "credentials": [{"accessKey": "writer", "secretKey": "hush"}],
     "actions": ["Read:bucket", "Write:bucket", "List:bucket"]},
    {"name": "reader", "credentials": [{"accessKey": "reader", "secretKey": "hush"}],
     "actions": ["Read:bucket", "List:bucket"]}
]}"#;

/// SeaweedFS, with one bucket.
struct Server {
    child: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("identities"), IDENTITIES).unwrap();
        let listeners: Vec<_> = (0..8)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let ports = listeners
            .iter()
            .map(|port| port.local_addr().unwrap().port());
        let ports: Vec<u16> = ports.collect();
        drop(listeners);
        let mut command = Command::new(program());
        command.arg("server").arg(format!("-dir={}", dir.path().display()));
        command.arg(format!("-s3.config={}", dir.path().join("identities").display()));
        for (flag, port) in [
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "s3.port",
            "s3.port.grpc",
        ]
        .iter()
        .zip(&ports)
        {
            command.arg(format!("-{flag}={port}"));
        }
        command.args([
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-filer",
            "-s3",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=50",
        ]);
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn();
        let child = child.unwrap_or_else(|error| {
            panic!("weed is needed here, tests/setup.sh test installs it: {error}")
        });
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let server = Self {
            child,
            address: at(ports[6]),
            _dir: dir,
        };
        let begun = Instant::now();
        // A directory of the filer's is a bucket.
        while !is_made(at(ports[4])) || TcpStream::connect(server.address).is_err() {
            if begun.elapsed() > Duration::from_secs(60) {
                let log = std::fs::read_to_string(server._dir.path().join("log"));
                panic!("weed does not start: {}", log.unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    fn as_user(&self, user: &str, secret: &str) -> Arc<dyn ObjectStore> {
        Arc::new(client(self.address, user, secret, Duration::from_secs(20)))
    }

    /// When everything of it answers.
    async fn ready(&self) -> Arc<dyn ObjectStore> {
        let objects = self.as_user("writer", "hush");
        let begun = Instant::now();
        let at = Path::from("ready");
        while objects.put(&at, PutPayload::from("x")).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "weed takes no object");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        objects.delete(&at).await.unwrap();
        objects
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // If it has ended already there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/tools/s3/bin/weed");
    if own.exists() { own } else { "weed".into() }
}

fn is_made(filer: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(filer)?;
        let request = format!(
            "POST /buckets/bucket/ HTTP/1.1\r\nHost: {filer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    let made = |answer: String| {
        ["HTTP/1.1 201", "HTTP/1.1 409"].iter().any(|is| answer.starts_with(is))
    };
    ask().is_ok_and(made)
}

fn client(at: SocketAddr, user: &str, secret: &str, limit: Duration) -> AmazonS3 {
    let retry = RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    };
    let options = ClientOptions::new().with_allow_http(true).with_timeout(limit);
    // As the program does for its own.
    let _ = rustls::crypto::ring::default_provider().install_default();
    AmazonS3Builder::new()
        .with_endpoint(format!("http://{at}"))
        .with_region("us-east-1")
        .with_bucket_name("bucket")
        .with_access_key_id(user)
        .with_secret_access_key(secret)
        .with_client_options(options)
        .with_retry(retry)
        .build()
        .unwrap()
}

async fn open(objects: Arc<dyn ObjectStore>) -> (Result<ObjectVolumes, StorageError>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (crate::rig::open(objects, &dir).await, dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_server_keeps_the_contract() {
    let server = Server::start();
    let rig = Rig::over(server.ready().await).await;
    let store = Metered::new(rig.store.clone());
    run(&store, &Objects(rig.store.clone())).await;
    assert!(store.list_removals().await.unwrap().is_empty());
    let left = rig.keys().await;
    let own = |key: &String| key == "d/domain" || key.starts_with("d/names/");
    assert!(left.iter().all(own), "{left:?}");
    let meters = store.meters();
    assert!(meters[&Call::Create].calls > 20 && meters[&Call::Create].failures > 5);
    assert!(meters[&Call::Remove].total >= meters[&Call::Remove].longest);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_is_told_of_what_is_not_permitted() {
    let server = Server::start();
    let rig = Rig::over(server.ready().await).await;
    let volume = rig.base("v").await;
    for (user, secret) in [("reader", "hush"), ("writer", "wrong"), ("nobody", "hush")] {
        let (opened, _dir) = open(server.as_user(user, secret)).await;
        let denied = opened.unwrap_err();
        assert!(matches!(denied, StorageError::Denied { .. }), "{user}: {denied:?}");
        assert!(!format!("{denied:?}").contains(secret), "no secret is told");
    }
    // Permission that is taken away later.
    let permission = Arc::new(crate::permission::Revocable::new(
        server.as_user("writer", "hush"),
        server.as_user("reader", "hush"),
    ));
    let (opened, _dir) = open(Arc::clone(&permission) as _).await;
    let store = opened.unwrap();
    permission.revoke();
    let removal = order(&volume, Duration::ZERO);
    let denied = store.remove(&removal).await.unwrap_err();
    assert!(matches!(denied, StorageError::Denied { .. }), "{denied:?}");
    rig.store.stat(&volume.volume.name).await.unwrap();
    // In the middle of freeing it: condemned and listed, and gone on with later.
    permission.grant();
    permission.revoke_deletions();
    let denied = store.remove(&removal).await.unwrap_err();
    assert!(matches!(denied, StorageError::Denied { .. }), "{denied:?}");
    assert_eq!(store.list_removals().await.unwrap().len(), 1);
    permission.grant();
    assert_eq!(store.remove(&removal).await.unwrap().state, RemovalState::Gone);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_unknown() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = silent.local_addr().unwrap();
    let begun = Instant::now();
    let hanging = client(at, "writer", "hush", Duration::from_secs(1));
    let (opened, _dir) = open(Arc::new(hanging)).await;
    let unknown = opened.unwrap_err();
    assert!(matches!(unknown, StorageError::Unreachable { .. }), "{unknown:?}");
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_throttles_loses_no_key() {
    let server = Server::start();
    let direct = Rig::over(server.ready().await).await;
    let volume = direct.base("v").await;
    Objects(direct.store.clone()).write(&volume, 0, 4096, 1).await;
    let uuid = volume.identity.to_string();
    let filled = (0x1000..0x1800_u64).map(|block| {
        let at = Path::from(format!("d/{uuid}/b/{block:016x}"));
        let objects = Arc::clone(&direct.objects);
        async move { objects.put(&at, PutPayload::from("x")).await.unwrap() }
    });
    use futures::StreamExt as _;
    futures::stream::iter(filled)
        .buffer_unordered(16)
        .collect::<Vec<_>>()
        .await;
    let way = Way {
        round_trip: Duration::from_millis(1),
        limit: Some(1000),
    };
    let proxy = Proxy::before(server.address, way).await.unwrap();
    let throttled: Arc<dyn ObjectStore> =
        Arc::new(client(proxy.address(), "writer", "hush", Duration::from_secs(20)));
    let (opened, _dir) = open(throttled).await;
    let begun = Instant::now();
    let removed = opened.unwrap().remove(&order(&volume, Duration::ZERO)).await;
    let (passed, refused) = proxy.counts();
    assert_eq!(removed.unwrap().state, RemovalState::Gone);
    assert!(refused > 0, "it was throttled");
    let rate = passed as f64 / (begun.elapsed().as_secs_f64() + 1.0);
    assert!(rate < 1000.0 * 1.1, "{rate}");
    let left = keys(&direct.objects).await;
    assert!(!left.iter().any(|key| key.contains(&uuid)), "{left:?}");
    assert!(begun.elapsed() < LEASE * 10);
}

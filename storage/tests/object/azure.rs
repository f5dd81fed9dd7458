//! The contract on Azurite, the emulator of Azure Blob Storage by those who run the service.

use crate::rig::{Objects, Rig, order};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use livemerge_storage::conformance::run;
use livemerge_storage::{RemovalState, VolumeStore as _};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::{ClientOptions, ObjectStore};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const CONTAINER: &str = "bucket";
const START: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(20);
/// What its documentation says to log in with.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const API: &str = "2023-11-03";

/// Ends when it is dropped.
struct Azurite {
    child: Child,
    at: SocketAddr,
}

impl Azurite {
    fn start(dir: &Path) -> Self {
        let at = free_address();
        let child = Command::new(program())
            .args(["--silent", "--skipApiVersionCheck", "--disableTelemetry"])
            .args(["--blobHost", "127.0.0.1", "--blobPort"])
            .arg(at.port().to_string())
            .arg("--location")
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("azurite-blob is needed here, tests/setup.sh test installs it");
        let mut azurite = Self { child, at };
        let begun = Instant::now();
        while TcpStream::connect(at).is_err() {
            let ended = azurite.child.try_wait().unwrap();
            assert!(ended.is_none(), "azurite-blob: {ended:?}");
            assert!(begun.elapsed() < START, "azurite-blob does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        azurite.make_container();
        azurite
    }

    /// Signed as the service wants it: the client under test only works in one that is there.
    fn make_container(&self) {
        let date = now();
        let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT");
        let headers = format!("x-ms-date:{date}\nx-ms-version:{API}");
        let target = format!("/{ACCOUNT}/{ACCOUNT}/{CONTAINER}\nrestype:container");
        let signed = format!("PUT{}{headers}\n{target}", "\n".repeat(12));
        let key = BASE64.decode(KEY).unwrap();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
        let signature = BASE64.encode(ring::hmac::sign(&key, signed.as_bytes()));
        let lines = [
            format!("PUT /{ACCOUNT}/{CONTAINER}?restype=container HTTP/1.1"),
            format!("Host: {}", self.at),
            headers.replace('\n', "\r\n"),
            format!("Authorization: SharedKey {ACCOUNT}:{signature}"),
            "Content-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
        ];
        let mut stream = TcpStream::connect(self.at).unwrap();
        stream.set_read_timeout(Some(START)).unwrap();
        stream.write_all(lines.join("\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    fn objects(&self) -> Arc<dyn ObjectStore> {
        // One provider for the process; it may have been chosen before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let options = ClientOptions::new()
            .with_allow_http(true)
            .with_timeout(LIMIT);
        let client = MicrosoftAzureBuilder::new()
            .with_account(ACCOUNT)
            .with_access_key(KEY)
            .with_container_name(CONTAINER)
            .with_endpoint(format!("http://{}/{ACCOUNT}", self.at))
            .with_client_options(options)
            .build();
        Arc::new(client.unwrap())
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        // If it has ended already there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Free a moment ago.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[allow(
    clippy::disallowed_methods,
    reason = "the server looks at the time of a request"
)]
fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// As the set-up installs it beside the build, or else of the machine.
fn program() -> PathBuf {
    let tools = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    let own = tools.join("node_modules/.bin/azurite-blob");
    if own.exists() {
        own
    } else {
        "azurite-blob".into()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_blob_storage_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let azurite = Azurite::start(dir.path());
    let rig = Rig::over(azurite.objects()).await;
    run(&rig.store, &Objects(rig.store.clone())).await;
    let volume = rig.base("last").await;
    let removal = order(&volume, Duration::ZERO);
    for _ in 0..2 {
        let removed = rig.store.remove(&removal).await.unwrap();
        assert_eq!(removed.state, RemovalState::Gone);
    }
    rig.assert_empty().await;
}

//! A real S3 server on loopback: SeaweedFS, with one bucket, that may be written by one user and only
//! read by another. `tests/setup.sh test` installs it.

use futures::TryStreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path as Key;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt as _, PutPayload, RetryConfig};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The bucket.
pub const BUCKET: &str = "bucket";
/// Who may write to it.
pub const WRITER: &str = "writer";
/// Who may read it.
pub const READER: &str = "reader";
/// The secret of both.
pub const SECRET: &str = "hush";

const START: Duration = Duration::from_secs(60);
/// What listens of it; the S3 server is one of them.
const PORTS: [&str; 8] = [
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
];
/// How often it is started at most: a port that is free may be taken before the server takes it.
const TRIES: usize = 4;
const FLAGS: [&str; 10] = [
    "-ip=127.0.0.1",
    "-ip.bind=127.0.0.1",
    "-filer",
    "-s3",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-master.telemetry=false",
    "-master.volumeSizeLimitMB=64",
    "-volume.max=100",
    // A share of the disk, as it is by default, is too much on a large one that is nearly full.
    "-volume.minFreeSpace=100MiB",
];

/// A server that ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts it with its data in a directory, and returns when it takes objects.
    ///
    /// # Errors
    /// When it is not installed, or does not start.
    pub async fn start(dir: &Path) -> io::Result<Self> {
        for _ in 1..TRIES {
            match Self::at_free_ports(dir).await {
                // Somebody else was faster.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                other => return other,
            }
        }
        Self::at_free_ports(dir).await
    }

    async fn at_free_ports(dir: &Path) -> io::Result<Self> {
        let (command, s3, filer) = command(dir)?;
        let mut server = Self {
            child: spawn(command, dir)?,
            address: s3,
        };
        let begun = Instant::now();
        let objects = server.objects(WRITER, SECRET, Duration::from_secs(5));
        let at = Key::from("ready");
        loop {
            // A directory of the filer's is a bucket.
            let made = is_made(filer).unwrap_or(false);
            if made && objects.put(&at, PutPayload::from("x")).await.is_ok() {
                break;
            }
            if begun.elapsed() > START || server.child.try_wait()?.is_some() {
                let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
                let kind = if log.contains("address already in use") {
                    io::ErrorKind::AddrInUse
                } else {
                    io::ErrorKind::Other
                };
                return Err(io::Error::new(kind, format!("weed does not start: {log}")));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        objects.delete(&at).await.map_err(io::Error::other)?;
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a process needs in its environment to write to it, by way of an address.
    pub fn environment(via: SocketAddr) -> Vec<(String, String)> {
        let variables = [
            ("AWS_ACCESS_KEY_ID", WRITER.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ENDPOINT", format!("http://{via}")),
        ];
        variables
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    }

    /// The bucket, as a user sees it.
    pub fn objects(&self, user: &str, secret: &str, limit: Duration) -> Arc<dyn ObjectStore> {
        objects(self.address, user, secret, limit)
    }

    /// All keys of the bucket below a prefix.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn keys(&self, prefix: &str) -> io::Result<Vec<String>> {
        let objects = self.objects(WRITER, SECRET, START);
        let listed = objects.list(Some(&Key::from(prefix)));
        let keys = listed.map_ok(|meta| meta.location.to_string());
        keys.try_collect().await.map_err(io::Error::other)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // If it has ended already there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The bucket of the server at an address, or behind it, as a user sees it. Nothing is tried again.
///
/// # Panics
/// Never: the address is complete.
pub fn objects(at: SocketAddr, user: &str, secret: &str, limit: Duration) -> Arc<dyn ObjectStore> {
    // One provider for the process; it may have been chosen before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let retry = RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    };
    let options = ClientOptions::new()
        .with_allow_http(true)
        .with_timeout(limit);
    let client = AmazonS3Builder::new()
        .with_endpoint(format!("http://{at}"))
        .with_region("us-east-1")
        .with_bucket_name(BUCKET)
        .with_access_key_id(user)
        .with_secret_access_key(secret)
        .with_client_options(options)
        .with_retry(retry)
        .build();
    Arc::new(client.expect("an endpoint, a bucket and a key are complete"))
}

/// Puts a small object.
///
/// # Errors
/// When the server does not take it.
pub async fn put(objects: &dyn ObjectStore, key: &str, text: &'static str) -> io::Result<()> {
    let put = objects.put(&Key::from(key), PutPayload::from(text)).await;
    put.map(drop).map_err(io::Error::other)
}

fn command(dir: &Path) -> io::Result<(Command, SocketAddr, SocketAddr)> {
    let identities = dir.join("identities");
    std::fs::write(&identities, identities_text())?;
    // Free a moment ago.
    let free = PORTS.map(|_| TcpListener::bind("127.0.0.1:0"));
    let mut addresses = Vec::new();
    for listener in &free {
        let listener = listener
            .as_ref()
            .map_err(|error| io::Error::from(error.kind()))?;
        addresses.push(listener.local_addr()?);
    }
    let mut command = Command::new(program());
    command.arg("server").arg(format!("-dir={}", dir.display()));
    command.arg(format!("-s3.config={}", identities.display()));
    for (flag, address) in PORTS.iter().zip(&addresses) {
        command.arg(format!("-{flag}={}", address.port()));
    }
    command.args(FLAGS);
    Ok((command, addresses[0], addresses[6]))
}

fn spawn(mut command: Command, dir: &Path) -> io::Result<Child> {
    let log = File::create(dir.join("log"))?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command.spawn().map_err(|error| {
        let text = format!("weed is needed here, tests/setup.sh test installs it: {error}");
        io::Error::new(error.kind(), text)
    })
}

fn identities_text() -> String {
    let of = |user: &str, actions: &str| {
        format!(
            r#"{{"name": "{user}", "credentials": [{{"accessKey": "{user}", "secretKey": "{SECRET}"}}], "actions": [{actions}]}}"#
        )
    };
    let (reads, writes) = (r#""Read:bucket", "List:bucket""#, r#""Write:bucket""#);
    let users = [of(WRITER, &format!("{reads}, {writes}")), of(READER, reads)];
    format!(r#"{{"identities": [{}]}}"#, users.join(", "))
}

/// As the set-up installs it beside the build, or else of the machine.
fn program() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/tools/s3/bin/weed");
    if own.exists() { own } else { "weed".into() }
}

fn is_made(filer: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect(filer)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let request = format!(
        "POST /buckets/{BUCKET}/ HTTP/1.1\r\nHost: {filer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let made = ["HTTP/1.1 201", "HTTP/1.1 409"];
    Ok(made.iter().any(|is| answer.starts_with(is)))
}

//! A proxy before an S3 server, on loopback: each request takes a round trip more, and when there
//! are too many it asks for fewer, as AWS does.
//!
//! ```text
//!   client ─▶ wait ─┬─ within the limit ─▶ server ─▶ client
//!                   └─ 503 SlowDown
//! ```
//!
//! What is limited are keys a second, those in a bulk request each; what was not used of the last
//! second can be used in the next.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How the way to the server is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Way {
    /// What each request takes longer.
    pub round_trip: Duration,
    /// Keys a second; `None` for no limit.
    pub limit: Option<u64>,
}

/// A proxy that runs until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    counts: Arc<Counts>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Counts {
    way: Way,
    server: SocketAddr,
    passed: AtomicU64,
    refused: AtomicU64,
    tokens: Mutex<(f64, Instant)>,
}

impl Proxy {
    /// Starts it before a server.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn before(server: SocketAddr, way: Way) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let full = way.limit.unwrap_or(0) as f64;
        let counts = Arc::new(Counts {
            way,
            server,
            passed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            tokens: Mutex::new((full, Instant::now())),
        });
        let of_all = Arc::clone(&counts);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let counts = Arc::clone(&of_all);
                // A connection that breaks is the client's to notice.
                tokio::spawn(async move { counts.carry(client).await.ok() });
            }
        });
        Ok(Self {
            address,
            counts,
            accepting,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Keys that went through, and requests that were refused.
    pub fn counts(&self) -> (u64, u64) {
        let [passed, refused] = [&self.counts.passed, &self.counts.refused];
        (
            passed.load(Ordering::Relaxed),
            refused.load(Ordering::Relaxed),
        )
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Counts {
    async fn carry(&self, client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let server = TcpStream::connect(self.server).await?;
        server.set_nodelay(true)?;
        let (mut client, mut server) = (BufReader::new(client), BufReader::new(server));
        loop {
            let Some(head) = head(&mut client).await? else {
                return Ok(());
            };
            let body = body(&mut client, &head).await?;
            tokio::time::sleep(self.way.round_trip).await;
            let text = String::from_utf8_lossy(&body);
            let keys = text.matches("<Key>").count().max(1) as u64;
            if !self.admit(keys) {
                self.refused.fetch_add(1, Ordering::Relaxed);
                client.write_all(refusal().as_bytes()).await?;
                continue;
            }
            server.write_all(head.as_bytes()).await?;
            server.write_all(&body).await?;
            let answer = head_of_answer(&mut server).await?;
            client.write_all(answer.as_bytes()).await?;
            if !head.starts_with("HEAD ") && has_body(&answer) {
                pass_body(&mut server, &mut client, &answer).await?;
            }
            client.flush().await?;
            self.passed.fetch_add(keys, Ordering::Relaxed);
        }
    }

    fn admit(&self, keys: u64) -> bool {
        let Some(limit) = self.way.limit else {
            return true;
        };
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = *tokens;
        let now = Instant::now();
        let earned = (now - since).as_secs_f64() * limit as f64;
        let have = (left + earned).min(limit as f64);
        let admitted = have >= keys as f64;
        *tokens = (if admitted { have - keys as f64 } else { have }, now);
        admitted
    }
}

fn refusal() -> String {
    let body = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
        <Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
    let length = body.len();
    format!(
        "HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// A head with its empty line; `None` at the end of the connection.
async fn head(from: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if from.read_line(&mut head).await? == 0 {
            return Ok(None);
        }
        if &head[before..] == "\r\n" {
            return Ok(Some(head));
        }
    }
}

async fn head_of_answer(from: &mut BufReader<TcpStream>) -> io::Result<String> {
    let answer = head(from).await?;
    answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut found = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
    found.next().map(|(_, value)| value.trim())
}

fn length(head: &str) -> usize {
    let length = field(head, "content-length");
    length.and_then(|length| length.parse().ok()).unwrap_or(0)
}

fn has_body(answer: &str) -> bool {
    let status = answer.split(' ').nth(1).unwrap_or_default();
    status != "204" && status != "304"
}

async fn body(from: &mut BufReader<TcpStream>, head: &str) -> io::Result<Vec<u8>> {
    let mut body = vec![0; length(head)];
    from.read_exact(&mut body).await?;
    Ok(body)
}

async fn pass_body(
    from: &mut BufReader<TcpStream>,
    to: &mut BufReader<TcpStream>,
    head: &str,
) -> io::Result<()> {
    let chunked = field(head, "transfer-encoding").is_some_and(|how| how.contains("chunked"));
    if !chunked {
        let body = body(from, head).await?;
        return to.write_all(&body).await;
    }
    loop {
        let mut line = String::new();
        from.read_line(&mut line).await?;
        to.write_all(line.as_bytes()).await?;
        let bytes = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        // And the end of its line.
        let mut chunk = vec![0; bytes + 2];
        from.read_exact(&mut chunk).await?;
        to.write_all(&chunk).await?;
        if bytes == 0 {
            return Ok(());
        }
    }
}

//! HTTP/2 by hand, so that it can be wrong.

use crate::rig::Running;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Far more than any answer takes.
const LIMIT: Duration = Duration::from_secs(60);
/// Nobody reads the other side: what is full stays full.
const STUCK: Duration = Duration::from_millis(500);

/// A frame as it is sent.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, content].concat()
}

/// A header as it is packed: written out, in no table.
pub(crate) fn field(name: &str, value: &[u8]) -> Vec<u8> {
    let mut packed = vec![0, u8::try_from(name.len()).unwrap()];
    packed.extend(name.as_bytes());
    packed.push(u8::try_from(value.len()).unwrap());
    packed.extend(value);
    packed
}

/// The headers of a call.
pub(crate) fn call(path: &str, more: &[(&str, &[u8])]) -> Vec<u8> {
    let path = format!("/{path}");
    let usual = [
        (":method", &b"POST"[..]),
        (":scheme", b"http"),
        (":path", path.as_bytes()),
        (":authority", b"localhost"),
        ("content-type", b"application/grpc"),
        ("te", b"trailers"),
    ];
    let all = usual.iter().chain(more);
    all.flat_map(|(name, value)| field(name, value)).collect()
}

/// A frame that was read.
struct Read {
    kind: u8,
    flags: u8,
    stream: u32,
    content: Vec<u8>,
}

impl Read {
    fn code(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.content[at..at + 4].try_into().unwrap())
    }
}

/// A connection.
pub(crate) struct Raw {
    stream: TcpStream,
}

impl Raw {
    pub(crate) async fn open(server: &Running) -> Self {
        let address = server.address.to_string();
        let stream = TcpStream::connect(address).await.unwrap();
        Self { stream }
    }

    /// One that has begun as it should.
    pub(crate) async fn greet(server: &Running) -> Self {
        let mut raw = Self::open(server).await;
        let settings = frame(kind::SETTINGS, 0, 0, &[]);
        raw.say(&[PREFACE, &settings].concat()).await;
        raw
    }

    /// Sends; that the other side has hung up is seen when it is read.
    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        let _heard = timeout(LIMIT, self.stream.write_all(bytes)).await.unwrap();
    }

    /// Sends so often, or until the other side takes no more: how often.
    pub(crate) async fn say_again(&mut self, bytes: &[u8], times: usize) -> usize {
        for done in 0..times {
            match timeout(STUCK, self.stream.write_all(bytes)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return done,
            }
        }
        times
    }

    /// Says nothing more.
    pub(crate) async fn hang_up(&mut self) {
        let _gone_already = self.stream.shutdown().await;
    }

    /// The next frame; `None` when the connection is closed.
    async fn read(&mut self) -> Option<Read> {
        let reading = async {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut content = vec![0; length as usize];
            self.stream.read_exact(&mut content).await.ok()?;
            Some(Read {
                kind: head[3],
                flags: head[4],
                stream: u32::from_be_bytes(head[5..].try_into().unwrap()),
                content,
            })
        };
        timeout(LIMIT, reading).await.expect("an answer or an end")
    }

    /// Reads to the end.
    pub(crate) async fn is_cut(&mut self) {
        while self.read().await.is_some() {}
    }

    /// The error that the server goes away with; `None` when it is just gone.
    pub(crate) async fn goes_away(&mut self) -> Option<u32> {
        while let Some(read) = self.read().await {
            if read.kind == kind::GOAWAY {
                return Some(read.code(4));
            }
        }
        None
    }

    /// Waits for the end of the answer on a stream, or its refusal.
    pub(crate) async fn answer_on(&mut self, stream: u32) {
        const END: u8 = 1;
        while let Some(read) = self.read().await {
            let ends = read.kind != kind::SETTINGS && read.flags & END != 0;
            if read.stream == stream && (ends || read.kind == kind::RST_STREAM) {
                return;
            }
        }
        panic!("it is gone instead of an answer on {stream}");
    }

    /// The error of the stream or of the connection; `None` when the connection is closed.
    pub(crate) async fn is_refused_on(&mut self, stream: u32) -> Option<u32> {
        while let Some(read) = self.read().await {
            match read.kind {
                kind::RST_STREAM if read.stream == stream => return Some(read.code(0)),
                kind::GOAWAY => return Some(read.code(4)),
                _ => {}
            }
        }
        None
    }
}

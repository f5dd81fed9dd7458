//! HTTP/2 frames on a bare socket, for what no good client sends.

use crate::rig::SOON;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;

pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;

/// A frame with its header.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A call of a method by alice, without a message. The fields are written literally.
pub(crate) fn request(stream: u32, path: &str) -> Vec<u8> {
    // :method POST and :scheme http stand in the static table.
    let mut fields = vec![0x83, 0x86];
    let mut field = |name: &[u8], value: &str| {
        fields.extend(name);
        fields.push(u8::try_from(value.len()).unwrap());
        fields.extend(value.as_bytes());
    };
    field(&[0x04], path);
    field(&[0x01], "localhost");
    field(&[0x0f, 0x10], "application/grpc");
    field(&[0x0f, 0x08], "Bearer alice");
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields)
}

/// A frame as it came.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    payload: Vec<u8>,
}

impl Received {
    /// The error code of RST_STREAM and GOAWAY.
    pub(crate) fn error(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// A connection that answers nothing by itself.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    /// The preface and empty settings are sent.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let opening = [&preface[..], &frame(SETTINGS, 0, 0, &[])].concat();
        socket.write_all(&opening).await.unwrap();
        Raw(socket)
    }

    /// False when the server has closed the connection.
    pub(crate) async fn send(&mut self, frames: &[u8]) -> bool {
        self.0.write_all(frames).await.is_ok()
    }

    /// The next frame; none at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Received> {
        let read = async {
            let mut header = [0; 9];
            self.0.read_exact(&mut header).await.ok()?;
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            let [.., a, b, c, d] = header;
            Some(Received {
                kind: header[3],
                stream: u32::from_be_bytes([a, b, c, d]),
                payload,
            })
        };
        tokio::time::timeout(SOON, read).await.expect("a frame")
    }

    /// The first frame of a kind.
    pub(crate) async fn first(&mut self, kind: u8) -> Option<Received> {
        loop {
            let next = self.next().await?;
            if next.kind == kind {
                return Some(next);
            }
        }
    }
}

//! HTTP/1.1 and gRPC-Web by hand.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use livemerge_proto::problem::Problem;
use prost::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::codegen::http::{HeaderMap, HeaderName};
use tonic::{Code, Status};

/// How messages stand in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Binary,
    Text,
}

impl Form {
    fn content_type(self) -> &'static str {
        match self {
            Form::Binary => "application/grpc-web+proto",
            Form::Text => "application/grpc-web-text+proto",
        }
    }

    fn written(self, frame: Vec<u8>) -> Vec<u8> {
        match self {
            Form::Binary => frame,
            Form::Text => BASE64_STANDARD.encode(frame).into_bytes(),
        }
    }

    /// Each piece of a text is padded by itself.
    fn read(self, body: &[u8]) -> Vec<u8> {
        match self {
            Form::Binary => body.to_vec(),
            Form::Text => body
                .chunks(4)
                .flat_map(|four| BASE64_STANDARD.decode(four).unwrap())
                .collect(),
        }
    }
}

pub(super) struct Answer {
    pub(super) status: u16,
    headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.get(name)?.to_str().unwrap())
    }

    /// The messages of the body, and the trailers that end it.
    pub(super) fn messages<M: Message + Default>(&self, form: Form) -> (Vec<M>, String) {
        assert_eq!(self.header("content-type"), Some(form.content_type()));
        let body = form.read(&self.body);
        let (mut messages, mut trailers, mut rest) = (Vec::new(), String::new(), &body[..]);
        while let Some((head, after)) = rest.split_first_chunk::<5>() {
            let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
            let (content, after) = after.split_at(length);
            match head[0] {
                0 => messages.push(M::decode(content).unwrap()),
                0x80 => trailers = String::from_utf8(content.to_vec()).unwrap(),
                flag => panic!("a frame of {flag}"),
            }
            rest = after;
        }
        assert!(rest.is_empty());
        (messages, trailers)
    }

    /// How a call ended that has no answer, and why: among the headers, or in the body.
    pub(super) fn grpc_status(&self, form: Form) -> (String, String) {
        let mut headers = self.headers.clone();
        if !headers.contains_key("grpc-status") {
            for line in self.messages::<()>(form).1.lines() {
                let (name, value) = line.split_once(':').unwrap();
                let name: HeaderName = name.parse().unwrap();
                headers.insert(name, value.trim().parse().unwrap());
            }
        }
        let status = Status::from_header_map(&headers).unwrap();
        assert_ne!(status.code(), Code::Ok);
        let code = (status.code() as i32).to_string();
        (code, Problem::try_from(status).unwrap().reason.to_string())
    }
}

/// Calls a method.
pub(super) async fn call(
    address: &str,
    path: &str,
    form: Form,
    headers: &[(&'static str, String)],
    message: &impl Message,
) -> Answer {
    let mut frame = vec![0];
    let encoded = message.encode_to_vec();
    frame.extend(u32::try_from(encoded.len()).unwrap().to_be_bytes());
    frame.extend(encoded);
    let mut headers = headers.to_vec();
    headers.push(("content-type", form.content_type().to_owned()));
    headers.push(("accept", form.content_type().to_owned()));
    headers.push(("x-grpc-web", "1".to_owned()));
    send(address, "POST", path, &headers, &form.written(frame)).await
}

pub(super) async fn send(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&'static str, String)],
    body: &[u8],
) -> Answer {
    let answer = try_send(address, method, path, headers, body).await;
    answer.expect("an answer of HTTP/1.1")
}

/// `None` when the other side does not speak HTTP/1.1.
pub(super) async fn try_send(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&'static str, String)],
    body: &[u8],
) -> Option<Answer> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    let mut stream = TcpStream::connect(address).await.unwrap();
    // Who refuses the first bytes may be gone before the last one.
    let _all_or_some = stream.write_all(&[head.as_bytes(), body].concat()).await;
    let mut answer = Vec::new();
    let _until_the_end = stream.read_to_end(&mut answer).await;
    parsed(&answer)
}

fn parsed(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        headers.append(name.parse::<HeaderName>().ok()?, value.parse().ok()?);
    }
    let body = &answer[end + 4..];
    let chunked = headers.contains_key("transfer-encoding");
    Some(Answer {
        status: status.parse().ok()?,
        headers,
        body: if chunked {
            unchunked(body)
        } else {
            body.to_vec()
        },
    })
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let line = body.windows(2).position(|two| two == b"\r\n").unwrap();
        let length = std::str::from_utf8(&body[..line]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return whole;
        }
        let chunk = &body[line + 2..];
        whole.extend(&chunk[..length]);
        body = &chunk[length + 2..];
    }
}

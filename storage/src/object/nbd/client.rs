//! A client that reads the beginning of an export, to see what an image says of itself. It writes
//! nothing, so whoever has the export open is not disturbed.

use super::wire::{self, Command, Request};
use crate::nbd::{NbdAddress, NbdServer};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// For each answer.
const LIMIT: Duration = Duration::from_secs(10);
const GO: u32 = 7;
const ACK: u32 = 1;
const INFO: u32 = 3;
const UNKNOWN_EXPORT: u32 = 0x8000_0006;

/// The first bytes of an export, and its size. Blocks.
///
/// # Errors
/// `NotFound` when its server has no such export.
pub(crate) fn read_head(address: &NbdAddress, bytes: u32) -> io::Result<(Vec<u8>, u64)> {
    if address.tls {
        let text = "an export behind TLS cannot be read here";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    match &address.server {
        NbdServer::Unix(socket) => {
            let stream = UnixStream::connect(socket).map_err(not_there)?;
            stream.set_read_timeout(Some(LIMIT))?;
            stream.set_write_timeout(Some(LIMIT))?;
            head(stream, &address.export, bytes)
        }
        NbdServer::Tcp { host, port } => {
            let port = port.as_deref().and_then(|port| port.parse().ok());
            let stream = TcpStream::connect((host.as_str(), port.unwrap_or(10809)))?;
            stream.set_read_timeout(Some(LIMIT))?;
            stream.set_write_timeout(Some(LIMIT))?;
            head(stream, &address.export, bytes)
        }
    }
}

/// A server that does not run says nothing of its exports.
fn not_there(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(io::ErrorKind::ConnectionRefused, error),
        _ => error,
    }
}

fn head(mut stream: impl Read + Write, name: &str, bytes: u32) -> io::Result<(Vec<u8>, u64)> {
    let size = go(&mut stream, name)?;
    let bytes = u32::try_from(size).unwrap_or(u32::MAX).min(bytes);
    let request = |command, bytes| Request {
        command,
        fua: false,
        cookie: 1,
        at: 0,
        bytes,
    };
    stream.write_all(&request(Command::Read, bytes).header())?;
    let mut reply = [0; 16];
    stream.read_exact(&mut reply)?;
    if reply != wire::reply(1, wire::Ended::Well) {
        return Err(strange("the export cannot be read"));
    }
    let mut data = vec![0; bytes as usize];
    stream.read_exact(&mut data)?;
    stream.write_all(&request(Command::Disconnect, 0).header())?;
    Ok((data, size))
}

/// Opens an export and gives its size.
fn go(stream: &mut (impl Read + Write), name: &str) -> io::Result<u64> {
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting)?;
    let magic = [wire::GREETING.to_be_bytes(), wire::OPTION.to_be_bytes()].concat();
    if greeting[..16] != magic || greeting[17] & 1 == 0 {
        return Err(strange("the server speaks another protocol"));
    }
    let length = u32::try_from(name.len()).map_err(io::Error::other)?;
    let mut asked = u32::from(wire::FIXED_NEWSTYLE | wire::NO_ZEROES)
        .to_be_bytes()
        .to_vec();
    asked.extend(wire::OPTION.to_be_bytes());
    asked.extend(GO.to_be_bytes());
    asked.extend((length + 6).to_be_bytes());
    asked.extend(length.to_be_bytes());
    asked.extend(name.as_bytes());
    asked.extend([0, 0]);
    stream.write_all(&asked)?;
    let mut size = None;
    loop {
        let (kind, data) = option_reply(stream)?;
        match kind {
            ACK => return size.ok_or_else(|| strange("the server does not say a size")),
            INFO if data.len() >= 10 && data[..2] == [0, 0] => {
                let bytes = data[2..10].first_chunk().copied().unwrap_or_default();
                size = Some(u64::from_be_bytes(bytes));
            }
            INFO => {}
            UNKNOWN_EXPORT => {
                let text = String::from_utf8_lossy(&data).into_owned();
                return Err(io::Error::new(io::ErrorKind::NotFound, text));
            }
            _ => return Err(strange("the server refuses the export")),
        }
    }
}

fn option_reply(stream: &mut impl Read) -> io::Result<(u32, Vec<u8>)> {
    let mut head = [0; 20];
    stream.read_exact(&mut head)?;
    let number = |at: usize| head[at..].first_chunk().copied().map(u32::from_be_bytes);
    let (kind, length) = (number(12).unwrap_or(0), number(16).unwrap_or(0));
    if head[..8] != wire::OPTION_REPLY.to_be_bytes() || length > wire::MOST_OPTION {
        return Err(strange("the server answers strangely"));
    }
    let mut data = vec![0; length as usize];
    stream.read_exact(&mut data)?;
    Ok((kind, data))
}

fn strange(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers with what it was given, whatever it is told.
    struct Script(io::Cursor<Vec<u8>>);

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Script {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            Ok(buffer.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest::proptest! {
        #[test]
        fn no_server_makes_it_panic(tail in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let mut said = [wire::GREETING.to_be_bytes(), wire::OPTION.to_be_bytes()].concat();
            said.extend([0, 3]);
            said.extend(wire::answer(GO, wire::Answer::Info, &wire::export_info(1 << 20, 0)));
            said.extend(wire::answer(GO, wire::Answer::Ack, &[]));
            said.extend(&tail);
            assert!(head(Script(io::Cursor::new(said)), "a", 64).is_err() || tail.len() >= 16);
            let _ = head(Script(io::Cursor::new(tail)), "a", 64);
        }
    }
}

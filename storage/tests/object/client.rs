//! A client of an exporter that does one thing at a time, and notices everything.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const OPTION: &[u8] = b"IHAVEOPT";

pub(crate) struct NbdClient {
    stream: UnixStream,
    pub(crate) bytes: u64,
}

impl NbdClient {
    pub(crate) fn open(socket: &Path, export: &str) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting)?;
        let length = u32::try_from(export.len()).unwrap();
        let mut go = vec![0, 0, 0, 3];
        go.extend(OPTION);
        go.extend(7_u32.to_be_bytes());
        go.extend((length + 6).to_be_bytes());
        go.extend(length.to_be_bytes());
        go.extend(export.as_bytes());
        go.extend([0, 0]);
        stream.write_all(&go)?;
        let mut bytes = 0;
        loop {
            let mut head = [0; 20];
            stream.read_exact(&mut head)?;
            let kind = u32::from_be_bytes(head[12..16].try_into().unwrap());
            let length = u32::from_be_bytes(head[16..].try_into().unwrap());
            let mut data = vec![0; length as usize];
            stream.read_exact(&mut data)?;
            match kind {
                1 => return Ok(Self { stream, bytes }),
                3 if data[..2] == [0, 0] => {
                    bytes = u64::from_be_bytes(data[2..10].try_into().unwrap());
                }
                3 => {}
                _ => {
                    return Err(io::Error::other(
                        String::from_utf8_lossy(&data).into_owned(),
                    ));
                }
            }
        }
    }

    /// The error's number; 0 when it went well.
    fn ask(
        &mut self,
        command: u16,
        flags: u16,
        at: u64,
        bytes: u32,
        data: &[u8],
    ) -> io::Result<u32> {
        let mut request = 0x2560_9513_u32.to_be_bytes().to_vec();
        request.extend(flags.to_be_bytes());
        request.extend(command.to_be_bytes());
        request.extend(7_u64.to_be_bytes());
        request.extend(at.to_be_bytes());
        request.extend(bytes.to_be_bytes());
        request.extend(data);
        self.stream.write_all(&request)?;
        let mut reply = [0; 16];
        self.stream.read_exact(&mut reply)?;
        Ok(u32::from_be_bytes(reply[4..8].try_into().unwrap()))
    }

    pub(crate) fn write(&mut self, at: u64, data: &[u8]) -> io::Result<u32> {
        self.ask(1, 0, at, u32::try_from(data.len()).unwrap(), data)
    }

    /// Durable when it is answered.
    pub(crate) fn write_through(&mut self, at: u64, data: &[u8]) -> io::Result<u32> {
        self.ask(1, 1, at, u32::try_from(data.len()).unwrap(), data)
    }

    pub(crate) fn flush(&mut self) -> io::Result<u32> {
        self.ask(3, 0, 0, 0, &[])
    }

    pub(crate) fn trim(&mut self, at: u64, bytes: u32) -> io::Result<u32> {
        self.ask(4, 0, at, bytes, &[])
    }

    pub(crate) fn zero(&mut self, at: u64, bytes: u32) -> io::Result<u32> {
        self.ask(6, 0, at, bytes, &[])
    }

    pub(crate) fn command(&mut self, command: u16, at: u64, bytes: u32) -> io::Result<u32> {
        self.ask(command, 0, at, bytes, &[])
    }

    pub(crate) fn read(&mut self, at: u64, bytes: u32) -> io::Result<Vec<u8>> {
        let error = self.ask(0, 0, at, bytes, &[])?;
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error.cast_signed()));
        }
        let mut data = vec![0; bytes as usize];
        self.stream.read_exact(&mut data)?;
        Ok(data)
    }
}

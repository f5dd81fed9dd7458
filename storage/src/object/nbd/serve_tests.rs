//! Clients that do not listen, and requests that do not end.

use super::handshake::{Exports, Facts};
use super::serve::{Export, serve};
use super::wire;
use crate::StorageError;
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(30);
/// Where it panics.
const WRONG: u64 = 1 << 20;

#[derive(Default, Clone)]
struct Zeros {
    bytes_read: Arc<AtomicU64>,
}

#[async_trait]
impl Export for Zeros {
    fn facts(&self) -> Facts {
        Facts {
            bytes: 64 << 20,
            read_only: false,
        }
    }

    async fn read(&self, at: u64, bytes: u32) -> Result<Bytes, StorageError> {
        assert!(at != WRONG, "asked for by the test");
        self.bytes_read.fetch_add(bytes.into(), Ordering::SeqCst);
        Ok(Bytes::from(vec![0; bytes as usize]))
    }

    async fn write(&self, _at: u64, _data: Bytes) -> Result<(), StorageError> {
        Ok(())
    }

    async fn zero(&self, _range: Range<u64>) -> Result<(), StorageError> {
        Ok(())
    }

    async fn trim(&self, _range: Range<u64>) -> Result<(), StorageError> {
        Ok(())
    }

    async fn flush(&self) -> Result<(), StorageError> {
        Ok(())
    }

    async fn flush_range(&self, _range: Range<u64>) -> Result<(), StorageError> {
        Ok(())
    }

    async fn close(&self) {}
}

#[async_trait]
impl Exports for Zeros {
    async fn names(&self) -> Result<Vec<String>, StorageError> {
        Ok(vec![String::new()])
    }

    async fn facts(&self, _name: &str) -> Result<Facts, StorageError> {
        Ok(Export::facts(self))
    }

    async fn open(&self, _name: &str) -> Result<Arc<dyn Export>, StorageError> {
        Ok(Arc::new(self.clone()))
    }
}

/// A client that has its export, by the oldest way.
async fn connected(zeros: &Zeros, stop: &CancellationToken) -> (DuplexStream, JoinHandle<()>) {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let (stop, zeros) = (stop.clone(), Arc::new(zeros.clone()));
    let serving = tokio::spawn(async move {
        let _how_it_ends = serve(server, zeros, &stop).await;
    });
    client.read_exact(&mut [0; 18]).await.unwrap();
    let mut asks = u32::from(wire::FIXED_NEWSTYLE | wire::NO_ZEROES)
        .to_be_bytes()
        .to_vec();
    asks.extend(wire::OPTION.to_be_bytes());
    asks.extend(1_u32.to_be_bytes());
    asks.extend(0_u32.to_be_bytes());
    client.write_all(&asks).await.unwrap();
    client.read_exact(&mut [0; 10]).await.unwrap();
    (client, serving)
}

fn read(at: u64, bytes: u32) -> [u8; wire::REQUEST_BYTES] {
    let request = wire::Request {
        command: wire::Command::Read,
        fua: false,
        cookie: 7,
        at,
        bytes,
    };
    request.header()
}

#[tokio::test]
async fn who_takes_no_replies_is_not_waited_for() {
    for bytes in [64 << 10, 4 << 20] {
        let (zeros, stop) = (Zeros::default(), CancellationToken::new());
        let (mut client, serving) = connected(&zeros, &stop).await;
        let asks = async {
            // Until nothing is taken any more.
            loop {
                client.write_all(&read(0, bytes)).await.unwrap();
            }
        };
        let _nobody_reads = timeout(Duration::from_secs(2), asks).await.unwrap_err();
        let held = zeros.bytes_read.load(Ordering::SeqCst);
        assert!(held <= 64 << 20, "{held} bytes wait for him");
        stop.cancel();
        timeout(LIMIT, serving).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_request_that_panics_ends_its_connection() {
    let stop = CancellationToken::new();
    let (mut client, serving) = connected(&Zeros::default(), &stop).await;
    client.write_all(&read(0, 512)).await.unwrap();
    client.read_exact(&mut [0; 16 + 512]).await.unwrap();
    client.write_all(&read(WRONG, 512)).await.unwrap();
    let end = timeout(LIMIT, client.read(&mut [0; 16])).await.unwrap();
    assert_eq!(end.unwrap(), 0, "there is no reply");
    timeout(LIMIT, serving).await.unwrap().unwrap();
}

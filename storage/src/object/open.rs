//! A volume that is open on this host: one device for all who have it open, and one of them writes.
//!
//! ```text
//!   client ─▶ first write ─▶ nobody else writes? ─▶ lease ─▶ which blocks there are ─▶ writes
//!          ◀─ closed ─────── lease released ◀─ everything written back
//! ```
//!
//! So the layers of a chain that are only read need no lease, and a second machine that opens a
//! volume by mistake writes nothing.

use super::blocks::BLOCK_BYTES;
use super::device::{Device, Writer};
use super::domain::{Domain, Manifest};
use super::lease::Held;
use super::marks::Mark;
use super::nbd::{Export, Facts};
use crate::StorageError;
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Mutex, OnceCell};
use uuid::Uuid;

/// A volume that is open.
#[derive(Debug)]
pub(super) struct Open {
    domain: Arc<Domain>,
    manifest: Manifest,
    device: Device,
    /// Whether one of the clients writes.
    written: Mutex<bool>,
    /// Set when nothing is left of a process that was killed.
    recovered: OnceCell<()>,
    /// `None` when whoever opened it has the volume alone.
    _mark: Option<Mark>,
}

impl Open {
    pub(super) fn new(domain: Arc<Domain>, manifest: Manifest, mark: Option<Mark>) -> Self {
        let blocks = domain.blocks(manifest.uuid);
        let spill = domain.spill(manifest.uuid);
        let device = Device::new(blocks, spill, manifest.device_bytes);
        Self {
            domain,
            manifest,
            device,
            written: Mutex::default(),
            recovered: OnceCell::new(),
            _mark: mark,
        }
    }

    /// Puts what a process that was killed had answered for and not put, before anybody reads.
    pub(super) async fn recover(&self) -> Result<(), StorageError> {
        let recovered = self.recovered.get_or_try_init(|| self.put_what_is_left());
        recovered.await.map(|_| ())
    }

    async fn put_what_is_left(&self) -> Result<(), StorageError> {
        let Some(left) = self.device.spill.left(BLOCK_BYTES).await? else {
            return Ok(());
        };
        // On this host one process at a time has a volume open, and it is this one now.
        let lease = self.lease(Some(left.holder)).await?;
        let name = &self.manifest.name;
        if lease.taken_from == Some(left.holder) {
            let blocks = left.blocks.len();
            tracing::warn!(volume = %name, blocks, "an exporter was killed: what it had not put is put");
            for (block, bytes) in left.blocks {
                match bytes {
                    Some(bytes) => {
                        let put = self.device.blocks.put(block, bytes.into(), Some(&lease));
                        put.await?;
                    }
                    None => self.device.blocks.delete(&[block], &lease).await?,
                }
            }
            let present = self.device.blocks.present(self.device.count()).await?;
            lease.count(present.len());
        } else {
            tracing::warn!(volume = %name, "what was not flushed is old: it was written elsewhere since");
        }
        self.device.spill.clear().await?;
        lease.release().await
    }

    async fn lease(&self, dead: Option<Uuid>) -> Result<Held, StorageError> {
        let (domain, uuid) = (&self.domain, self.manifest.uuid);
        let (records, keys) = (domain.records.clone(), domain.keys.clone());
        Held::take(records, keys, uuid, domain.times, dead).await
    }

    async fn begin_writing(&self) -> Result<(), StorageError> {
        let mut written = self.written.lock().await;
        if *written {
            let by = "another client that writes to it";
            return Err(self.domain.in_use_by(&self.manifest.name, by));
        }
        let lease = self.lease(None).await?;
        self.device.spill.begin(lease.holder().await).await?;
        let present = self.device.blocks.present(self.device.count()).await?;
        self.device.set_writer(Some(Writer::new(lease, present)));
        *written = true;
        Ok(())
    }

    async fn end_writing(&self) {
        let mut written = self.written.lock().await;
        let name = &self.manifest.name;
        if let Err(error) = self.device.flush().await {
            tracing::error!(volume = %name, %error, "what was not flushed cannot be written");
            self.device.give_up().await;
        }
        if let Some(writer) = self.device.writer() {
            self.device.set_writer(None);
            if let Err(error) = self.device.spill.clear().await {
                tracing::warn!(volume = %name, %error, "files are left that nobody needs");
            }
            if let Err(error) = writer.lease.release().await {
                tracing::warn!(volume = %name, %error, "a lease ends by itself");
            }
        }
        *written = false;
    }
}

/// One client of an open volume.
pub(super) struct Client {
    open: Arc<Open>,
    writes: AtomicBool,
    beginning: Mutex<()>,
}

impl Client {
    pub(super) fn new(open: Arc<Open>) -> Self {
        Self {
            open,
            writes: AtomicBool::new(false),
            beginning: Mutex::default(),
        }
    }

    fn device(&self) -> Result<&Device, StorageError> {
        let device = &self.open.device;
        if device.is_lost() {
            let (domain, name) = (&self.open.domain, &self.open.manifest.name);
            return Err(domain.in_use_by(name, "another process that writes to it by now"));
        }
        Ok(device)
    }

    /// The device, writable.
    async fn writable(&self) -> Result<&Device, StorageError> {
        if !self.writes.load(Ordering::Acquire) {
            let _one_at_a_time = self.beginning.lock().await;
            if !self.writes.load(Ordering::Acquire) {
                self.open.begin_writing().await?;
                self.writes.store(true, Ordering::Release);
            }
        }
        self.device()
    }
}

#[async_trait]
impl Export for Client {
    fn facts(&self) -> Facts {
        Facts {
            bytes: self.open.device.bytes(),
            read_only: false,
        }
    }

    async fn read(&self, at: u64, bytes: u32) -> Result<Bytes, StorageError> {
        self.device()?.read(at, bytes as usize).await
    }

    async fn write(&self, at: u64, data: Bytes) -> Result<(), StorageError> {
        self.writable().await?.write(at, &data).await
    }

    async fn zero(&self, range: Range<u64>) -> Result<(), StorageError> {
        self.writable().await?.zero(range).await
    }

    async fn trim(&self, range: Range<u64>) -> Result<(), StorageError> {
        self.writable().await?.trim(range).await
    }

    async fn flush(&self) -> Result<(), StorageError> {
        match self.writes.load(Ordering::Acquire) {
            true => self.device()?.flush().await,
            false => Ok(()),
        }
    }

    async fn flush_range(&self, range: Range<u64>) -> Result<(), StorageError> {
        self.device()?.flush_range(range).await
    }

    async fn close(&self) {
        if self.writes.load(Ordering::Acquire) {
            self.open.end_writing().await;
        }
    }
}

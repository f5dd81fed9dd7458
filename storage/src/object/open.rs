//! A volume that is open on this host: one device for all who have it open, and one of them writes.
//!
//! ```text
//!   client ─▶ first write ─▶ nobody else writes? ─▶ lease ─▶ which blocks there are ─▶ writes
//!          ◀─ closed ─────── lease released ◀─ everything written back
//!                            over ◀─ not written back: what is left stays on this host, for the next
//!                                    one that opens the volume
//! ```
//!
//! So the layers of a chain that are only read need no lease, and a second machine that opens a
//! volume by mistake writes nothing.
//!
//! Once it is over, nothing that is asked of it is answered, and its clients are sent away: one that
//! connects again gets a new one, which begins with what is left.

use super::blocks::BLOCK_BYTES;
use super::device::{Device, Writer};
use super::domain::{Domain, Manifest};
use super::lease::Held;
use super::marks::Mark;
use super::nbd::{Export, Facts};
use crate::StorageError;
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, OnceCell, RwLock, RwLockReadGuard};
use uuid::Uuid;

/// It may be noticed so late that a client has ended.
const NOTICED: Duration = Duration::from_millis(500);
/// A client that has ended has its last requests carried out and everything written back within this.
const LEAVES: Duration = Duration::from_secs(300);

/// A volume that is open.
#[derive(Debug)]
pub(super) struct Open {
    domain: Arc<Domain>,
    manifest: Manifest,
    device: Device,
    /// Set while one of the clients writes: whether that one is leaving.
    writing: Mutex<Option<Arc<AtomicBool>>>,
    /// Held by each request, and alone by what ends all of them.
    requests: RwLock<()>,
    over: AtomicBool,
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
            writing: Mutex::default(),
            requests: RwLock::default(),
            over: AtomicBool::new(false),
            recovered: OnceCell::new(),
            _mark: mark,
        }
    }

    /// Whether it serves nobody any more.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Puts what a process that was killed had answered for and not put, before anybody reads.
    pub(super) async fn recover(&self) -> Result<(), StorageError> {
        let recovered = self.recovered.get_or_try_init(|| self.put_what_is_left());
        recovered.await.map(|_| ())
    }

    /// In the name of whose it is: ended on its way, it is taken up again by the next one.
    async fn put_what_is_left(&self) -> Result<(), StorageError> {
        let Some(left) = self.device.spill.left(BLOCK_BYTES).await? else {
            return Ok(());
        };
        let lease = self.lease(left.holder).await?;
        let name = &self.manifest.name;
        if lease.taken_from == Some(left.holder) {
            let blocks = left.blocks.len();
            tracing::warn!(volume = %name, blocks, "an exporter has ended before it had put everything: that is put");
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

    async fn lease(&self, holder: Uuid) -> Result<Held, StorageError> {
        let (domain, uuid) = (&self.domain, self.manifest.uuid);
        let (records, keys) = (domain.records.clone(), domain.keys.clone());
        Held::take(records, keys, uuid, domain.times, holder).await
    }

    /// Waits for the end of one who writes and is leaving.
    async fn begin_writing(&self, leaving: &Arc<AtomicBool>) -> Result<(), StorageError> {
        let begun = Instant::now();
        loop {
            let mut writing = self.writing.lock().await;
            if self.is_over() {
                return Err(self.ended());
            }
            let Some(other) = writing.as_ref() else {
                self.make_writable().await?;
                *writing = Some(Arc::clone(leaving));
                return Ok(());
            };
            let leaves = other.load(Ordering::Acquire);
            if begun.elapsed() > if leaves { LEAVES } else { NOTICED } {
                let by = "another client that writes to it";
                return Err(self.domain.in_use_by(&self.manifest.name, by));
            }
            drop(writing);
            tokio::time::sleep(NOTICED / 25).await;
        }
    }

    async fn make_writable(&self) -> Result<(), StorageError> {
        let holder = Uuid::new_v4();
        let lease = self.lease(holder).await?;
        self.device.spill.begin(holder).await?;
        let present = self.device.blocks.present(self.device.count()).await?;
        self.device.set_writer(Some(Writer::new(lease, present)));
        Ok(())
    }

    async fn end_writing(&self) {
        let mut writing = self.writing.lock().await;
        match self.device.flush().await {
            Ok(()) => self.let_go().await,
            Err(error) => self.break_off(&error).await,
        }
        *writing = None;
    }

    async fn let_go(&self) {
        let name = &self.manifest.name;
        let Some(writer) = self.device.writer() else {
            return;
        };
        self.device.set_writer(None);
        if let Err(error) = self.device.spill.clear().await {
            tracing::warn!(volume = %name, %error, "files are left that nobody needs");
        }
        if let Err(error) = writer.lease.release().await {
            tracing::warn!(volume = %name, %error, "a lease ends by itself");
        }
    }

    /// What was answered for is not in the store: it stays on this host, and the lease as it is, so
    /// that the next one puts it.
    async fn break_off(&self, error: &StorageError) {
        let _none_is_answered_any_more = self.requests.write().await;
        let name = &self.manifest.name;
        if self.device.is_lost() {
            tracing::error!(volume = %name, %error, "what was not flushed is lost: it is written elsewhere by now");
            // What is left belongs to a lease that is over.
            let _ = self.device.spill.clear().await;
        } else {
            tracing::error!(volume = %name, %error, "what was not flushed is kept until the volume is opened again");
        }
        self.over.store(true, Ordering::Release);
        self.device.set_writer(None);
    }

    fn ended(&self) -> StorageError {
        StorageError::Busy {
            what: self.domain.what(&self.manifest.name),
        }
    }
}

/// One client of an open volume.
pub(super) struct Client {
    open: Arc<Open>,
    writes: AtomicBool,
    leaving: Arc<AtomicBool>,
    beginning: Mutex<()>,
}

/// The device, for one request.
struct InUse<'a> {
    device: &'a Device,
    _request: RwLockReadGuard<'a, ()>,
}

impl Deref for InUse<'_> {
    type Target = Device;

    fn deref(&self) -> &Device {
        self.device
    }
}

impl Client {
    pub(super) fn new(open: Arc<Open>) -> Self {
        Self {
            open,
            writes: AtomicBool::new(false),
            leaving: Arc::default(),
            beginning: Mutex::default(),
        }
    }

    async fn device(&self) -> Result<InUse<'_>, StorageError> {
        let request = self.open.requests.read().await;
        if self.open.is_over() {
            return Err(self.open.ended());
        }
        let device = &self.open.device;
        if device.is_lost() {
            let (domain, name) = (&self.open.domain, &self.open.manifest.name);
            return Err(domain.in_use_by(name, "another process that writes to it by now"));
        }
        Ok(InUse {
            device,
            _request: request,
        })
    }

    /// The device, writable.
    async fn writable(&self) -> Result<InUse<'_>, StorageError> {
        if !self.writes.load(Ordering::Acquire) {
            let _one_at_a_time = self.beginning.lock().await;
            if !self.writes.load(Ordering::Acquire) {
                self.open.begin_writing(&self.leaving).await?;
                self.writes.store(true, Ordering::Release);
            }
        }
        self.device().await
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
        self.device().await?.read(at, bytes as usize).await
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
        // Whoever connects again means what he wrote before, too.
        self.device().await?.flush().await
    }

    async fn flush_range(&self, range: Range<u64>) -> Result<(), StorageError> {
        self.device().await?.flush_range(range).await
    }

    fn is_over(&self) -> bool {
        self.open.is_over()
    }

    fn leaves(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    async fn close(&self) {
        if self.writes.load(Ordering::Acquire) {
            self.open.end_writing().await;
        }
    }
}

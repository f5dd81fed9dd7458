//! The exporter of a domain: an NBD server on a Unix socket, one export a volume.
//!
//! ```text
//!   QEMU ─▶ <dir>/nbd.sock ─▶ Exporter ─▶ Open (device, cache, lease) ─▶ objects
//!                             └─ <dir>/exporter.lock: one on a host, as long as its process lives;
//!                                it holds the number of that
//! ```
//!
//! It outlives whoever started it. Told to stop, it writes back what was written, releases its
//! leases, and ends; its clients connect again to the next one.

use super::bucket::Bucket;
use super::domain::Domain;
use super::lease::Times;
use super::nbd::{Export, Exports, Facts, serve};
use super::open::{Client, Open};
use crate::error::io_error;
use crate::{StorageError, StorageId, VolumeName};
use async_trait::async_trait;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A client's own limit for a request, above those that are counted here.
pub(super) const CLIENT_LIMIT: Duration = Duration::from_secs(30);
const LOCK: &str = "exporter.lock";
/// What the one that listens serves: the domain, and its objects' URL.
const DOMAIN: &str = "exporter.domain";

/// The exporter of a domain on this host.
#[derive(Debug)]
pub struct Exporter {
    domain: Arc<Domain>,
    listener: UnixListener,
    _alone: File,
}

impl Exporter {
    /// Of the objects at a URL, with the credentials of this process's environment; its socket lies
    /// in the directory. Listens on return.
    ///
    /// # Errors
    /// `Busy` while another process exports the domain on this host; `Invalid` for a URL that is none.
    pub async fn open(id: StorageId, url: &str, dir: &Path) -> Result<Self, StorageError> {
        let bucket = Bucket::open(url, CLIENT_LIMIT)?;
        let domain = Domain::new(id, bucket, dir, Times::default())?;
        Self::listen(Arc::new(domain)).await
    }

    /// The same with leases of another length, for tests.
    ///
    /// # Errors
    /// As [`Exporter::open`].
    #[cfg(feature = "conformance")]
    pub async fn open_with_lease(
        id: StorageId,
        url: &str,
        dir: &Path,
        lease: Duration,
    ) -> Result<Self, StorageError> {
        let bucket = Bucket::open(url, CLIENT_LIMIT)?;
        let times = Times {
            lease,
            request: lease / 3,
        };
        let domain = Domain::new(id, bucket, dir, times)?;
        Self::listen(Arc::new(domain)).await
    }

    pub(super) async fn listen(domain: Arc<Domain>) -> Result<Self, StorageError> {
        let mut alone = lock(&domain.dir)?;
        for _whoever_only_looks in 0..20 {
            if alone.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            alone = lock(&domain.dir)?;
        }
        let alone = alone.ok_or_else(|| StorageError::Busy {
            what: format!("the exporter of {}", domain.id),
        })?;
        // For people, and for whoever has to end it.
        let pid = std::process::id().to_string();
        let written = alone
            .set_len(0)
            .and_then(|()| (&alone).write_all(pid.as_bytes()));
        written.map_err(io_error(LOCK))?;
        // There before anybody is answered.
        let told = domain.dir.join(DOMAIN);
        fs::write(&told, description(&domain)).map_err(io_error(told.display()))?;
        let listener = bind(domain.socket())?;
        Ok(Self {
            domain,
            listener,
            _alone: alone,
        })
    }

    /// Serves until `stop` is cancelled, and then until everything is written back.
    pub async fn serve(self, stop: CancellationToken) {
        let volumes = Arc::new(Volumes {
            domain: Arc::clone(&self.domain),
            open: Mutex::default(),
        });
        accept(self.listener, volumes, &stop).await;
        let _ = fs::remove_file(self.domain.socket());
    }
}

/// Takes the place of a domain's exporter; `None` while one lives.
pub(super) fn lock(dir: &Path) -> Result<Option<File>, StorageError> {
    let path = dir.join(LOCK);
    let failed = |error: io::Error| io_error(path.display())(error);
    let mut options = OpenOptions::new();
    let options = options.create(true).truncate(false).write(true);
    let file = options.open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn description(domain: &Domain) -> String {
    format!("{}\n{}\n", domain.id, domain.bucket.url)
}

/// Whether the exporter that listens in a domain's directory is the domain's own. One that does not say
/// is of an earlier version.
pub(super) fn serves(domain: &Domain) -> Result<bool, StorageError> {
    let told = domain.dir.join(DOMAIN);
    match fs::read_to_string(&told) {
        Ok(text) => Ok(text == description(domain)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(io_error(told.display())(error)),
    }
}

/// Listens in the place of whoever listened there before.
fn bind(socket: &Path) -> Result<UnixListener, StorageError> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error(socket.display())(error));
        }
        _ => {}
    }
    UnixListener::bind(socket).map_err(io_error(socket.display()))
}

async fn accept(listener: UnixListener, exports: Arc<dyn Exports>, stop: &CancellationToken) {
    let mut clients = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        while clients.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let (exports, stop) = (Arc::clone(&exports), stop.clone());
                clients.spawn(async move {
                    if let Err(error) = serve(stream, exports, &stop).await {
                        tracing::info!(%error, "an NBD client went away");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no client can be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    // Nobody is to wait in its queue.
    drop(listener);
    while clients.join_next().await.is_some() {}
}

/// The volumes of a domain as exports.
#[derive(Debug)]
struct Volumes {
    domain: Arc<Domain>,
    open: Mutex<HashMap<Uuid, Weak<Open>>>,
}

impl Volumes {
    fn name(&self, export: &str) -> Result<VolumeName, StorageError> {
        export.parse().map_err(|_| StorageError::NotFound {
            what: format!("volume {export:?} of {}", self.domain.id),
        })
    }
}

#[async_trait]
impl Exports for Volumes {
    async fn names(&self) -> Result<Vec<String>, StorageError> {
        let names = self.domain.names.all().await?;
        Ok(names
            .into_iter()
            .map(|(name, _)| name.to_string())
            .collect())
    }

    async fn facts(&self, export: &str) -> Result<Facts, StorageError> {
        let manifest = self.domain.find(&self.name(export)?).await?;
        Ok(Facts {
            bytes: manifest.device_bytes,
            read_only: false,
        })
    }

    async fn open(&self, export: &str) -> Result<Arc<dyn Export>, StorageError> {
        let name = self.name(export)?;
        let uuid = self.domain.names.holder(&name).await?;
        let uuid = uuid.ok_or_else(|| self.domain.not_found(&name))?;
        let mut open = self.open.lock().await;
        open.retain(|_, volume| volume.strong_count() > 0);
        let there = open.get(&uuid).and_then(Weak::upgrade);
        if let Some(volume) = there.filter(|volume| !volume.is_over()) {
            drop(open);
            volume.recover().await?;
            return Ok(Arc::new(Client::new(volume)));
        }
        let mark = self.domain.marks.shared(uuid).await?;
        let mark = mark.ok_or_else(|| {
            let by = "whoever removes or grows it";
            self.domain.in_use_by(&name, by)
        })?;
        // From here on it is neither condemned nor grown on this host: is it still there?
        let manifest = self.domain.find(&name).await?;
        if manifest.uuid != uuid {
            return Err(self.domain.not_found(&name));
        }
        let volume = Arc::new(Open::new(Arc::clone(&self.domain), manifest, Some(mark)));
        open.insert(uuid, Arc::downgrade(&volume));
        // Others are opened meanwhile.
        drop(open);
        volume.recover().await?;
        Ok(Arc::new(Client::new(volume)))
    }
}

/// One volume, on a socket of its own, for whoever has it alone.
pub(super) struct Private {
    pub(super) socket: PathBuf,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

impl Private {
    pub(super) fn serve(volume: Open, socket: PathBuf) -> Result<Self, StorageError> {
        let listener = bind(&socket)?;
        let stop = CancellationToken::new();
        let (exports, stopped) = (Arc::new(One(Arc::new(volume))), stop.clone());
        let server = tokio::spawn(async move { accept(listener, exports, &stopped).await });
        Ok(Self {
            socket,
            stop,
            server,
        })
    }

    /// Returns when everything is written back.
    pub(super) async fn end(self) {
        self.stop.cancel();
        // One that panicked has no more to write.
        let _ = self.server.await;
        let _ = fs::remove_file(&self.socket);
    }
}

struct One(Arc<Open>);

#[async_trait]
impl Exports for One {
    async fn names(&self) -> Result<Vec<String>, StorageError> {
        Ok(vec![String::new()])
    }

    async fn facts(&self, _export: &str) -> Result<Facts, StorageError> {
        Ok(Client::new(Arc::clone(&self.0)).facts())
    }

    async fn open(&self, _export: &str) -> Result<Arc<dyn Export>, StorageError> {
        Ok(Arc::new(Client::new(Arc::clone(&self.0))))
    }
}

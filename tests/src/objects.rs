//! Images that are objects on a real S3 server, and the exporter that guests use them through.
//!
//! Dropped after the guest and the services: declare it before them.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use livemerge_storage::conformance::s3::{BUCKET, SECRET, Server, WRITER};
use livemerge_storage::{NewVolume, ObjectVolumes, VolumeStore as _};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::guest::domain::{DiskSpec, Format};
use crate::process::wait_for_end;
use crate::services::program;

const DOMAIN: &str = "default";
const START: Duration = Duration::from_secs(30);
/// Of the test's own client, which writes nothing to a volume.
const LEASE: Duration = Duration::from_secs(15);

/// A bucket, and an exporter of what is in it.
#[derive(Debug)]
pub struct Objects {
    /// The S3 server.
    pub server: Server,
    volumes: ObjectVolumes,
    first: Child,
    dir: TempDir,
}

impl Objects {
    /// Starts the server and the exporter.
    pub async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("lo")
            .tempdir_in("/var/tmp")?;
        let (data, export) = (dir.path().join("s3"), dir.path().join("export"));
        fs::create_dir(&data)?;
        let server = Server::start(&data).await?;
        let objects = server.objects(WRITER, SECRET, START);
        let id = DOMAIN.parse()?;
        let volumes = ObjectVolumes::over_store(id, objects, "images", &export, LEASE).await?;
        let log = fs::File::create(dir.path().join("export.log"))?;
        let first = Command::new(program("livemerge-host-agent")?)
            .args(["export", "--url", &url(), "--socket-dir"])
            .arg(&export)
            .arg(DOMAIN)
            .envs(Server::environment(server.address()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let objects = Self {
            server,
            volumes,
            first,
            dir,
        };
        let begun = Instant::now();
        while !objects.dir.path().join("export/nbd.sock").exists() {
            let log = || fs::read_to_string(objects.dir.path().join("export.log"));
            ensure!(begun.elapsed() < START, "no exporter: {}", log()?);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(objects)
    }

    /// Creates an empty volume, as a disk of a guest.
    pub async fn create_disk(&self, name: &str, target: &str, bytes: u64) -> Result<DiskSpec> {
        let new = NewVolume {
            name: format!("{name}-{target}.qcow2").parse()?,
            virtual_bytes: bytes,
            parent: None,
        };
        let made = self.volumes.create(&new).await?;
        Ok(DiskSpec {
            target: target.to_owned(),
            path: PathBuf::from(made.locator.to_string()),
            format: Format::Qcow2,
        })
    }

    /// The uuid of the volume at an address, while it is one.
    pub async fn uuid_of(&self, image: &std::path::Path) -> Result<String> {
        let locator = livemerge_storage::Locator::Nbd(image.display().to_string());
        let name = self
            .volumes
            .resolve(&locator)
            .context("no address of this domain")?;
        Ok(self.volumes.stat(&name).await?.identity.to_string())
    }

    /// How many objects a volume has.
    pub async fn count(&self, uuid: &str) -> Result<usize> {
        Ok(self.server.keys(&format!("images/{uuid}")).await?.len())
    }

    /// Of how many volumes there are blocks in the bucket.
    pub async fn volumes(&self) -> Result<usize> {
        let keys = self.server.keys("images").await?;
        let blocks = keys.iter().filter_map(|key| key.split_once("/b/"));
        let volumes: std::collections::BTreeSet<_> = blocks.map(|(volume, _)| volume).collect();
        Ok(volumes.len())
    }

    /// The agent's part of the configuration.
    pub(crate) fn config(&self) -> String {
        let export = self.dir.path().join("export");
        format!(
            "kind = \"object\"\nurl = \"{}\"\nsocket_dir = \"{}\"\n",
            url(),
            export.display()
        )
    }

    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        Server::environment(self.server.address())
    }

    /// The process that exports now.
    pub fn exporter(&self) -> Result<Pid> {
        let pid = fs::read_to_string(self.dir.path().join("export/exporter.lock"))?;
        Pid::from_raw(pid.trim().parse()?).context("no process")
    }

    /// Ends the exporter with SIGKILL.
    pub fn kill_exporter(&mut self) -> Result<()> {
        let pid = self.exporter()?;
        kill_process(pid, Signal::KILL)?;
        if pid == Pid::from_child(&self.first) {
            self.first.wait()?;
        }
        wait_for_end(pid)
    }
}

fn url() -> String {
    format!("s3://{BUCKET}/images")
}

impl Drop for Objects {
    fn drop(&mut self) {
        // One that has ended needs no more.
        if let Ok(pid) = self.exporter() {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.first.kill();
        let _ = self.first.wait();
    }
}

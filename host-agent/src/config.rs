//! The agent's configuration. Every key has a default but the host's name and its storage.

use crate::merge::{PivotMode, Policy};
use crate::{access, freeze};
use livemerge_proto::ids::HostId;
use livemerge_runtime::{
    AuthConfig, CallAddress, ClientConfig, ListenConfig, LogConfig, MetricsConfig, Reach, Security,
    ServerConfig, TlsConfig, TracesConfig,
};
use livemerge_storage::StorageId;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

mod storage;

pub use storage::{FileConfig, LvmConfig, ObjectConfig, RemovalConfig, StorageConfig};

/// Everything that can be configured.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the agent serves gRPC.
    pub listen: ListenConfig,
    /// Bounds of the server.
    pub server: ServerConfig,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Where metrics are read.
    pub metrics: MetricsConfig,
    /// Where traces are sent.
    pub traces: TracesConfig,
    /// The agent's certificate, and whose client certificates it takes.
    pub tls: TlsConfig,
    /// Who may do what; without it whoever reaches the agent may do everything.
    pub auth: Option<AuthConfig>,
    /// How the API server is called.
    pub client: ClientConfig,
    /// This host.
    pub host: HostConfig,
    /// Its hypervisor.
    pub hypervisor: HypervisorConfig,
    /// How merges go.
    pub merge: MergeConfig,
    /// How guests are frozen for snapshots.
    pub freeze: FreezeConfig,
    /// The storage domains that this host sees, by id.
    pub storage: BTreeMap<StorageId, StorageConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ListenConfig::loopback(7421),
            server: ServerConfig {
                // There is one API server, whose watches shall not break.
                max_connection_age_seconds: 0,
                ..ServerConfig::default()
            },
            log: LogConfig::default(),
            metrics: MetricsConfig::default(),
            traces: TracesConfig::default(),
            tls: TlsConfig::default(),
            auth: None,
            client: ClientConfig::default(),
            host: HostConfig::default(),
            hypervisor: HypervisorConfig::default(),
            merge: MergeConfig::default(),
            freeze: FreezeConfig::default(),
            storage: BTreeMap::new(),
        }
    }
}

impl Config {
    /// How far the agent may be heard.
    pub fn reach(&self, insecure: bool) -> Reach {
        Reach::of(&self.tls, self.auth.as_ref(), insecure)
    }

    /// Whether all of it can stand together. No file is looked at.
    ///
    /// # Errors
    /// Names the key that cannot stand as it does.
    pub fn check(&self, insecure: bool) -> anyhow::Result<()> {
        self.listen.admit(self.reach(insecure))?;
        self.metrics.admit(insecure)?;
        self.server.check()?;
        self.traces.check()?;
        Security::check(&self.tls, self.auth.as_ref())?;
        self.client.check()?;
        self.host.id()?;
        if let Some(server) = self.host.server()? {
            let admitted = self.client.admit(server, insecure);
            admitted.map_err(|error| anyhow::anyhow!("host.api_server: {error}"))?;
        }
        for (id, storage) in &self.storage {
            storage.check(id)?;
        }
        self.hypervisor.call_limit()?;
        self.merge.policy()?;
        self.freeze.policy().map(drop)
    }

    /// Whether the files of certificates, keys and tokens can be used.
    ///
    /// # Errors
    /// Names the file that cannot.
    pub fn check_files(&self) -> anyhow::Result<()> {
        Security::open(&self.tls, self.auth.as_ref(), access::rules())?;
        self.traces.check_files()?;
        self.client.open(false)?;
        Ok(())
    }

    /// The room that a volume which is given it has left when it is given more: half of the largest
    /// chunk that is given at once, so that a guest has the time of the other half.
    pub(crate) fn growth_margin(&self) -> u64 {
        let chunk = |storage: &StorageConfig| match storage {
            StorageConfig::File(_) | StorageConfig::Object(_) => None,
            StorageConfig::Lvm(lvm) => Some(lvm.chunk_mib << 20),
        };
        let largest = self.storage.values().filter_map(chunk).max();
        largest.unwrap_or_default() / 2
    }
}

/// This host, and the API server that it belongs to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostConfig {
    /// The host's id, unique among the hosts of an API server.
    pub id: String,
    /// The directory of the agent's journal.
    pub state_dir: PathBuf,
    /// Where the API server listens, `http://ADDRESS:PORT`, `https://ADDRESS:PORT` or `unix:/PATH`.
    /// Empty: the agent does not register itself, and stands in the server's configuration instead.
    pub api_server: String,
    /// What the API server shall call to reach this agent. Empty: the address it listens on.
    pub advertise: String,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            id: "localhost".to_owned(),
            state_dir: PathBuf::from("/var/lib/livemerge/agent"),
            api_server: "http://127.0.0.1:7420".to_owned(),
            advertise: String::new(),
        }
    }
}

impl HostConfig {
    /// Where the API server is called; `None` when it calls first.
    ///
    /// # Errors
    /// When the address is none.
    pub fn server(&self) -> anyhow::Result<Option<&str>> {
        if self.api_server.is_empty() {
            return Ok(None);
        }
        if self.api_server.parse::<CallAddress>().is_ok() {
            return Ok(Some(&self.api_server));
        }
        anyhow::bail!(
            "host.api_server {:?}: must be http://ADDRESS:PORT, https://ADDRESS:PORT or unix:/PATH",
            self.api_server
        )
    }

    /// The id, checked.
    ///
    /// # Errors
    /// When it is none.
    pub fn id(&self) -> anyhow::Result<HostId> {
        self.id
            .parse()
            .map_err(|error| anyhow::anyhow!("host.id {:?}: {error}", self.id))
    }
}

/// The hypervisor of this host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HypervisorConfig {
    /// libvirt's URI: `qemu:///system`, or `qemu:///embed?root=DIR`, which runs libvirt's driver
    /// within the agent and needs no daemon. One agent a root.
    pub uri: String,
    /// How long a call of libvirt may take, in seconds, 1 to 300.
    pub call_seconds: u64,
}

impl Default for HypervisorConfig {
    fn default() -> Self {
        Self {
            uri: "qemu:///embed?root=/var/lib/livemerge/qemu".to_owned(),
            call_seconds: 10,
        }
    }
}

impl HypervisorConfig {
    /// How long a call may take.
    ///
    /// # Errors
    /// When that is out of its range.
    pub fn call_limit(&self) -> anyhow::Result<Duration> {
        if !(1..=300).contains(&self.call_seconds) {
            anyhow::bail!(
                "hypervisor.call_seconds is {}, not within 1 to 300",
                self.call_seconds
            );
        }
        Ok(Duration::from_secs(self.call_seconds))
    }
}

/// How merges go.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MergeConfig {
    /// `suspended`: the guest's processors stand still while it is switched to the base, so that a
    /// crash of QEMU leaves no doubt. `running`: they do not, and a crash in that moment ends the
    /// merge as failed with both volumes kept.
    pub pivot: PivotMode,
    /// The longest time that the processors stand still before the pivot is put off, 10 to 10,000.
    pub pause_limit_ms: u64,
    /// How long a copy may not come closer to its end before its limit is lifted, and then the
    /// guest's writes are limited, 100 to 3,600,000.
    pub stalled_after_ms: u64,
    /// What the guest may write at least in a second when its writes are limited, in MiB, 1 to 32. If
    /// that is still too fast for the copy, the guest gets a fresh overlay.
    pub least_guest_mib: u64,
}

impl Default for MergeConfig {
    fn default() -> Self {
        Self {
            pivot: PivotMode::Suspended,
            pause_limit_ms: 200,
            stalled_after_ms: 10_000,
            least_guest_mib: 1,
        }
    }
}

impl MergeConfig {
    /// The merge's bounds.
    ///
    /// # Errors
    /// When a value is out of its range.
    pub fn policy(&self) -> anyhow::Result<Policy> {
        let range = 10..=10_000;
        if !range.contains(&self.pause_limit_ms) {
            anyhow::bail!(
                "merge.pause_limit_ms is {}, not within 10 to 10000",
                self.pause_limit_ms
            );
        }
        if !(100..=3_600_000).contains(&self.stalled_after_ms) {
            anyhow::bail!(
                "merge.stalled_after_ms is {}, not within 100 to 3600000",
                self.stalled_after_ms
            );
        }
        if !(1..=32).contains(&self.least_guest_mib) {
            anyhow::bail!(
                "merge.least_guest_mib is {}, not within 1 to 32",
                self.least_guest_mib
            );
        }
        let pause_limit = Duration::from_millis(self.pause_limit_ms);
        Ok(Policy {
            pivot: self.pivot,
            pause_limit,
            stalled_after: Duration::from_millis(self.stalled_after_ms),
            least_guest_bytes: self.least_guest_mib << 20,
            ..Policy::default()
        })
    }
}

/// How guests are frozen for snapshots.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FreezeConfig {
    /// How long a guest's agent has for a sign of life, and as long again for the freeze itself, in
    /// seconds, 1 to 20. One that is silent for longer is done without. The API server waits for more
    /// than twice the most.
    pub answer_seconds: u64,
    /// The longest time that a guest stays frozen while its snapshot is taken, 100 to 60,000.
    pub hold_limit_ms: u64,
}

impl Default for FreezeConfig {
    fn default() -> Self {
        Self {
            answer_seconds: 5,
            hold_limit_ms: 10_000,
        }
    }
}

impl FreezeConfig {
    /// The bounds of a freeze.
    ///
    /// # Errors
    /// When a value is out of its range.
    pub fn policy(&self) -> anyhow::Result<freeze::Policy> {
        if !(1..=20).contains(&self.answer_seconds) {
            anyhow::bail!(
                "freeze.answer_seconds is {}, not within 1 to 20",
                self.answer_seconds
            );
        }
        if !(100..=60_000).contains(&self.hold_limit_ms) {
            anyhow::bail!(
                "freeze.hold_limit_ms is {}, not within 100 to 60000",
                self.hold_limit_ms
            );
        }
        Ok(freeze::Policy {
            answer: Duration::from_secs(self.answer_seconds),
            hold: Duration::from_millis(self.hold_limit_ms),
        })
    }
}

#[cfg(test)]
mod tests;

//! The server's configuration. Every key has a default.
//!
//! What can be judged by itself is judged where it is read, so that an error names the file's line
//! or the variable.

use crate::access;
use crate::hosts::LinkPolicy;
use crate::hosts::{ENDPOINT_FORM, is_endpoint};
use crate::snapshot::{Limit, Limits};
use livemerge_proto::ids::HostId;
use livemerge_runtime::{
    AuthConfig, ClientConfig, ConsoleConfig, HostNames, ListenConfig, LogConfig, MetricsConfig,
    Reach, Security, ServerConfig, TlsConfig, TracesConfig, WebConfig,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// Everything that can be configured.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the server serves gRPC.
    pub listen: ListenConfig,
    /// Where browsers are served, by gRPC-Web.
    pub web: WebConfig,
    /// Where the console is served.
    pub console: ConsoleConfig,
    /// Bounds of the server.
    pub server: ServerConfig,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Where metrics are read.
    pub metrics: MetricsConfig,
    /// Where traces are sent.
    pub traces: TracesConfig,
    /// The server's certificate, and whose client certificates it takes.
    pub tls: TlsConfig,
    /// Who may do what; without it whoever reaches the server may do everything.
    pub auth: Option<AuthConfig>,
    /// How agents are called.
    pub client: ClientConfig,
    /// What an agent that is called has to show.
    pub agents: AgentsConfig,
    /// The database.
    pub store: StoreConfig,
    /// When a host counts as unresponsive.
    pub heartbeat: HeartbeatConfig,
    /// How much merges at once, and how fast.
    pub merge: MergeConfig,
    /// Whether layers that others have frozen are listed as snapshots.
    pub discovery: DiscoveryConfig,
    /// Hosts that do not register themselves, by id.
    pub hosts: BTreeMap<HostId, HostConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ListenConfig::loopback(7420),
            web: WebConfig::default(),
            console: ConsoleConfig::default(),
            server: ServerConfig::default(),
            log: LogConfig::default(),
            metrics: MetricsConfig::default(),
            traces: TracesConfig::default(),
            tls: TlsConfig::default(),
            auth: None,
            client: ClientConfig::default(),
            agents: AgentsConfig::default(),
            store: StoreConfig::default(),
            heartbeat: HeartbeatConfig::default(),
            merge: MergeConfig::default(),
            discovery: DiscoveryConfig::default(),
            hosts: BTreeMap::new(),
        }
    }
}

impl Config {
    /// How far the server may be heard.
    pub fn reach(&self, insecure: bool) -> Reach {
        Reach::of(&self.tls, self.auth.as_ref(), insecure)
    }

    /// Whether all of it can stand together. No file is looked at.
    ///
    /// # Errors
    /// Names the key that cannot stand as it does.
    pub fn check(&self, insecure: bool) -> anyhow::Result<()> {
        self.listen.admit(self.reach(insecure))?;
        self.web.admit(self.reach(insecure))?;
        self.console.admit(self.reach(insecure))?;
        self.metrics.admit(insecure)?;
        self.server.check()?;
        self.traces.check()?;
        Security::check(&self.tls, self.auth.as_ref())?;
        self.client.check()?;
        if self.client.token_file.is_some() {
            // Where an agent is, is what somebody has registered, and what it is told it can tell.
            anyhow::bail!("client.token_file: agents are shown a certificate, never a token");
        }
        self.agents.check(self)?;
        for (id, host) in &self.hosts {
            let admitted = self.client.admit(&host.endpoint, insecure);
            admitted.map_err(|error| anyhow::anyhow!("hosts.{id}.endpoint: {error}"))?;
        }
        self.discovery.check()?;
        self.heartbeat.policy().map(drop)
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
}

/// What an agent that is called has to show.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentsConfig {
    /// The names that its certificate must have.
    pub certificate: AgentCertificate,
}

/// The names that an agent's certificate must have, where it is called with TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentCertificate {
    /// The one of its address.
    #[default]
    Address,
    /// That one, and one that `auth.subjects` or `auth.subjects_file` bind to its host as an agent.
    Host,
}

impl AgentsConfig {
    fn check(&self, config: &Config) -> anyhow::Result<()> {
        if self.certificate == AgentCertificate::Address {
            return Ok(());
        }
        let auth = config.auth.as_ref();
        let names = auth.is_some_and(|it| it.subjects_file.is_some() || !it.subjects.is_empty());
        anyhow::ensure!(
            names && config.client.ca_file.is_some(),
            "agents.certificate: `host` needs client.ca_file, and auth.subjects or auth.subjects_file"
        );
        Ok(())
    }

    /// The names to ask for, if they are.
    pub fn names(&self, security: &Security) -> Option<HostNames> {
        match self.certificate {
            AgentCertificate::Address => None,
            AgentCertificate::Host => security.host_names(),
        }
    }
}

/// The database.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// The SQLite file, an absolute path; its directory may come later.
    #[serde(deserialize_with = "absolute_file")]
    pub path: PathBuf,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/var/lib/livemerge/api-server.db"),
        }
    }
}

/// The line to the agents.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeartbeatConfig {
    /// Time between an agent's heartbeats, 50 to 15,000.
    pub interval_ms: u64,
    /// A host that was silent for so long is unresponsive; more than the interval, up to 86,400,000.
    pub silence_ms: u64,
    /// How long an agent may take for a call that it answers at once, in seconds, 1 to 300. For one that
    /// works before it answers it has six times as long.
    pub answer_seconds: u64,
}

impl Default for HeartbeatConfig {
    fn default() -> Self {
        Self {
            interval_ms: 2_000,
            silence_ms: 6_000,
            answer_seconds: 10,
        }
    }
}

impl HeartbeatConfig {
    /// The line's bounds.
    ///
    /// # Errors
    /// When a value is out of its range.
    pub fn policy(&self) -> anyhow::Result<LinkPolicy> {
        if !(50..=15_000).contains(&self.interval_ms) {
            anyhow::bail!(
                "heartbeat.interval_ms is {}, not within 50 to 15000",
                self.interval_ms
            );
        }
        if self.silence_ms <= self.interval_ms {
            anyhow::bail!(
                "heartbeat.silence_ms is {}, not more than the interval",
                self.silence_ms
            );
        }
        if self.silence_ms > 86_400_000 {
            anyhow::bail!(
                "heartbeat.silence_ms is {}, more than 86400000, which is a day",
                self.silence_ms
            );
        }
        if !(1..=300).contains(&self.answer_seconds) {
            anyhow::bail!(
                "heartbeat.answer_seconds is {}, not within 1 to 300",
                self.answer_seconds
            );
        }
        let heartbeat = Duration::from_millis(self.interval_ms);
        Ok(LinkPolicy {
            heartbeat,
            silence: Duration::from_millis(self.silence_ms),
            answer: Duration::from_secs(self.answer_seconds),
        })
    }
}

/// How much merges at once, and how fast. Whatever is beyond waits in a queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MergeConfig {
    /// So many deletes merge at once on one host; 0 for no limit.
    pub max_per_host: u32,
    /// So many deletes merge at once in one storage domain; 0 for no limit.
    pub max_per_storage: u32,
    /// So many bytes a second are copied on one host by all of them; 0 for no limit.
    pub host_bytes_per_second: u64,
    /// So many bytes a second are copied in one storage domain by all of them; 0 for no limit.
    pub storage_bytes_per_second: u64,
}

impl Default for MergeConfig {
    fn default() -> Self {
        Self {
            max_per_host: 4,
            max_per_storage: 0,
            host_bytes_per_second: 0,
            storage_bytes_per_second: 0,
        }
    }
}

impl MergeConfig {
    /// The same as the domain has it.
    pub fn limits(&self) -> Limits {
        Limits {
            host: Limit {
                merges: self.max_per_host,
                bytes_per_second: self.host_bytes_per_second,
            },
            storage: Limit {
                merges: self.max_per_storage,
                bytes_per_second: self.storage_bytes_per_second,
            },
        }
    }
}

/// Layers that others have frozen.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiscoveryConfig {
    /// A machine's chains are looked at when it is seen or changes, and so often, in seconds, 0 to
    /// 31,536,000; 0 for never.
    pub interval_s: u64,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self { interval_s: 60 }
    }
}

impl DiscoveryConfig {
    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.interval_s <= 31_536_000,
            "discovery.interval_s is {}, not within 0 to 31536000",
            self.interval_s
        );
        Ok(())
    }

    /// How often it is looked; `None` for never.
    pub fn every(&self) -> Option<Duration> {
        (self.interval_s > 0).then(|| Duration::from_secs(self.interval_s))
    }
}

/// A host that does not register itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// Where its agent listens: `http://ADDRESS:PORT`, `https://ADDRESS:PORT` or `unix:/PATH`.
    #[serde(deserialize_with = "endpoint")]
    pub endpoint: String,
}

/// A relative path would depend on the directory in which the server happens to start.
fn absolute_file<'de, D: Deserializer<'de>>(input: D) -> Result<PathBuf, D::Error> {
    let text = String::deserialize(input)?;
    let path = PathBuf::from(&text);
    let file = path.is_absolute() && path.file_name().is_some() && !text.ends_with('/');
    if file && !text.contains('\0') {
        return Ok(path);
    }
    Err(D::Error::custom(format!(
        "{text:?} is not the absolute path of a file"
    )))
}

fn endpoint<'de, D: Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    let text = String::deserialize(input)?;
    if is_endpoint(&text) {
        return Ok(text);
    }
    Err(D::Error::custom(format!("{text:?} {ENDPOINT_FORM}")))
}

#[cfg(test)]
mod tests;

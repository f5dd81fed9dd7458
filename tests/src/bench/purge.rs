//! A volume of many objects removed, beside `s5cmd rm` of as many, on one S3 server behind a proxy that
//! adds a fixed round trip to each request; and behind one that asks for fewer requests. `rclone` and `aws`
//! take their time, so that they remove fewer.
//!
//! Ours is the whole removal: the look at the domain's headers, the tombstone, and the listing at the
//! end that finds nothing. The objects are small: what they hold is not what takes the time.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use livemerge_storage::conformance::proxy::{Proxy, Way};
use livemerge_storage::conformance::s3::{self, BUCKET, SECRET, Server, WRITER};
use livemerge_storage::{NewVolume, ObjectVolumes, RemovalId, RemovalOrder, VolumeStore as _};
use tempfile::TempDir;
use uuid::Uuid;

use super::LIMIT;
use super::figures::{Comparison, Figures};
use crate::process::run;

const ROUND_TRIP: Duration = Duration::from_millis(10);
const GOAL: f64 = 1.0;
/// Who removes as many objects, how many that are, and how many rounds are counted at most.
const PEERS: [(Peer, u64, usize); 4] = [
    (Peer::S5cmd, 10_000, 5),
    (Peer::S5cmd, 100_000, 1),
    (Peer::Rclone, 2_000, 3),
    (Peer::Aws, 2_000, 3),
];
/// Keys a second, and how many are removed under that limit.
const THROTTLE: (u64, u64) = (2_000, 20_000);
/// The inverse of 0.9 of the limit.
const THROTTLED_GOAL: f64 = 1.0 / 0.9;
const AT_ONCE: usize = 64;
const LEASE: Duration = Duration::from_secs(15);

pub(super) async fn measure(runs: usize, figures: &mut Figures) -> Result<()> {
    let place = Place::start().await?;
    for (peer, objects, most) in PEERS {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let mut peak = 0;
        for _ in 0..runs.min(most) {
            let way = Way {
                round_trip: ROUND_TRIP,
                limit: None,
            };
            let (ms, peak_kib) = place.remove(objects, way).await?;
            ours.push(ms);
            peak = peak.max(peak_kib);
            theirs.push(place.remove_by(peer, objects, way).await?);
        }
        figures.add(&Comparison {
            what: &format!("remove a volume of {objects} objects, 10 ms away"),
            beside: peer.name(),
            goal: (peer == Peer::S5cmd).then_some(GOAL),
            unit: "ms",
            ours: &ours,
            peer: &theirs,
        });
        figures.note(format!(
            "removing {objects} objects: this process, proxy included, held {} MiB at most (goal 64)",
            peak >> 10
        ));
    }
    place.throttled(figures).await
}

/// Another program that removes objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    S5cmd,
    Rclone,
    Aws,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::S5cmd => "s5cmd rm",
            Self::Rclone => "rclone delete",
            Self::Aws => "aws s3 rm --recursive",
        }
    }

    /// Removes what is below `peer`, on the server at an address.
    fn command(self, at: SocketAddr) -> Command {
        let endpoint = format!("http://{at}");
        let mut command;
        match self {
            Self::S5cmd => {
                command = Command::new(program("s5cmd"));
                command.args(["--endpoint-url", &endpoint, "--log", "error", "rm"]);
                command.arg(format!("s3://{BUCKET}/peer/*"));
            }
            Self::Rclone => {
                command = Command::new("rclone");
                command.args(["--config", "/dev/null", "--s3-provider", "Other"]);
                command.args(["--s3-env-auth", "--s3-endpoint", &endpoint, "delete"]);
                command.arg(format!(":s3:{BUCKET}/peer"));
                // It is for servers with TLS, and refuses to start when it cannot be read.
                command.env_remove("AWS_CA_BUNDLE");
            }
            Self::Aws => {
                command = Command::new(program("aws"));
                command.args(["--endpoint-url", &endpoint, "s3", "rm", "--recursive"]);
                command.args(["--only-show-errors", &format!("s3://{BUCKET}/peer")]);
            }
        }
        command.envs(Server::environment(at));
        command
    }
}

struct Place {
    server: Server,
    dir: TempDir,
}

impl Place {
    async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("lb")
            .tempdir_in("/var/tmp")?;
        let server = Server::start(dir.path()).await?;
        Ok(Self { server, dir })
    }

    /// Removes a volume of so many objects, and tells the milliseconds and the most memory.
    async fn remove(&self, count: u64, way: Way) -> Result<(f64, u64)> {
        let proxy = Proxy::before(self.server.address(), way).await?;
        let objects = s3::objects(proxy.address(), WRITER, SECRET, LIMIT);
        let export = self.dir.path().join("export");
        let id = "bench".parse()?;
        let store = ObjectVolumes::over_store(id, objects, "ours", &export, LEASE).await?;
        let new = NewVolume {
            name: "volume".parse()?,
            virtual_bytes: 1 << 20,
            parent: None,
        };
        let made = store.create(&new).await?;
        self.fill(&format!("ours/{}/b", made.identity), count)
            .await?;
        let id = RemovalId::from(Uuid::new_v4());
        let order = RemovalOrder::new(id, new.name, made.identity.clone());
        reset_peak()?;
        let begun = Instant::now();
        store.remove(&order).await?;
        let took = begun.elapsed();
        let peak = peak_kib()?;
        let left = self.server.keys(&format!("ours/{}", made.identity)).await?;
        ensure!(left.is_empty(), "{} objects are left", left.len());
        Ok((took.as_secs_f64() * 1000.0, peak))
    }

    /// The same objects, removed by somebody else.
    async fn remove_by(&self, peer: Peer, count: u64, way: Way) -> Result<f64> {
        let proxy = Proxy::before(self.server.address(), way).await?;
        self.fill("peer/b", count).await?;
        let mut command = peer.command(proxy.address());
        let begun = Instant::now();
        tokio::task::spawn_blocking(move || run(&mut command)).await??;
        let took = begun.elapsed();
        let left = self.server.keys("peer").await?;
        ensure!(
            left.is_empty(),
            "{} has left {} objects",
            peer.name(),
            left.len()
        );
        Ok(took.as_secs_f64() * 1000.0)
    }

    /// Behind a store that asks for fewer requests: beside the time that its limit allows.
    async fn throttled(&self, figures: &mut Figures) -> Result<()> {
        let (limit, objects) = THROTTLE;
        let way = Way {
            round_trip: ROUND_TRIP,
            limit: Some(limit),
        };
        let (took, _) = self.remove(objects, way).await?;
        // What was not used of the second before can be used in the first.
        let allowed = (objects - limit) as f64 * 1000.0 / limit as f64;
        figures.add(&Comparison {
            what: &format!("remove a volume of {objects} objects, none lost"),
            beside: &format!("the time that a limit of {limit} keys a second allows"),
            goal: Some(THROTTLED_GOAL),
            unit: "ms",
            ours: &[took],
            peer: &[allowed],
        });
        Ok(())
    }

    async fn fill(&self, prefix: &str, count: u64) -> Result<()> {
        let objects = self.server.objects(WRITER, SECRET, LIMIT);
        let put = |number: u64| {
            let objects = Arc::clone(&objects);
            let key = format!("{prefix}/{:016x}", 0x1_0000 + number);
            async move { s3::put(objects.as_ref(), &key, "x").await }
        };
        let puts = futures::stream::iter((0..count).map(put)).buffer_unordered(AT_ONCE);
        puts.try_collect::<Vec<()>>()
            .await
            .context("filling the bucket")?;
        Ok(())
    }
}

/// As the set-up installs it beside the build.
fn program(name: &str) -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../target/tools/s3/bin")
        .join(name);
    if own.exists() { own } else { name.into() }
}

fn reset_peak() -> Result<()> {
    Ok(std::fs::write("/proc/self/clear_refs", "5")?)
}

fn peak_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|peak| peak.split_whitespace().next());
    Ok(peak.context("no peak of memory")?.parse()?)
}

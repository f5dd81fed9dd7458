//! A hundred removals of logical volumes, beside one `lvremove` that names all of them.
//!
//! ```text
//!   here ─▶ virtual host ─▶ the same program there: 2 x 100 volumes, not active
//!             each round: LvmStore::remove_all of 100 │ lvremove vg/p0 … vg/p99 │ both back
//! ```
//!
//! Both remove as many, of the same group. Ours looks first whether anything is built on them.

use anyhow::{Context as _, Result, ensure};
use futures::TryStreamExt as _;
use livemerge_storage::{
    LvmConfig, LvmStore, RemovalId, RemovalOrder, RemovalState, VolumeInfo, VolumeStore as _,
};
use livemerge_vhost::VirtualHost;
use serde::{Deserialize, Serialize};
use std::process::Command;
use std::time::{Duration, Instant};
use uuid::Uuid;

use super::figures::{Comparison, Figures};
use super::median;
use crate::process::run;

const GROUP: &str = "vg";
const BACKUP: &str = "/run/group";
const VOLUMES: usize = 100;
const GOAL: f64 = 1.2;
/// What precedes the figures in the output of the virtual host.
const FIGURES: &str = "figures: ";

/// The rounds' times, in milliseconds.
#[derive(Default, Serialize, Deserialize)]
struct Rounds {
    ours: Vec<f64>,
    peer: Vec<f64>,
    /// Of a program of LVM's that does nothing.
    starts: Vec<f64>,
}

pub(super) async fn measure(runs: usize, figures: &mut Figures) -> Result<()> {
    if livemerge_vhost::is_here() {
        return tell(&rounds(runs).await?);
    }
    let host = VirtualHost {
        limit: Duration::from_secs(1800),
        ..VirtualHost::default()
    };
    let program = std::env::current_exe()?;
    let args = ["lvm", "--json", "/dev/null", "--runs", &runs.to_string()];
    let ended = host.run(&program, &args)?;
    ensure!(ended.code == 0, "in the virtual host: {}", ended.output);
    let told = ended
        .output
        .lines()
        .find_map(|line| line.strip_prefix(FIGURES));
    let rounds: Rounds = serde_json::from_str(told.context("no figures")?)?;
    figures.add(&Comparison {
        what: &format!("remove {VOLUMES} logical volumes, ordered at once"),
        beside: "one lvremove naming all",
        goal: Some(GOAL),
        unit: "ms",
        ours: &rounds.ours,
        peer: &rounds.peer,
    });
    figures.note(format!(
        "LVM: a start of its program alone takes {:.0} ms in this virtual host (ours is one where the group was just reported, two otherwise)",
        median(&rounds.starts)
    ));
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the program outside reads it")]
fn tell(rounds: &Rounds) -> Result<()> {
    println!("{FIGURES}{}", serde_json::to_string(rounds)?);
    Ok(())
}

async fn rounds(runs: usize) -> Result<Rounds> {
    // No history of the metadata, for either of them.
    std::fs::write(
        "/etc/lvm/lvmlocal.conf",
        "backup {\n backup = 0\n archive = 0\n}\n",
    )?;
    lvm("vgcreate", &["-q", GROUP, "/dev/vda"])?;
    let ours: Vec<_> = (0..VOLUMES).map(|number| format!("o{number}")).collect();
    let peer: Vec<_> = (0..VOLUMES).map(|number| format!("p{number}")).collect();
    for name in ours.iter().chain(&peer) {
        let make = ["-q", "--yes", "-an", "-Wn", "-Zn", "-L", "4m", "-n", name];
        let tags = [
            "--addtag",
            "livemerge",
            "--addtag",
            "livemerge.format=raw",
            GROUP,
        ];
        lvm("lvcreate", &[&make[..], &tags].concat())?;
    }
    lvm("vgcfgbackup", &["-q", "-f", BACKUP, GROUP])?;
    let store = LvmStore::open("bench".parse()?, LvmConfig::of(GROUP)).await?;
    let mut rounds = Rounds::default();
    for round in 0..=runs {
        let ours = remove(&store, &ours).await?;
        let peer = remove_by_name(&peer)?;
        let begun = Instant::now();
        lvm("version", &[])?;
        if round > 0 {
            rounds.ours.push(ours);
            rounds.peer.push(peer);
            rounds.starts.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
        lvm(
            "vgcfgrestore",
            &["-q", "--force", "--yes", "-f", BACKUP, GROUP],
        )?;
    }
    Ok(rounds)
}

async fn remove(store: &LvmStore, names: &[String]) -> Result<f64> {
    let mut orders = Vec::new();
    let volumes: Vec<VolumeInfo> = store.list().try_collect().await?;
    for info in volumes {
        if names.iter().any(|name| name == info.volume.name.as_str()) {
            let id = RemovalId::from(Uuid::new_v4());
            orders.push(RemovalOrder::new(id, info.volume.name, info.identity));
        }
    }
    ensure!(orders.len() == names.len(), "some are missing");
    let begun = Instant::now();
    let removals = store.remove_all(&orders).await;
    let took = begun.elapsed();
    for removal in removals {
        ensure!(removal?.state == RemovalState::Gone, "one is not gone");
    }
    Ok(took.as_secs_f64() * 1000.0)
}

fn remove_by_name(names: &[String]) -> Result<f64> {
    let names: Vec<_> = names.iter().map(|name| format!("{GROUP}/{name}")).collect();
    let mut args = vec!["--yes"];
    args.extend(names.iter().map(String::as_str));
    let begun = Instant::now();
    lvm("lvremove", &args)?;
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

fn lvm(command: &str, args: &[&str]) -> Result<()> {
    run(Command::new("lvm").arg(command).args(args)).map(drop)
}

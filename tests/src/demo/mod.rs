//! The main job, shown: a real guest writes without pause while its snapshots are deleted.
//!
//! ```text
//!   guest boots ─▶ services start ─▶ three snapshots ─▶ delete the middle one (intermediate commit)
//!     ─▶ delete the newest one (active commit, pivot) ─▶ volumes gone? ─▶ guest off ─▶ records lost?
//! ```
//!
//! Every figure is measured in this run. An unmet expectation ends it with an error.

mod place;
mod progress;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1;
use uuid::Uuid;

use crate::api::Api;
use crate::guest::domain::Workload;
use crate::guest::image::GuestImage;
use crate::guest::oracle;
use crate::rig::{Guest, Rig};
use crate::services::{CONSOLE, Reach, Services};
use livemerge_vhost::VirtualHost;
use place::Place;
pub use place::Storage;
use report::Report;

const DISK: &str = "vda";
const DISK_BYTES: u64 = 1 << 30;
const SLOTS: u64 = 2048;
/// How long all of it may take there, its start included.
const IN_A_VIRTUAL_HOST: Duration = Duration::from_secs(900);

/// What the guest does, and how long a part of the demo may take.
#[derive(Clone, Copy)]
struct Pace {
    workload: Workload,
    /// Records that the guest writes between two snapshots, so that each layer has some.
    records_between: u64,
    limit: Duration,
}

const ON_FILES: Pace = Pace {
    workload: Workload {
        slots: SLOTS,
        fill_mib: 96,
        background_kib: 16384,
        rate: 0,
    },
    records_between: 600,
    limit: Duration::from_secs(60),
};

/// Each record is a flush, and each flush a few requests to the store of 256 KiB each: as many bytes as on
/// files would show the S3 server and not the merge.
const ON_OBJECTS: Pace = Pace {
    workload: Workload {
        fill_mib: 16,
        background_kib: 2048,
        ..ON_FILES.workload
    },
    records_between: 100,
    limit: Duration::from_secs(120),
};

/// A virtual host has one processor, for the guest, LVM and both services.
const ON_VOLUMES: Pace = Pace {
    workload: Workload {
        fill_mib: 32,
        background_kib: 1024,
        rate: 20,
        ..ON_FILES.workload
    },
    records_between: 100,
    limit: Duration::from_secs(180),
};

impl Pace {
    fn on(storage: Storage) -> Self {
        match storage {
            Storage::File => ON_FILES,
            Storage::Lvm => ON_VOLUMES,
            Storage::Object => ON_OBJECTS,
        }
    }
}

/// Runs it on logical volumes, for which this program is started again in a virtual host.
///
/// # Errors
/// When none starts, or the demo fails there.
pub fn run_in_a_virtual_host() -> Result<()> {
    // Built out here, where it stays.
    GuestImage::build()?;
    let host = VirtualHost {
        memory_mib: 2048,
        processors: 2,
        limit: IN_A_VIRTUAL_HOST,
        echo: true,
        ..VirtualHost::default()
    };
    let program = std::env::current_exe()?;
    let ended = host.run(&program, &["--storage", "lvm"])?;
    ensure!(ended.code == 0, "it ended with {}", ended.code);
    Ok(())
}

/// What goes on until it is dropped: in this order, since each needs the next.
pub struct Kept {
    _guest: Guest,
    _services: Services,
    _rig: Rig,
    _place: Place,
}

/// Runs the demo. Everything that it starts ends with it, also when it is dropped half-way; unless it is to
/// be kept, on its default ports.
pub async fn run(storage: Storage, keep: bool) -> Result<Option<Kept>> {
    let reach = if keep {
        Reach::Default
    } else {
        Reach::Loopback
    };
    let mut report = Report::begin();
    let place = Place::make(storage).await?;
    let rig = Rig::new()?;
    let mut services = place.services(&rig, reach)?;

    report.say("A Linux guest boots on QEMU and writes numbered records, each with fsync.");
    let pace = Pace::on(storage);
    let guest = boot(&rig, &place, pace).await?;
    report.step("guest boots, first records acknowledged");

    services.start()?;
    let mut show = Show {
        api: Api::at(&services.api.endpoint())?,
        vm: guest.spec.uuid,
        guest,
        report,
        pace,
    };
    show.api.wait_for_vm(show.vm, pace.limit).await?;
    show.report.say(&format!(
        "API server on {}, host agent on {}.",
        services.api.endpoint(),
        services.agent.endpoint()
    ));
    show.report.step("both services start, the agent registers");

    let snapshots = show.create_snapshots().await?;
    show.draw("The chain before:").await?;
    let middle = show
        .delete(&snapshots[1], v1::MergeKind::IntermediateCommit)
        .await?;
    let newest = show
        .delete(&snapshots[2], v1::MergeKind::ActiveCommit)
        .await?;
    show.draw("The chain after:").await?;
    let layers = show.api.chain(show.vm, DISK).await?.layers.len();
    let held = place.check(&rig, &[middle, newest], layers).await?;
    show.report.say(&held);
    show.check_list(&snapshots[0].0).await?;
    show.verify(&rig, &mut services).await?;
    if !keep {
        return Ok(None);
    }
    rig.virsh().call(&["start", &show.guest.spec.name])?;
    services.start()?;
    show.api.wait_for_vm(show.vm, pace.limit).await?;
    show.report.say("\nThe guest writes again.");
    show.report.say(&by_hand(&services, &show.guest, &rig));
    Ok(Some(Kept {
        _guest: show.guest,
        _services: services,
        _rig: rig,
        _place: place,
    }))
}

/// Boots the same guest and starts both services on their default ports, for whoever wants to try
/// them by hand.
pub async fn play() -> Result<Kept> {
    let mut report = Report::begin();
    let rig = Rig::new()?;
    let mut services = Services::new(&rig, Reach::Default)?;
    report.say("A Linux guest boots on QEMU and writes numbered records, each with fsync.");
    let guest = boot(&rig, &Place::Files, ON_FILES).await?;
    services.start()?;
    let mut api = Api::at(&services.api.endpoint())?;
    api.wait_for_vm(guest.spec.uuid, ON_FILES.limit).await?;
    report.say(&by_hand(&services, &guest, &rig));
    Ok(Kept {
        _guest: guest,
        _services: services,
        _rig: rig,
        _place: Place::Files,
    })
}

/// Where services on their default ports are found, and what to try.
fn by_hand(services: &Services, guest: &Guest, rig: &Rig) -> String {
    format!(
        "API server on {}, its console on http://{CONSOLE}, host agent on {}, virtual machine {:?}, images in {}.\n\
         Try `livemerge vm chain {}`. Ctrl-C ends all of it.",
        services.api.endpoint(),
        services.agent.endpoint(),
        guest.spec.name,
        rig.images().display(),
        guest.spec.name,
    )
}

/// A snapshot's id and name.
type Named = (String, &'static str);

struct Show {
    api: Api,
    vm: Uuid,
    guest: Guest,
    report: Report,
    pace: Pace,
}

async fn boot(rig: &Rig, place: &Place, pace: Pace) -> Result<Guest> {
    let disk = place.disk(rig, "demo", DISK, DISK_BYTES).await?;
    let guest = rig.boot(rig.describe_with("demo", vec![disk], pace.workload)?)?;
    guest.acks.wait_for(DISK, 100, pace.limit).await?;
    guest.acks.wait_for_fill(DISK, pace.limit).await?;
    Ok(guest)
}

impl Show {
    async fn create_snapshots(&mut self) -> Result<Vec<Named>> {
        let mut all = Vec::new();
        for name in ["monday", "tuesday", "wednesday"] {
            let id = self.api.snapshot(self.vm, name).await?;
            self.report.step(&format!("snapshot {name} taken"));
            self.guest
                .acks
                .wait_for_more(DISK, self.pace.records_between, self.pace.limit)
                .await?;
            self.report.pass();
            all.push((id, name));
        }
        Ok(all)
    }

    /// Deletes a snapshot and gives the image that must be gone.
    async fn delete(&mut self, (id, name): &Named, kind: v1::MergeKind) -> Result<PathBuf> {
        let how = match kind {
            v1::MergeKind::ActiveCommit => "active commit with pivot",
            _ => "intermediate commit",
        };
        self.report.say(&format!(
            "Deleting snapshot {name} ({how}) while the guest writes:"
        ));
        let chain = self.api.chain(self.vm, DISK).await?;
        let mark = self.guest.acks.mark();
        let accepted = self.api.delete(id).await?;
        let ended = progress::follow(&mut self.api, &accepted, self.pace.limit).await?;
        let acks = &self.guest.acks;
        acks.wait_for_more(DISK, 20, self.pace.limit).await?;
        let stall = self.guest.acks.longest_gap_since(DISK, mark);
        let disk = ended.disks.first().context("the operation has no disk")?;
        ensure!(
            disk.kind() == kind,
            "expected {kind:?}, got {:?}",
            disk.kind()
        );
        self.report.deleted(how, &ended, stall);
        let gone = disk
            .removed
            .first()
            .context("the operation names no removed volume")?;
        let layer = chain
            .layers
            .iter()
            .find(|layer| layer.volume.as_ref() == Some(gone));
        Ok(PathBuf::from(
            &layer
                .context("the removed volume was not in the chain")?
                .locator,
        ))
    }

    async fn draw(&mut self, title: &str) -> Result<()> {
        let chain = self.api.chain(self.vm, DISK).await?;
        let snapshots = self.api.list(self.vm).await?;
        self.report.say(title);
        let drawn = livemerge_cli::chain::draw(&chain, &snapshots);
        drawn
            .lines()
            .for_each(|line| self.report.say(&format!("  {line}")));
        Ok(())
    }

    async fn check_list(&mut self, left: &str) -> Result<()> {
        let snapshots = self.api.list(self.vm).await?;
        let ids: Vec<&str> = snapshots
            .iter()
            .map(|snapshot| snapshot.id.as_str())
            .collect();
        ensure!(ids == [left], "snapshots left: {ids:?}");
        Ok(())
    }

    /// Turns the guest off and compares what is in the disk with what it was told is there.
    async fn verify(&mut self, rig: &Rig, services: &mut Services) -> Result<()> {
        let chain = self.api.chain(self.vm, DISK).await?;
        let active = chain
            .layers
            .last()
            .context("the chain is empty")?
            .locator
            .clone();
        self.report.pass();
        services.agent.stop()?;
        services.api.stop()?;
        rig.virsh().power_off(&self.guest.spec.name)?;
        self.guest.acks.catch_up().await?;
        self.report.step("guest shut down");
        let acknowledged = self.guest.acks.acknowledged(DISK);
        let verdict = oracle::verify(DISK, active.as_ref(), SLOTS, &acknowledged)?;
        self.report.step("records compared with the disk");
        let errors = self.guest.acks.errors(DISK);
        let stall = self.guest.acks.longest_gap(DISK);
        self.report
            .end(&verdict, self.guest.acks.count(DISK), errors, stall)
    }
}

//! Stands between the services and what they work with, for a [`Stage`].

use std::sync::Arc;

use futures::FutureExt as _;
use livemerge_api_server::store::Store;
use livemerge_host_agent::hypervisor::fake::FakeHypervisor;
use livemerge_host_agent::hypervisor::{Hypervisor, VmView};
use livemerge_storage::VolumeName;
use tonic::async_trait;

use super::fault::{Fault, Site};
use super::host::Host;
use super::record::Record;
use super::stage::{self, Stage};
use crate::cluster::{Between, Upset, Who};

/// Hands everything that passes to the stage.
pub struct Backstage {
    /// The stage.
    pub stage: Arc<Stage>,
    /// The machine and how to look at it, once there is one.
    pub witness: std::sync::OnceLock<Witness>,
}

/// Who can tell whether a volume is needed.
pub struct Witness {
    /// Its host.
    pub hypervisor: FakeHypervisor,
}

#[async_trait]
impl Between for Backstage {
    fn thread_starts(&self, who: Who) {
        stage::enter(&self.stage, who);
    }

    fn hypervisor(&self, real: FakeHypervisor) -> Arc<dyn Hypervisor> {
        Arc::new(Host::new(real, Arc::clone(&self.stage)))
    }

    fn store(&self, real: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(Record::new(real, Arc::clone(&self.stage)))
    }

    fn rpc(&self, at: Who, method: &str) -> Option<Upset> {
        let site = match (at, method) {
            (Who::Agent, "GetVolumeChain") => "rpc::GetVolumeChain",
            (Who::Agent, "CreateOverlays") => "rpc::CreateOverlays",
            (Who::Agent, "StartMerge") => "rpc::StartMerge",
            (Who::Agent, "RemoveVolume") => "rpc::RemoveVolume",
            (Who::Agent, "PlanMerge") => "rpc::PlanMerge",
            (Who::Agent, "CancelMerge") => "rpc::CancelMerge",
            (Who::Agent, "SetMergeBandwidth") => "rpc::SetMergeBandwidth",
            (Who::Server, "CreateSnapshot") => "rpc::CreateSnapshot",
            (Who::Server, "DeleteSnapshot") => "rpc::DeleteSnapshot",
            (Who::Server, "BatchDeleteSnapshots") => "rpc::BatchDeleteSnapshots",
            (Who::Server, "CancelOperation") => "rpc::CancelOperation",
            (Who::Server, "UpdateOperation") => "rpc::UpdateOperation",
            _ => return None,
        };
        upset(&self.stage, site)
    }

    fn storage(&self, call: &'static str) -> Option<Upset> {
        let site = match call {
            "create" => "storage::create",
            "stat" => "storage::stat",
            "list" => "storage::list",
            "remove" => "storage::remove",
            _ => return None,
        };
        upset(&self.stage, site)
    }

    /// Nothing may need a volume when it goes: no machine, and no snapshot of the record.
    async fn removing(&self, volume: &VolumeName) {
        let Some(witness) = self.witness.get() else {
            return;
        };
        let named = |text: &dyn ToString| text.to_string().ends_with(volume.as_str());
        let machines = witness.hypervisor.vms().now_or_never();
        for view in machines.into_iter().flatten().flatten() {
            if names(&view, &named) {
                let text = format!("{volume} was removed while {} names it", view.name);
                self.stage.violated(text);
            }
        }
        for snapshot in self.stage.record() {
            let mut volumes = snapshot.disks.iter().map(|disk| &disk.volume);
            if volumes.any(|named| named.name == *volume) {
                let name = snapshot.name;
                let text = format!("{volume} was removed while snapshot {name} names it");
                self.stage.violated(text);
            }
        }
    }
}

fn names(view: &VmView, named: &dyn Fn(&dyn ToString) -> bool) -> bool {
    view.disks.iter().any(|disk| {
        let mut layers = disk.chain.iter();
        layers.any(|layer| named(&layer.locator))
            || disk.next_start.as_ref().is_some_and(|next| named(next))
    })
}

/// What goes wrong with a call at a site.
pub(super) fn upset(stage: &Stage, site: Site) -> Option<Upset> {
    match stage.pass(site)? {
        Fault::Upset(upset) => Some(upset),
        _ => None,
    }
}

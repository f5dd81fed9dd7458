//! What merges would cost beside those that are under way.

use super::Merges;
use super::plan::{DiskPlan, DiskRange, plan};
use super::room::{Elsewhere, Promise, Room};
use livemerge_proto::ids::VmId;
use livemerge_proto::problem::Problem;
use livemerge_storage::StorageId;

impl Merges {
    /// Room in the storage domains beside what the open merges were promised, here and elsewhere.
    pub(super) fn room(&self, elsewhere: Vec<Elsewhere>) -> Room {
        let views = self.watch();
        let open = views
            .borrow()
            .values()
            .filter_map(|view| Promise::open(&view.record))
            .collect();
        Room::beside(open, elsewhere)
    }

    /// Bytes of a storage domain that open merges were promised and have not taken.
    pub async fn promised(&self, storage: &StorageId) -> u64 {
        self.room(vec![]).promised(storage, &self.volumes).await
    }

    /// Plans merges of some disks of a machine, see [`plan::plan`].
    ///
    /// # Errors
    /// When something that a range names is not there, or something did not answer.
    pub async fn plan(
        &self,
        vm: VmId,
        ranges: Vec<DiskRange>,
        elsewhere: Vec<Elsewhere>,
    ) -> Result<Vec<DiskPlan>, Problem> {
        let hypervisor = self.around.hypervisor.as_ref();
        let room = self.room(elsewhere);
        plan(vm, ranges, hypervisor, &self.volumes, room).await
    }
}

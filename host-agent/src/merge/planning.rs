//! What merges would cost beside those that are under way.

use super::Merges;
use super::elsewhere::Elsewhere;
use super::plan::{DiskPlan, DiskRange, plan};
use super::room::{Promise, Room, given_before};
use livemerge_proto::ids::VmId;
use livemerge_proto::problem::Problem;
use livemerge_storage::StorageId;

impl Merges {
    /// Room in the storage domains beside what the open merges were promised, here and elsewhere.
    pub(super) fn room(&self, elsewhere: Vec<Elsewhere>) -> Room {
        let views = self.watch().borrow().clone();
        let open = views
            .values()
            .filter_map(|view| Promise::open(&view.record));
        let given = given_before(views.values().map(|view| &view.record));
        Room::beside(open.collect(), elsewhere).given(given)
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

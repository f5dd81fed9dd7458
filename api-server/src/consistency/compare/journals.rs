//! Files of agents' journals that were damaged: merges with which nobody goes on.

use crate::consistency::finding::{Finding, Kind, Remedy};
use crate::consistency::seen::Seen;
use crate::snapshot::Severity;
use livemerge_proto::ids::HostId;

/// What the file was about is in its name alone, which is the merge's id: the machine and the disk
/// are not known any more.
pub(super) fn find(seen: &Seen) -> Vec<Finding> {
    let known = seen.known();
    let files = known.flat_map(|(host, here)| here.journals.iter().map(move |file| (host, file)));
    files.map(|(host, file)| damaged(host, file)).collect()
}

fn damaged(host: &HostId, file: &str) -> Finding {
    let text =
        format!("the agent of host {host} has set a damaged journal of a merge aside as {file}");
    let todo = "see on the host whether its block job is left (`virsh blockjob VM DISK`) and end it \
                with `--abort`, or with `--pivot` when it is ready; delete the snapshot again; then \
                move the file away";
    let remedy = Remedy::Nothing(todo.to_owned());
    Finding::new(Kind::JournalDamaged, Severity::Error, text, remedy)
        .on([host.clone()])
        .of_file(file)
}

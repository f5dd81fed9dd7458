//! `livemerge snapshot plan`

use super::selection;
use crate::args::{MergeArgs, PlanArgs};
use crate::connect::Session;
use crate::failure::Failure;
use crate::output::{Format, Output, PlanDocument, Stop};
use crate::{forecast, resolve};
use livemerge_proto::v1;

pub(super) async fn run(session: &Session, output: Output, args: PlanArgs) -> Result<(), Stop> {
    let names = selection::distinct(&args.which.snapshots)?;
    let of = args.which.vm.as_deref();
    let ids = match names.as_slice() {
        [name] => vec![resolve::snapshot(session, name, of).await?],
        several => match resolve::several(session, several, of, false).await? {
            Some(found) => found.snapshot_ids,
            None => Vec::new(),
        },
    };
    show(session, output, ids, &args.merge).await
}

/// Shows what a delete of these would do; that it would be refused is this command's failure, too.
pub(super) async fn show(
    session: &Session,
    output: Output,
    snapshot_ids: Vec<String>,
    merge: &MergeArgs,
) -> Result<(), Stop> {
    let mut client = session.snapshots();
    let request = v1::PlanDeleteSnapshotRequest {
        snapshot_ids,
        options: merge.options(),
    };
    let plan = session
        .call(request, async |r| client.plan_delete_snapshot(r).await)
        .await?;
    let written = match output.format() {
        Format::Json => output.json(&PlanDocument::from(&plan)),
        Format::Table => output.text(&forecast::draw(&plan)),
    };
    // Whoever reads may be gone; what is in the way counts all the same.
    if plan.blockers.is_empty() {
        written
    } else {
        Err(Failure::blocked(&plan.blockers).into())
    }
}

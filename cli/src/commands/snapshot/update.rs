//! `livemerge snapshot update`

use super::find;
use crate::args::UpdateArgs;
use crate::connect::Session;
use crate::failure::Failure;
use crate::output::{Output, Stop};
use livemerge_proto::v1;

pub(super) async fn run(session: &Session, output: Output, args: UpdateArgs) -> Result<(), Stop> {
    let labels = args.all_labels();
    let deletion_protected = args.protection();
    let request = v1::UpdateSnapshotRequest {
        request_id: session.request_id(),
        snapshot_id: find(session, &args.which).await?,
        etag: args.etag,
        name: args.name,
        description: args.description,
        labels,
        deletion_protected,
    };
    let mut client = session.snapshots();
    let answer = session
        .mutate(request, async |r| client.update_snapshot(r).await)
        .await?;
    let snapshot = answer
        .snapshot
        .ok_or_else(|| Failure::incomplete("snapshot"))?;
    output.one(&snapshot)
}

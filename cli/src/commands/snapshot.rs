//! `livemerge snapshot`

use super::operation;
use crate::args::{CreateArgs, DeleteArgs, SnapshotArgs, SnapshotCommand};
use crate::connect::Session;
use crate::failure::Failure;
use crate::output::{Format, Output, Stop};
use crate::resolve;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;

pub(super) async fn run(
    session: &Session,
    output: Output,
    command: SnapshotCommand,
) -> Result<(), Stop> {
    match command {
        SnapshotCommand::Create(args) => create(session, output, args).await,
        SnapshotCommand::Get(which) => output.one(&get(session, &which).await?),
        SnapshotCommand::List { vm } => output.list(&list(session, &vm).await?),
        SnapshotCommand::Delete(args) => delete(session, output, args).await,
    }
}

async fn create(session: &Session, output: Output, args: CreateArgs) -> Result<(), Stop> {
    let mut client = session.snapshots();
    let request = v1::CreateSnapshotRequest {
        request_id: session.request_id(),
        vm_id: resolve::vm(session, &args.vm).await?,
        name: args.name,
        description: args.description,
    };
    let answer = session
        .mutate(request, async |r| client.create_snapshot(r).await)
        .await?;
    let accepted = answer
        .operation
        .ok_or_else(|| Failure::incomplete("operation"))?;
    operation::accepted(session, output, accepted, args.wait).await
}

async fn delete(session: &Session, output: Output, args: DeleteArgs) -> Result<(), Stop> {
    let snapshot_id = match find(session, &args.which).await {
        Err(failure) if args.allow_missing && failure.has_reason(Reason::SnapshotNotFound) => {
            return nothing_to_delete(output);
        }
        found => found?,
    };
    let mut client = session.snapshots();
    let request = v1::DeleteSnapshotRequest {
        request_id: session.request_id(),
        snapshot_id,
        etag: args.etag,
        allow_missing: args.allow_missing,
    };
    let answer = session
        .mutate(request, async |r| client.delete_snapshot(r).await)
        .await?;
    match answer.operation {
        Some(accepted) => operation::accepted(session, output, accepted, args.wait).await,
        None if args.allow_missing => nothing_to_delete(output),
        None => Err(Failure::incomplete("operation").into()),
    }
}

fn nothing_to_delete(output: Output) -> Result<(), Stop> {
    match output.format() {
        Format::Json => output.json(&()),
        Format::Table => output.text("no such snapshot: nothing to delete"),
    }
}

async fn get(session: &Session, which: &SnapshotArgs) -> Result<v1::Snapshot, Failure> {
    let mut client = session.snapshots();
    let request = v1::GetSnapshotRequest {
        snapshot_id: find(session, which).await?,
    };
    let answer = session
        .call(request, async |r| client.get_snapshot(r).await)
        .await?;
    answer
        .snapshot
        .ok_or_else(|| Failure::incomplete("snapshot"))
}

async fn list(session: &Session, vm: &str) -> Result<Vec<v1::Snapshot>, Failure> {
    let vm_id = match vm {
        resolve::EVERY_VM => vm.to_owned(),
        one => resolve::vm(session, one).await?,
    };
    resolve::snapshots(session, &vm_id).await
}

async fn find(session: &Session, which: &SnapshotArgs) -> Result<String, Failure> {
    resolve::snapshot(session, &which.snapshot, which.vm.as_deref()).await
}

//! `livemerge snapshot`

mod delete;
mod plan;
mod selection;
mod update;

use super::operation;
use crate::args::{CreateArgs, SnapshotArgs, SnapshotCommand};
use crate::connect::Session;
use crate::failure::Failure;
use crate::output::{Output, Stop};
use crate::resolve;
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
        SnapshotCommand::Update(args) => update::run(session, output, args).await,
        SnapshotCommand::Delete(args) => delete::run(session, output, args).await,
        SnapshotCommand::Plan(args) => plan::run(session, output, args).await,
    }
}

async fn create(session: &Session, output: Output, args: CreateArgs) -> Result<(), Stop> {
    let mut client = session.snapshots();
    let request = v1::CreateSnapshotRequest {
        request_id: session.request_id(),
        vm_id: resolve::vm(session, &args.vm).await?,
        name: args.name,
        description: args.description,
        labels: args.labels.into_iter().collect(),
        deletion_protected: args.protect,
        quiesce: v1::Quiesce::from(args.quiesce).into(),
    };
    let answer = session
        .mutate(request, async |r| client.create_snapshot(r).await)
        .await?;
    let accepted = answer
        .operation
        .ok_or_else(|| Failure::incomplete("operation"))?;
    operation::accepted(session, output, accepted, args.wait).await
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

//! `livemerge snapshot delete`
//!
//! ```text
//!   one ─────────────────────────────────────────────▶ DeleteSnapshot
//!   several ─▶ of one machine? ──────────────────────▶ BatchDeleteSnapshots
//!   --all, --older-than ─▶ list ─▶ show ─▶ confirm? ─▶ BatchDeleteSnapshots
//!   --dry-run: PlanDeleteSnapshot instead of any
//! ```

use super::super::operation;
use super::plan;
use super::selection::{self, Selection};
use crate::args::{Age, DeleteArgs};
use crate::connect::Session;
use crate::failure::{Exit, Failure};
use crate::output::{Format, Output, Stop};
use crate::resolve::{self, Several};
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;

pub(super) async fn run(session: &Session, output: Output, args: DeleteArgs) -> Result<(), Stop> {
    let wanted = match (&args.vm, args.which.older_than) {
        (Some(vm), older_than) if args.which.all || older_than.is_some() => {
            chosen(session, vm, older_than, &args).await?
        }
        _ => named(session, &args).await?,
    };
    match wanted {
        Wanted::Nothing(why) => nothing(output, why),
        Wanted::One(id) if args.dry_run => plan::show(session, output, vec![id], &args.merge).await,
        Wanted::Several(Several { snapshot_ids, .. }) if args.dry_run => {
            plan::show(session, output, snapshot_ids, &args.merge).await
        }
        Wanted::One(id) => {
            let accepted = one(session, id, &args).await?;
            follow(session, output, accepted, &args).await
        }
        Wanted::Several(several) => {
            let accepted = batch(session, several, &args).await?;
            follow(session, output, accepted, &args).await
        }
    }
}

enum Wanted {
    Nothing(&'static str),
    One(String),
    Several(Several),
}

const MISSING: &str = "no such snapshot: nothing to delete";

/// The snapshots that the command line names.
async fn named(session: &Session, args: &DeleteArgs) -> Result<Wanted, Failure> {
    let names = selection::distinct(&args.which.snapshots)?;
    let of = args.vm.as_deref();
    if let [name] = names.as_slice() {
        return match resolve::snapshot(session, name, of).await {
            Err(failure) if args.allow_missing && failure.has_reason(Reason::SnapshotNotFound) => {
                Ok(Wanted::Nothing(MISSING))
            }
            found => Ok(Wanted::One(found?)),
        };
    }
    if !args.etag.is_empty() {
        let message = "--etag is for one snapshot: each has its own";
        return Err(Failure::new(Exit::Usage, message));
    }
    let several = resolve::several(session, &names, of, args.allow_missing).await?;
    Ok(several.map_or(Wanted::Nothing(MISSING), |mut several| {
        match several.snapshot_ids.as_mut_slice() {
            [one] => Wanted::One(std::mem::take(one)),
            _ => Wanted::Several(several),
        }
    }))
}

/// The snapshots that `--all` or `--older-than` mean, once a person has agreed.
async fn chosen(
    session: &Session,
    vm: &str,
    older_than: Option<Age>,
    args: &DeleteArgs,
) -> Result<Wanted, Failure> {
    let before = older_than.map(selection::before).transpose()?;
    let vm_id = resolve::vm(session, vm).await?;
    let selected = Selection::of(session, &vm_id, before).await?;
    selection::say_passed_over(&selected);
    let chosen = selected.chosen;
    if chosen.is_empty() {
        return Ok(Wanted::Nothing(
            "no snapshot is selected: nothing to delete",
        ));
    }
    selection::say_chosen(&chosen);
    selection::not_too_many(chosen.len())?;
    if !args.yes && !args.dry_run {
        selection::confirm(chosen.len()).await?;
    }
    let snapshot_ids = chosen.into_iter().map(|snapshot| snapshot.id).collect();
    Ok(Wanted::Several(Several {
        vm_id,
        snapshot_ids,
    }))
}

async fn one(
    session: &Session,
    snapshot_id: String,
    args: &DeleteArgs,
) -> Result<Option<v1::Operation>, Failure> {
    let mut client = session.snapshots();
    let request = v1::DeleteSnapshotRequest {
        request_id: session.request_id(),
        snapshot_id,
        etag: args.etag.clone(),
        allow_missing: args.allow_missing,
        options: args.merge.options(),
    };
    let answer = session
        .mutate(request, async |r| client.delete_snapshot(r).await)
        .await?;
    Ok(answer.operation)
}

async fn batch(
    session: &Session,
    several: Several,
    args: &DeleteArgs,
) -> Result<Option<v1::Operation>, Failure> {
    let mut client = session.snapshots();
    let request = v1::BatchDeleteSnapshotsRequest {
        request_id: session.request_id(),
        vm_id: several.vm_id,
        snapshot_ids: several.snapshot_ids,
        allow_missing: args.allow_missing,
        options: args.merge.options(),
    };
    let answer = session
        .mutate(request, async |r| client.batch_delete_snapshots(r).await)
        .await?;
    Ok(answer.operation)
}

async fn follow(
    session: &Session,
    output: Output,
    accepted: Option<v1::Operation>,
    args: &DeleteArgs,
) -> Result<(), Stop> {
    match accepted {
        Some(accepted) => operation::accepted(session, output, accepted, args.wait).await,
        None if args.allow_missing => nothing(output, MISSING),
        None => Err(Failure::incomplete("operation").into()),
    }
}

fn nothing(output: Output, why: &str) -> Result<(), Stop> {
    match output.format() {
        Format::Json => output.json(&()),
        Format::Table => output.text(why),
    }
}

//! Machines and snapshots by id or by name.
//!
//! A text in the form of a UUID is an id and goes to the server as it is. Anything else is a name,
//! which must fit exactly one thing.

use crate::connect::Session;
use crate::failure::{Exit, Failure};
use crate::page::{Page, read_all};
use livemerge_proto::ids::{SnapshotId, VmId};
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;

/// All machines, as the `vm_id` of ListSnapshots.
pub(crate) const EVERY_VM: &str = "-";

/// The machine's id.
///
/// # Errors
/// No such name, several of it, or the failure of the look-up.
pub(crate) async fn vm(session: &Session, id_or_name: &str) -> Result<String, Failure> {
    if id_or_name.parse::<VmId>().is_ok() {
        return Ok(id_or_name.to_owned());
    }
    let found = vms(session, "", id_or_name).await?;
    let candidates = found
        .into_iter()
        .map(|vm| (vm.id, format!("on host {}", vm.host_id)));
    let none = (
        Reason::VmNotFound,
        format!("no virtual machine is named {id_or_name}"),
    );
    the_only_one(id_or_name, candidates.collect(), none)
}

/// The id of the machine to filter by; empty for none.
///
/// # Errors
/// Those of [`vm`].
pub(crate) async fn vm_filter(
    session: &Session,
    id_or_name: Option<&str>,
) -> Result<String, Failure> {
    match id_or_name {
        Some(id_or_name) => vm(session, id_or_name).await,
        None => Ok(String::new()),
    }
}

/// The snapshot's id; with `of`, among that machine's snapshots only.
///
/// # Errors
/// No such name, several of it, or the failure of the look-up.
pub(crate) async fn snapshot(
    session: &Session,
    id_or_name: &str,
    of: Option<&str>,
) -> Result<String, Failure> {
    if id_or_name.parse::<SnapshotId>().is_ok() {
        return Ok(id_or_name.to_owned());
    }
    let vm_id = match of {
        Some(id_or_name) => vm(session, id_or_name).await?,
        None => EVERY_VM.to_owned(),
    };
    let mut found = snapshots(session, &vm_id).await?;
    found.retain(|snapshot| snapshot.name == id_or_name);
    let candidates = found
        .into_iter()
        .map(|found| (found.id, format!("of machine {}", found.vm_id)));
    let none = (
        Reason::SnapshotNotFound,
        format!("no snapshot is named {id_or_name}"),
    );
    the_only_one(id_or_name, candidates.collect(), none)
}

/// The machines of a host and a name; empty for any.
///
/// # Errors
/// Those of the calls.
pub(crate) async fn vms(
    session: &Session,
    host_id: &str,
    name: &str,
) -> Result<Vec<v1::Vm>, Failure> {
    let mut client = session.inventory();
    read_all(None, async |Page { size, token }| {
        let request = v1::ListVmsRequest {
            host_id: host_id.to_owned(),
            name: name.to_owned(),
            page_size: size,
            page_token: token,
        };
        let answer = session
            .call(request, async |r| client.list_vms(r).await)
            .await?;
        Ok((answer.vms, answer.next_page_token))
    })
    .await
}

/// The snapshots of a machine, oldest first.
///
/// # Errors
/// Those of the calls.
pub(crate) async fn snapshots(
    session: &Session,
    vm_id: &str,
) -> Result<Vec<v1::Snapshot>, Failure> {
    let mut client = session.snapshots();
    read_all(None, async |Page { size, token }| {
        let request = v1::ListSnapshotsRequest {
            vm_id: vm_id.to_owned(),
            page_size: size,
            page_token: token,
        };
        let answer = session
            .call(request, async |r| client.list_snapshots(r).await)
            .await?;
        Ok((answer.snapshots, answer.next_page_token))
    })
    .await
}

fn the_only_one(
    name: &str,
    candidates: Vec<(String, String)>,
    (reason, none): (Reason, String),
) -> Result<String, Failure> {
    match <[_; 1]>::try_from(candidates) {
        Ok([(id, _)]) => Ok(id),
        Err(none_at_all) if none_at_all.is_empty() => Err(Failure::of(reason, none)),
        Err(several) => {
            let message = format!("the name {name} fits {}; give the id of one", several.len());
            let ambiguous = Failure::new(Exit::InvalidArgument, message);
            Err(several.into_iter().fold(ambiguous, |failure, (id, what)| {
                failure.line("candidate", format!("{id} {what}"))
            }))
        }
    }
}

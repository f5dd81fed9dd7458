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
use std::collections::HashSet;

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
    if is_snapshot_id(id_or_name) {
        return Ok(id_or_name.to_owned());
    }
    let vm_id = match of {
        Some(id_or_name) => vm(session, id_or_name).await?,
        None => EVERY_VM.to_owned(),
    };
    id_among(&snapshots(session, &vm_id).await?, id_or_name)
}

/// The snapshot's id, which must be one of these if it is named.
fn id_among(known: &[v1::Snapshot], id_or_name: &str) -> Result<String, Failure> {
    if let Ok(id) = id_or_name.parse::<SnapshotId>() {
        return Ok(id.to_string());
    }
    let named = known.iter().filter(|found| found.name == id_or_name);
    let candidates = named.map(|found| (found.id.clone(), format!("of machine {}", found.vm_id)));
    let none = (
        Reason::SnapshotNotFound,
        format!("no snapshot is named {id_or_name}"),
    );
    the_only_one(id_or_name, candidates.collect(), none)
}

/// Snapshots of one machine.
#[derive(Debug)]
pub(crate) struct Several {
    /// The machine's id.
    pub(crate) vm_id: String,
    /// The snapshots' ids, none twice.
    pub(crate) snapshot_ids: Vec<String>,
}

/// Several snapshots, which must be of one machine: of this one, if any is given. With
/// `allow_missing`, names that fit nothing are left out; `None` when nothing is left.
///
/// Ids go to the server as they are, missing or not: a request that is repeated with the same id
/// must have the same payload, also when its snapshots are gone.
///
/// # Errors
/// Snapshots of several machines; those of [`snapshot`].
pub(crate) async fn several(
    session: &Session,
    ids_or_names: &[&str],
    of: Option<&str>,
    allow_missing: bool,
) -> Result<Option<Several>, Failure> {
    let vm_id = match of {
        Some(id_or_name) => Some(vm(session, id_or_name).await?),
        None => None,
    };
    let ids_only = ids_or_names.iter().all(|text| is_snapshot_id(text));
    let known = match &vm_id {
        Some(_) if ids_only => Vec::new(),
        Some(vm_id) => snapshots(session, vm_id).await?,
        None => snapshots(session, EVERY_VM).await?,
    };
    let mut ids = Vec::new();
    for text in ids_or_names {
        match id_among(&known, text) {
            Err(failure) if allow_missing && failure.has_reason(Reason::SnapshotNotFound) => {}
            found => ids.push(found?),
        }
    }
    let mut once = HashSet::new();
    ids.retain(|id| once.insert(id.clone()));
    let vm_id = match vm_id {
        Some(vm_id) => Some(vm_id),
        None => the_one_machine(&known, &ids)?,
    };
    match vm_id {
        Some(vm_id) if !ids.is_empty() => Ok(Some(Several {
            vm_id,
            snapshot_ids: ids,
        })),
        _ if allow_missing => Ok(None),
        _ => Err(Failure::of(
            Reason::SnapshotNotFound,
            "none of these snapshots exists",
        )),
    }
}

fn is_snapshot_id(text: &str) -> bool {
    text.parse::<SnapshotId>().is_ok()
}

/// The machine of those that are known.
fn the_one_machine(known: &[v1::Snapshot], ids: &[String]) -> Result<Option<String>, Failure> {
    let meant = known.iter().filter(|snapshot| ids.contains(&snapshot.id));
    let mut machines: Vec<&str> = meant.clone().map(|snapshot| &*snapshot.vm_id).collect();
    machines.sort_unstable();
    machines.dedup();
    if let [] | [_] = machines.as_slice() {
        return Ok(machines.first().map(|vm_id| (*vm_id).to_owned()));
    }
    let count = machines.len();
    let message = format!("the snapshots are of {count} machines; one delete is of one machine");
    let failure = Failure::new(Exit::InvalidArgument, message);
    Err(machines.into_iter().fold(failure, |failure, vm_id| {
        let of_it = meant.clone().filter(|snapshot| snapshot.vm_id == vm_id);
        let names: Vec<&str> = of_it.map(|snapshot| &*snapshot.name).collect();
        failure.line("machine", format!("{vm_id} has {}", names.join(", ")))
    }))
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

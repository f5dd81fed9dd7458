//! `livemerge volume`

use crate::args::{RemovedArgs, RestoreArgs, StoragesArgs, VolumeCommand};
use crate::connect::Session;
use crate::failure::Failure;
use crate::output::{Output, Stop};
use crate::page::{Page, read_all};
use livemerge_proto::v1;

pub(super) async fn run(
    session: &Session,
    output: Output,
    command: VolumeCommand,
) -> Result<(), Stop> {
    match command {
        VolumeCommand::Storages(args) => output.list(&storages(session, args).await?),
        VolumeCommand::Removed(args) => output.list(&removed(session, args).await?),
        VolumeCommand::Restore(args) => output.one(&restore(session, args).await?),
    }
}

pub(super) async fn removed(
    session: &Session,
    args: RemovedArgs,
) -> Result<Vec<v1::Removal>, Failure> {
    let storage = args.storage.unwrap_or_default();
    let mut client = session.inventory();
    let mut silent = Vec::new();
    let removals = read_all(None, async |Page { size, token }| {
        let request = v1::InventoryServiceListRemovalsRequest {
            storage: storage.clone(),
            page_size: size,
            page_token: token,
        };
        let answer = session
            .call(request, async |r| client.list_removals(r).await)
            .await?;
        silent = answer.silent_host_ids;
        Ok((answer.removals, answer.next_page_token))
    })
    .await?;
    tell_silent(&silent);
    Ok(removals)
}

pub(super) async fn storages(
    session: &Session,
    args: StoragesArgs,
) -> Result<Vec<v1::HostStorage>, Failure> {
    let host = args.host.unwrap_or_default();
    let mut client = session.inventory();
    let mut silent = Vec::new();
    let storages = read_all(None, async |Page { size, token }| {
        let request = v1::InventoryServiceListStoragesRequest {
            host_id: host.clone(),
            page_size: size,
            page_token: token,
        };
        let answer = session
            .call(request, async |r| client.list_storages(r).await)
            .await?;
        silent = answer.silent_host_ids;
        Ok((answer.storages, answer.next_page_token))
    })
    .await?;
    tell_silent(&silent);
    Ok(storages)
}

fn tell_silent(hosts: &[String]) {
    for host in hosts {
        let host = host.escape_debug();
        eprintln!("host {host} does not answer: what it alone sees is not listed");
    }
}

async fn restore(session: &Session, args: RestoreArgs) -> Result<v1::VolumeRef, Failure> {
    let mut client = session.inventory();
    let request = v1::InventoryServiceRestoreVolumeRequest {
        request_id: session.request_id(),
        storage: args.storage,
        removal_id: args.removal,
    };
    let answer = session
        .mutate(request, async |r| client.restore_volume(r).await)
        .await?;
    answer.volume.ok_or_else(|| Failure::incomplete("volume"))
}

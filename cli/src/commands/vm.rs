//! `livemerge vm`

use crate::args::VmCommand;
use crate::chain;
use crate::connect::Session;
use crate::failure::Failure;
use crate::output::{ChainDocument, Format, Output, Stop};
use crate::resolve;
use livemerge_proto::v1;

pub(super) async fn run(session: &Session, output: Output, command: VmCommand) -> Result<(), Stop> {
    match command {
        VmCommand::List { host } => {
            output.list(&resolve::vms(session, host.as_deref().unwrap_or_default(), "").await?)
        }
        VmCommand::Get { vm } => output.one(&get(session, &vm).await?),
        VmCommand::Chain { vm, disk } => {
            let vm_id = resolve::vm(session, &vm).await?;
            let chains = chains(session, &vm_id, disk.unwrap_or_default()).await?;
            let snapshots = resolve::snapshots(session, &vm_id).await?;
            show_chains(output, &chains, &snapshots)
        }
    }
}

async fn get(session: &Session, id_or_name: &str) -> Result<v1::Vm, Failure> {
    let vm_id = resolve::vm(session, id_or_name).await?;
    let mut client = session.inventory();
    let request = v1::GetVmRequest { vm_id };
    let answer = session
        .call(request, async |r| client.get_vm(r).await)
        .await?;
    answer
        .vm
        .ok_or_else(|| Failure::incomplete("virtual machine"))
}

async fn chains(
    session: &Session,
    vm_id: &str,
    disk: String,
) -> Result<Vec<v1::VolumeChain>, Failure> {
    let mut client = session.inventory();
    let request = v1::GetVolumeChainRequest {
        vm_id: vm_id.to_owned(),
        disk,
    };
    let answer = session
        .call(request, async |r| client.get_volume_chain(r).await)
        .await?;
    Ok(answer.chains)
}

fn show_chains(
    output: Output,
    chains: &[v1::VolumeChain],
    snapshots: &[v1::Snapshot],
) -> Result<(), Stop> {
    match output.format() {
        Format::Json => {
            let documents = chains
                .iter()
                .map(|chain| ChainDocument::new(chain, snapshots));
            output.json(&documents.collect::<Vec<_>>())
        }
        Format::Table => {
            let drawn: Vec<String> = chains
                .iter()
                .map(|chain| chain::draw(chain, snapshots))
                .collect();
            output.text(&drawn.join("\n\n"))
        }
    }
}

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
            let answer = chains(session, &vm_id, disk.unwrap_or_default()).await?;
            let snapshots = resolve::snapshots(session, &vm_id).await?;
            show_chains(output, &vm_id, &answer, &snapshots)
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
) -> Result<v1::GetVolumeChainResponse, Failure> {
    let mut client = session.inventory();
    let request = v1::GetVolumeChainRequest {
        vm_id: vm_id.to_owned(),
        disk,
    };
    session
        .call(request, async |r| client.get_volume_chain(r).await)
        .await
}

fn show_chains(
    output: Output,
    vm_id: &str,
    answer: &v1::GetVolumeChainResponse,
    snapshots: &[v1::Snapshot],
) -> Result<(), Stop> {
    match output.format() {
        Format::Json => {
            let chains = answer.chains.iter();
            let chains = chains.map(|chain| ChainDocument::new(chain, snapshots));
            let others = answer.unsupported_disks.iter();
            let others = others.map(|disk| ChainDocument::unsupported(vm_id, disk));
            output.json(&chains.chain(others).collect::<Vec<_>>())
        }
        Format::Table => {
            let chains = answer.chains.iter();
            let chains = chains.map(|chain| chain::draw(chain, snapshots));
            let others = answer.unsupported_disks.iter().map(chain::unsupported);
            let drawn: Vec<String> = chains.chain(others).collect();
            output.text(&drawn.join("\n\n"))
        }
    }
}

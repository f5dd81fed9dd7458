//! `livemerge doctor`

use crate::args::DoctorArgs;
use crate::connect::Session;
use crate::failure::{Exit, Failure};
use crate::output::{Format, Output, Repaired, Stop};
use crate::resolve;
use livemerge_proto::v1;
use std::io::{self, Write as _};

pub(super) async fn run(session: &Session, output: Output, args: DoctorArgs) -> Result<(), Stop> {
    match args.repair {
        Some(finding_id) => repair(session, output, finding_id).await,
        None => check(session, output, args.vm.as_deref(), args.host).await,
    }
}

async fn check(
    session: &Session,
    output: Output,
    vm: Option<&str>,
    host: Option<String>,
) -> Result<(), Stop> {
    let request = v1::CheckConsistencyRequest {
        vm_id: resolve::vm_filter(session, vm).await?,
        host_id: host.unwrap_or_default(),
    };
    let mut client = session.inventory();
    let answer = session
        .call(request, async |r| client.check_consistency(r).await)
        .await?;
    let written = show(output, &answer);
    // Whoever reads may be gone; what is wrong counts all the same.
    sound(&answer)?;
    written
}

fn show(output: Output, answer: &v1::CheckConsistencyResponse) -> Result<(), Stop> {
    if answer.omitted_findings > 0 {
        let more = answer.omitted_findings;
        let _unread = writeln!(io::stderr(), "{more} more findings are not shown");
    }
    match output.format() {
        Format::Table if answer.findings.is_empty() => output.text("nothing differs"),
        _ => output.list(&answer.findings),
    }
}

/// The gravest findings come first, so none that is left out is an error unless one is shown.
fn sound(answer: &v1::CheckConsistencyResponse) -> Result<(), Stop> {
    let errors = answer.findings.iter();
    let errors = errors.filter(|finding| finding.severity() == v1::FindingSeverity::Error);
    match errors.count() {
        0 => Ok(()),
        1 => Err(wrong("1 finding is an error").into()),
        more => Err(wrong(&format!("{more} findings are errors")).into()),
    }
}

fn wrong(what: &str) -> Failure {
    let hint = "`livemerge doctor --repair FINDING` applies the repair that a finding names";
    Failure::new(Exit::Unsuccessful, what).hint(hint)
}

async fn repair(session: &Session, output: Output, finding_id: String) -> Result<(), Stop> {
    let request = v1::ApplyRepairRequest {
        request_id: session.request_id(),
        finding_id: finding_id.clone(),
    };
    let mut client = session.inventory();
    let answer = session
        .mutate(request, async |r| client.apply_repair(r).await)
        .await?;
    output.one(&Repaired { finding_id, answer })
}

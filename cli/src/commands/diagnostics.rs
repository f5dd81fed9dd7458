//! `livemerge diagnostics`

use super::{event, host, operation, volume};
use crate::args::{DiagnosticsArgs, EventFilterArgs, RemovedArgs, StoragesArgs};
use crate::connect::Session;
use crate::diagnostics::{self, Bundle};
use crate::failure::{Exit, Failure};
use crate::output::{Listed, Output, Stop};
use crate::resolve;
use jiff::Timestamp;
use livemerge_proto::v1;
use serde_json::json;
use std::io;
use std::path::Path;

pub(super) async fn run(
    session: &Session,
    output: Output,
    args: DiagnosticsArgs,
) -> Result<(), Stop> {
    let path = args.file.clone();
    let unwritable = |error: io::Error| {
        let message = format!("cannot write {}: {error}", path.display());
        Failure::new(Exit::Unsuccessful, message)
    };
    let now = now();
    let mut bundle = Bundle::create(&path, now).map_err(unwritable)?;
    for (name, part) in parts(session, args, now).await {
        bundle.add(&name, part).map_err(unwritable)?;
    }
    let missing = bundle.finish().map_err(unwritable)?;
    let written = output.text(&path.display().to_string());
    match missing.len() {
        0 => written,
        some => {
            let message = format!("{some} parts are missing, as missing.txt in the archive says");
            let failure = Failure::new(Exit::Unsuccessful, message);
            let told = missing
                .into_iter()
                .fold(failure, |told, why| told.line("missing", why));
            Err(told.into())
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "when it was collected is told to whoever reads it"
)]
fn now() -> Timestamp {
    Timestamp::now()
}

type Part = (String, Result<Vec<u8>, String>);

async fn parts(session: &Session, args: DiagnosticsArgs, now: Timestamp) -> Vec<Part> {
    let about = json!({
        "collected_at": now.to_string(),
        "server": diagnostics::url(&session.server().to_string()),
        "livemerge": env!("CARGO_PKG_VERSION"),
    });
    let mut parts: Vec<Part> = vec![("about.json".to_owned(), pretty(&about))];
    let mut add = |name: &str, part| parts.push((name.to_owned(), part));
    add("hosts.json", listed(host::list(session).await));
    add("vms.json", listed(resolve::vms(session, "", "").await));
    let snapshots = resolve::snapshots(session, resolve::EVERY_VM).await;
    add("snapshots.json", listed(snapshots));
    let operations = operation::list(session, None, &[], Some(args.operations)).await;
    add("operations.json", listed(operations));
    let events = event::list(session, EventFilterArgs::default(), false, None).await;
    // The oldest come first.
    let events = events.map(|mut all| all.split_off(all.len().saturating_sub(args.events)));
    add("events.json", listed(events));
    add("findings.json", listed(findings(session).await));
    let storages = volume::storages(session, StoragesArgs::default()).await;
    add("storages.json", listed(storages));
    let removals = volume::removed(session, RemovedArgs::default()).await;
    add("removals.json", listed(removals));
    for (number, url) in args.metrics.iter().enumerate() {
        let found = diagnostics::metrics(url).await;
        add(&format!("metrics-{}.txt", number + 1), found);
    }
    for (number, path) in args.config.iter().enumerate() {
        add(&format!("config-{}.toml", number + 1), config(path));
    }
    parts
}

async fn findings(session: &Session) -> Result<Vec<v1::Finding>, Failure> {
    let mut client = session.inventory();
    let request = v1::CheckConsistencyRequest::default();
    let answer = session
        .call(request, async |r| client.check_consistency(r).await)
        .await?;
    Ok(answer.findings)
}

fn listed<T: Listed>(items: Result<Vec<T>, Failure>) -> Result<Vec<u8>, String> {
    let items = items.map_err(|failure| failure.message().to_owned())?;
    pretty(&items.iter().map(Listed::document).collect::<Vec<_>>())
}

fn pretty(document: &impl serde::Serialize) -> Result<Vec<u8>, String> {
    serde_json::to_vec_pretty(document).map_err(|error| error.to_string())
}

fn config(path: &Path) -> Result<Vec<u8>, String> {
    let named = |why: String| format!("{}: {why}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
    let shown = diagnostics::config(&text);
    let shown = shown.ok_or_else(|| named("is not TOML, so nothing of it is shown".to_owned()))?;
    Ok(shown.into_bytes())
}

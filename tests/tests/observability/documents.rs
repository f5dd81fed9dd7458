//! `docs/metrics.md` is made from the definitions in the code, and alerts and dashboard name no metric
//! and no label that there is not.

use anyhow::{Context as _, Result, ensure};
use livemerge_host_agent::hypervisor::fake::Pace;
use livemerge_runtime::metrics::{ClientMeter, Definition, MetricKind, Metrics};
use livemerge_runtime::{Server, ServerConfig};
use livemerge_tests::cluster::Cluster;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const INTRODUCTION: &str = "\
# Metrics

Made from the code by `make docs`; do not edit.

`metrics.listen` says where each program serves them ([operations.md](operations.md#metrics-and-traces)). Names are as in the text form;
of a histogram `_bucket`, `_sum` and `_count` follow. Counters begin with 0 at the start of a process. A metric without a value is
left out, as a histogram before its first one.

Values of labels are from closed lists: `code` is gRPC's, `reason` (and `outcome`, where something was refused) one of
[errors.md](errors.md), `service` and `method` are those that are served, and `_OTHER` for all else. Only `host` is as large as the number
of hosts that are registered.

| metric | of | kind | labels | what it says |
|---|---|---|---|---|
";

pub(super) fn workspace() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(own.parent().context("the workspace")?.to_owned())
}

/// Every metric with the programs that have it, by name.
async fn all() -> Result<BTreeMap<String, (Definition, Vec<&'static str>)>> {
    let cluster = Cluster::start(Pace::Manual).await?;
    let beside = |metrics: &Metrics| drop(Server::new(ServerConfig::default()).metered(metrics));
    beside(&cluster.server_metrics);
    beside(&cluster.agent_metrics);
    ClientMeter::default().publish(&cluster.agent_metrics);
    let of = [
        ("server", &cluster.server_metrics),
        ("agent", &cluster.agent_metrics),
    ];
    let mut all: BTreeMap<String, (Definition, Vec<&'static str>)> = BTreeMap::new();
    for (program, metrics) in of {
        for definition in metrics.defined() {
            let name = definition.exposed_name();
            let (known, programs) = all.entry(name).or_insert((definition, vec![]));
            ensure!(*known == definition, "{} has two meanings", known.name);
            ensure!(
                !programs.contains(&program),
                "{} is there twice",
                known.name
            );
            programs.push(program);
        }
    }
    Ok(all)
}

fn kind(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    }
}

#[tokio::test]
async fn the_document_of_the_metrics_is_the_code() -> Result<()> {
    let mut wanted = INTRODUCTION.to_owned();
    for (name, (definition, programs)) in all().await? {
        let of = match programs.as_slice() {
            [one] => one,
            _ => "both",
        };
        let labels: Vec<_> = definition
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let (kind, labels) = (kind(definition.kind), labels.join(", "));
        writeln!(
            wanted,
            "| `{name}` | {of} | {kind} | {labels} | {} |",
            definition.help
        )?;
    }
    let path = workspace()?.join("docs/metrics.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &wanted)?;
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, wanted, "run `make docs`");
    Ok(())
}

/// The words in a text that begin so.
fn words<'a>(text: &'a str, start: &str) -> BTreeSet<&'a str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter| !is_part(letter));
    words.filter(|word| word.starts_with(start)).collect()
}

#[tokio::test]
async fn alerts_and_dashboard_name_metrics_that_there_are() -> Result<()> {
    let all = all().await?;
    let mut samples: BTreeSet<String> = BTreeSet::new();
    for (name, (definition, _)) in &all {
        match definition.kind {
            MetricKind::Histogram => {
                samples.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
            }
            MetricKind::Counter | MetricKind::Gauge => {
                samples.insert(name.clone());
            }
        }
    }
    for file in ["alerts.yaml", "dashboard.json"] {
        let text = fs::read_to_string(workspace()?.join("deploy/observability").join(file))?;
        let named = words(&text, "livemerge_");
        ensure!(named.len() > 10, "{file} names {named:?}");
        let unknown: Vec<_> = named
            .iter()
            .filter(|name| !samples.contains(**name))
            .collect();
        assert_eq!(unknown, Vec::<&&str>::new(), "{file}");
    }
    Ok(())
}

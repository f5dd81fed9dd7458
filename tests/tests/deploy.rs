//! The configurations in `deploy/` are what the programs take: no unknown key, none left out, and the
//! defaults where they say so.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use livemerge_runtime::config::{self, to_toml};
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

fn deploy() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(own.parent().context("the workspace")?.join("deploy"))
}

/// A file as it stands, and with the keys that it only mentions: those behind a `#` without a blank.
fn forms(file: &str) -> Result<[String; 2]> {
    let text = fs::read_to_string(deploy()?.join("config").join(file))?;
    let whole = |line: &str| match line.strip_prefix('#') {
        Some(key) if !key.is_empty() && !key.starts_with(' ') => format!("{key}\n"),
        _ => format!("{line}\n"),
    };
    let mentioned = text.lines().map(whole).collect();
    Ok([text, mentioned])
}

/// Loads a text as the programs load a file, of which unknown keys are refused.
fn load<T: DeserializeOwned + Serialize + Default>(text: &str) -> Result<T> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), text)?;
    Ok(config::load(
        Some(file.path()),
        "LIVEMERGE_",
        [],
        Table::new(),
    )?)
}

/// What `--print-config` prints.
fn printed<T: Serialize>(config: &T) -> Result<Table> {
    Ok(to_toml(config)?.parse()?)
}

/// The keys of the first table that are not, or not the same, in the second one.
fn differences(one: &Table, other: &Table, same: fn(&Value, &Value) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (key, value) in one {
        match (value, other.get(key)) {
            (Value::Table(one), Some(Value::Table(other))) => {
                let below = differences(one, other, same);
                found.extend(below.into_iter().map(|below| format!("{key}.{below}")));
            }
            (value, Some(other)) if same(value, other) => {}
            _ => found.push(key.clone()),
        }
    }
    found
}

/// Looks whether a file has every key that there is. Returns those that are not as by default.
fn unlike_default<T: DeserializeOwned + Serialize + Default>(file: &str) -> Result<Vec<String>> {
    let [in_effect, mentioned] = forms(file)?;
    for text in [&in_effect, &mentioned] {
        let all = printed(&load::<T>(text)?)?;
        let left_out = differences(&all, &text.parse()?, |_, _| true);
        assert_eq!(left_out, Vec::<String>::new(), "{file} lacks keys");
    }
    let (default, own) = (printed(&T::default())?, in_effect.parse()?);
    assert_eq!(
        differences(&default, &own, |_, _| true),
        Vec::<String>::new()
    );
    Ok(differences(&own, &default, PartialEq::eq))
}

#[test]
fn the_example_of_the_server_has_every_key_and_its_own_where_it_says_so() -> Result<()> {
    let own = unlike_default::<livemerge_api_server::config::Config>("api-server.toml")?;
    assert_eq!(own, ["store.path"]);
    Ok(())
}

#[test]
fn the_example_of_the_agent_has_every_key_and_its_own_where_it_says_so() -> Result<()> {
    let own = unlike_default::<livemerge_host_agent::config::Config>("host-agent.toml")?;
    assert_eq!(own, ["host.id", "hypervisor.uri", "storage.default"]);
    Ok(())
}

#[test]
fn an_unknown_key_in_an_example_would_be_refused() -> Result<()> {
    let [text, _] = forms("api-server.toml")?;
    let refused =
        load::<livemerge_api_server::config::Config>(&text.replace("max_per_host", "max_pro_host"));
    assert!(format!("{:#}", refused.unwrap_err()).contains("max_pro_host"));
    Ok(())
}

/// The configurations of the pods in a directory of manifests.
fn of_pods(
    dir: &str,
) -> Result<(
    livemerge_api_server::config::Config,
    livemerge_host_agent::config::Config,
)> {
    let dir = deploy()?.join("kubernetes").join(dir);
    let read = |file| fs::read_to_string(dir.join(file));
    // In the pod its node says who it is.
    let agent = read("host-agent.toml")?.replace("[host]\n", "[host]\nid = 'node-1'\n");
    Ok((load(&read("api-server.toml")?)?, load(&agent)?))
}

#[test]
fn the_pods_show_certificates_and_ask_for_them() -> Result<()> {
    let (server, agent) = of_pods("base")?;
    server.check(false)?;
    agent.check(false)?;
    assert!(agent.host.server()?.is_some());
    Ok(())
}

#[test]
fn without_certificates_the_pods_start_only_where_that_is_said() -> Result<()> {
    let (server, agent) = of_pods("insecure")?;
    // Other pods reach neither of them on loopback.
    assert!(server.listen.admit(server.reach(false)).is_err());
    assert!(agent.listen.admit(agent.reach(false)).is_err());
    server.check(true)?;
    agent.check(true)?;
    let said = |dir: &str, file: &str| -> Result<bool> {
        let path = deploy()?.join("kubernetes").join(dir).join(file);
        Ok(fs::read_to_string(path)?.contains("--insecure"))
    };
    for file in ["api-server.yaml", "host-agent.yaml"] {
        assert_eq!(
            (said("base", file)?, said("insecure", file)?),
            (false, true)
        );
    }
    Ok(())
}

/// Whoever is let in has a certificate, and the names are those that are looked for.
#[test]
fn the_certificates_have_the_names_that_the_configurations_know() -> Result<()> {
    let dir = deploy()?.join("kubernetes");
    let certificates = fs::read_to_string(dir.join("cert-manager/certificates.yaml"))?;
    let listed = |prefix: &str| -> BTreeSet<String> {
        let items = certificates
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- "));
        let of_kind = items.filter(|item| item.starts_with(prefix));
        of_kind.map(str::to_owned).collect()
    };
    let (server, agent) = of_pods("base")?;
    let mut known = BTreeSet::new();
    for auth in [server.auth.as_ref(), agent.auth.as_ref()] {
        known.extend(auth.context("[auth]")?.subjects.keys().cloned());
    }
    // A viewer is known, and has no certificate until somebody wants one.
    let mut shown = listed("spiffe://");
    shown.insert("spiffe://livemerge/viewer".to_owned());
    assert_eq!(shown, known);
    let names = listed("livemerge-");
    let called = server.client.server_name.context("client.server_name")?;
    assert!(names.contains(&called), "{called}");
    let server_at = agent.host.api_server;
    assert!(
        names.iter().any(|name| server_at.contains(name)),
        "{server_at}"
    );
    Ok(())
}

#[test]
fn the_route_of_a_gateway_has_every_method_of_the_inventory_but_what_agents_call() -> Result<()> {
    let deploy = deploy()?;
    let route = fs::read_to_string(deploy.join("kubernetes/gateway/grpc-route.yaml"))?;
    let contract = "../proto/livemerge/v1/inventory_service.proto";
    let contract = fs::read_to_string(deploy.join(contract))?;
    let routed = |line: &str| Some(line.trim().strip_prefix("method: ")?.to_owned());
    let defined = |line: &str| {
        let (name, _) = line.trim().strip_prefix("rpc ")?.split_once('(')?;
        Some(name.to_owned())
    };
    let routed: BTreeSet<_> = route.lines().filter_map(routed).collect();
    let mut defined: BTreeSet<_> = contract.lines().filter_map(defined).collect();
    assert!(defined.remove("RegisterHost"));
    assert_eq!(routed, defined);
    Ok(())
}

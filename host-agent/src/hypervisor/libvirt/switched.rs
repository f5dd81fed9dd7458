//! Which of two images QEMU writes, where neither its locks nor libvirt tell.
//!
//! QEMU keeps the image that it has left open for writing until libvirt closes it. A libvirt that was
//! killed within a pivot never does, and the next one has lost the job, but may show it for ever. Whether
//! the guest was switched then stands nowhere but in QEMU, and QEMU is asked through its monitor. That
//! makes libvirt note `custom-monitor` in the machine's log, so it is asked for nothing else.

use livemerge_storage::{Locator, NbdAddress};
use serde_json::Value;
use virt::domain::Domain;

use super::identity::Identity;
use super::reading::definition;
use crate::hypervisor::DiskView;
use crate::hypervisor::ffi;

const ASK: &str = r#"{"execute":"query-block"}"#;

/// Completes what is known of a disk that shows a job which is not there. What cannot be told stays
/// unknown. Blocks.
pub(super) fn settle(domain: &Domain, disk: &mut DiskView) {
    let Some(mirror) = disk.mirror.as_mut().filter(|it| it.switched.is_none()) else {
        return;
    };
    let (Some(from), Some(to)) = (disk.chain.last(), &mirror.target) else {
        return;
    };
    if !matches!(ffi::block_job(domain, disk.target.as_str()), Ok(None)) {
        return;
    }
    // Its end may have been noticed between the two looks.
    let still = definition(domain, 0).is_ok_and(|now| {
        let mut disks = now.disks.iter();
        disks.any(|now| now.target == disk.target && now.mirror.is_some())
    });
    if !still {
        return;
    }
    let flags = virt_sys::VIR_DOMAIN_QEMU_MONITOR_COMMAND_DEFAULT;
    match domain.qemu_monitor_command(ASK, flags) {
        Ok(answer) => {
            mirror.switched = which(&answer, &from.locator, to);
            if mirror.switched.is_none() {
                tracing::warn!(disk = %disk.target, answer, "whether QEMU has switched cannot be told");
            }
        }
        Err(error) => tracing::warn!(%error, "QEMU does not say what it writes"),
    }
}

/// Whether a device is on the image `to`, and none on `from`. `None` when it is neither so nor the
/// other way round.
pub(in crate::hypervisor) fn which(answer: &str, from: &Locator, to: &Locator) -> Option<bool> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    let devices = answer.get("return")?.as_array()?;
    let files: Vec<Identity> = devices
        .iter()
        .filter_map(|device| device.pointer("/inserted/image/filename")?.as_str())
        .filter_map(locator)
        .filter_map(|locator| Identity::of(&locator).ok())
        .filter(|identity| *identity != Identity::Nothing)
        .collect();
    let has = |image: &Locator| Some(files.contains(&Identity::of(image).ok()?));
    match (has(from)?, has(to)?) {
        (false, true) => Some(true),
        (true, false) => Some(false),
        _ => None,
    }
}

/// What is behind a name as QEMU tells it: of an image whose header names another backing than it
/// has, or the same one in another way, it is a description of the whole chain; of an export with
/// options that no URI has, too.
fn locator(name: &str) -> Option<Locator> {
    let Some(description) = name.strip_prefix("json:") else {
        let export = name.parse::<NbdAddress>();
        return Some(export.map_or_else(
            |_| Locator::File(name.into()),
            |address| Locator::Nbd(address.to_string()),
        ));
    };
    let description: Value = serde_json::from_str(description).ok()?;
    if let Some(address) = NbdAddress::described(&description) {
        return Some(Locator::Nbd(address.to_string()));
    }
    let file = ["/file/filename", "/file/file/filename", "/filename"];
    let mut named = file
        .iter()
        .filter_map(|at| description.pointer(at)?.as_str());
    named.next().map(|file| Locator::File(file.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn it_is_the_one_that_a_device_is_on() {
        let dir = tempfile::tempdir().unwrap();
        let [top, base, other] = ["top", "base", "other"].map(|name| {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            Locator::File(path)
        });
        let said = |images: &[&Locator]| {
            let devices: Vec<_> = images
                .iter()
                .map(|image| json!({ "inserted": { "image": { "filename": image.to_string() } } }))
                .chain([json!({ "device": "cd" })])
                .collect();
            json!({ "return": devices, "id": "libvirt-9" }).to_string()
        };
        let asked = |images: &[&Locator]| which(&said(images), &top, &base);
        assert_eq!(asked(&[&other, &base]), Some(true));
        assert_eq!(asked(&[&top, &other]), Some(false));
        assert_eq!(asked(&[&top, &base]), None);
        let described = json!({
            "driver": "qcow2", "backing": { "driver": "qcow2", "file": { "filename": top.to_string() } },
            "file": { "driver": "file", "filename": base.to_string() },
        });
        let name = format!("json:{described}");
        let device = json!({ "inserted": { "image": { "filename": name } } });
        let answer = json!({ "return": [device] }).to_string();
        assert_eq!(which(&answer, &top, &base), Some(true));
        assert_eq!(asked(&[&other]), None);
        for broken in ["", "{}", r#"{"error":{"class":"x"}}"#] {
            assert_eq!(which(broken, &top, &base), None);
        }
    }

    #[test]
    fn an_export_is_one_in_every_spelling() {
        let [top, base] = ["top", "base"].map(|name| format!("nbd+unix:///{name}?socket=/s"));
        let flat =
            r#"json:{"driver":"qcow2","file":{"driver":"nbd","export":"base","server.path":"/s"}}"#;
        let nested =
            r#"json:{"driver":"nbd","export":"base","server":{"type":"unix","path":"/s"}}"#;
        for name in [base.as_str(), flat, nested] {
            let device = json!({ "inserted": { "image": { "filename": name } } });
            let answer = json!({ "return": [device] }).to_string();
            let [top, base] = [&top, &base].map(|uri| Locator::Nbd(uri.clone()));
            assert_eq!(which(&answer, &top, &base), Some(true), "{name}");
        }
    }
}

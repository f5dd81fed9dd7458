//! What QEMU shall open, in libvirt's words.

use livemerge_storage::{Format, Locator, NbdAddress, NbdServer};
use quick_xml::escape::escape;

/// How long QEMU waits for a server that has gone, with the guest's requests, before those fail.
const RECONNECT_SECONDS: u32 = 300;

/// Libvirt cannot be told what is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(in crate::hypervisor) struct Unwritable(pub(super) String);

/// The `type` that goes with a `<source>`, and that element.
pub(in crate::hypervisor) fn source_element(
    locator: &Locator,
) -> Result<(&'static str, String), Unwritable> {
    match locator {
        Locator::File(_) | Locator::Block(_) => {
            let (kind, attribute, path) = path_attribute(locator)?;
            Ok((kind, format!("<source {attribute}=\"{path}\"/>")))
        }
        Locator::Nbd(uri) => {
            let address: NbdAddress = uri.parse().map_err(|_| unwritable(locator))?;
            Ok(("network", nbd_source(&address)))
        }
    }
}

/// The `type` that goes with a `<source>` of a path, the attribute that holds it, and its value.
pub(super) fn path_attribute(
    locator: &Locator,
) -> Result<(&'static str, &'static str, String), Unwritable> {
    let (kind, attribute, path) = match locator {
        Locator::File(path) => ("file", "file", path),
        Locator::Block(path) => ("block", "dev", path),
        Locator::Nbd(_) => return Err(unwritable(locator)),
    };
    let path = path.to_str().ok_or_else(|| unwritable(locator))?;
    Ok((kind, attribute, escape(path).into_owned()))
}

/// A format's name in a definition.
pub(in crate::hypervisor) fn format_name(format: Format) -> &'static str {
    match format {
        Format::Qcow2 => "qcow2",
        Format::Raw => "raw",
    }
}

fn unwritable(locator: &Locator) -> Unwritable {
    Unwritable(format!("{locator:?} cannot be told to libvirt"))
}

fn nbd_source(address: &NbdAddress) -> String {
    let host = match &address.server {
        NbdServer::Unix(socket) => {
            format!("transport=\"unix\" socket=\"{}\"", escape(socket.as_str()))
        }
        NbdServer::Tcp { host, port } => {
            let port = port
                .as_ref()
                .map(|port| format!(" port=\"{port}\""))
                .unwrap_or_default();
            format!("name=\"{}\"{port}", escape(host.as_str()))
        }
    };
    let tls = if address.tls { " tls=\"yes\"" } else { "" };
    let export = escape(address.export.as_str());
    format!(
        "<source protocol=\"nbd\" name=\"{export}\"{tls}><host {host}/>\
         <reconnect delay=\"{RECONNECT_SECONDS}\"/></source>"
    )
}

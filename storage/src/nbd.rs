//! NBD addresses: the URI of a locator on one side, what libvirt and QEMU are told on the other.
//!
//! One address has one spelling here, so that locators from definitions can be compared:
//! `nbd+unix:///EXPORT?socket=PATH`, `nbd://HOST:PORT/EXPORT`, and `nbds` with TLS.

use serde_json::Value;
use std::fmt;
use std::str::FromStr;

const DEFAULT_PORT: &str = "10809";

/// Where an export is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NbdAddress {
    /// Who offers it.
    pub server: NbdServer,
    /// Its name there.
    pub export: String,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

/// Who offers an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NbdServer {
    /// The path of a socket.
    Unix(String),
    /// A port of a host.
    Tcp {
        /// The host's name or address.
        host: String,
        /// `None` is the usual port.
        port: Option<String>,
    },
}

/// Not an NBD URI of the forms that are used here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an NBD URI")]
pub struct InvalidNbdUri(String);

impl fmt::Display for NbdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "nbds" } else { "nbd" };
        let export = Encoded(&self.export);
        match &self.server {
            NbdServer::Unix(socket) => {
                write!(f, "{scheme}+unix:///{export}?socket={}", Encoded(socket))
            }
            NbdServer::Tcp { host, port } => {
                let port = port.as_deref().unwrap_or(DEFAULT_PORT);
                let bracketed = host.contains(':');
                let (open, close) = if bracketed { ("[", "]") } else { ("", "") };
                write!(f, "{scheme}://{open}{host}{close}:{port}/{export}")
            }
        }
    }
}

impl FromStr for NbdAddress {
    type Err = InvalidNbdUri;

    fn from_str(uri: &str) -> Result<Self, InvalidNbdUri> {
        parse(uri).ok_or_else(|| InvalidNbdUri(uri.to_owned()))
    }
}

impl NbdAddress {
    /// From a description of QEMU's, as a `json:` name holds it: the export that the image in it lies
    /// on, nested or flat. `None` when that is no export.
    pub fn described(node: &Value) -> Option<Self> {
        let levels: [&[&str]; 3] = [&[], &["file"], &["file", "file"]];
        let at = |level: &[&str], path: &[&str]| field(node, &[level, path].concat());
        let level = levels
            .into_iter()
            .find(|level| at(level, &["driver"]) == Some("nbd"))?;
        let server = match at(level, &["server", "path"]).or(at(level, &["path"])) {
            Some(socket) => NbdServer::Unix(socket.to_owned()),
            None => NbdServer::Tcp {
                host: at(level, &["server", "host"])
                    .or(at(level, &["host"]))?
                    .to_owned(),
                port: at(level, &["server", "port"])
                    .or(at(level, &["port"]))
                    .map(str::to_owned),
            },
        };
        Some(Self {
            server,
            export: at(level, &["export"]).unwrap_or_default().to_owned(),
            tls: at(level, &["tls-creds"]).is_some(),
        })
    }
}

/// The text at a path of keys, some of which may be joined by dots.
fn field<'a>(node: &'a Value, path: &[&str]) -> Option<&'a str> {
    if path.is_empty() {
        return node.as_str();
    }
    (1..=path.len()).find_map(|keys| field(node.get(path[..keys].join("."))?, &path[keys..]))
}

fn parse(uri: &str) -> Option<NbdAddress> {
    let (scheme, rest) = uri.split_once("://")?;
    let (tls, unix) = match scheme {
        "nbd" => (false, false),
        "nbds" => (true, false),
        "nbd+unix" => (false, true),
        "nbds+unix" => (true, true),
        _ => return None,
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !unix {
        let (host, port) = host_and_port(authority)?;
        let server = NbdServer::Tcp {
            host: host.to_owned(),
            port: port.map(str::to_owned),
        };
        return Some(NbdAddress {
            server,
            export: decode(path)?,
            tls,
        });
    }
    let (export, query) = path.split_once('?')?;
    let socket = query
        .strip_prefix("socket=")
        .filter(|_| authority.is_empty())?;
    Some(NbdAddress {
        server: NbdServer::Unix(decode(socket)?),
        export: decode(export)?,
        tls,
    })
}

fn host_and_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let (host, port) = match authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':')?)),
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let digits = port.is_none_or(|port| port.parse::<u16>().is_ok());
    (digits && !host.is_empty()).then_some((host, port))
}

/// Percent-encodes what a URI cannot hold as it is.
struct Encoded<'a>(&'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = tail
                .get(..2)
                .and_then(|pair| std::str::from_utf8(pair).ok())?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_usual_forms() {
        for (uri, spelled) in [
            (
                "nbd+unix:///vol?socket=/run/x.sock",
                "nbd+unix:///vol?socket=/run/x.sock",
            ),
            (
                "nbd+unix:///vol?socket=%2Frun%2Fx.sock",
                "nbd+unix:///vol?socket=/run/x.sock",
            ),
            ("nbd://host/a%20b", "nbd://host:10809/a%20b"),
            ("nbds://[::1]:99/", "nbds://[::1]:99/"),
        ] {
            assert_eq!(uri.parse::<NbdAddress>().unwrap().to_string(), spelled);
        }
        for bad in [
            "",
            "/a",
            "http://a/b",
            "nbd+unix:///vol",
            "nbd://:1/x",
            "nbd://h:x/",
            "nbd://h/%4",
        ] {
            assert!(bad.parse::<NbdAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_description_of_qemu_s_is_an_address() {
        let described = |text: &str| NbdAddress::described(&serde_json::from_str(text).unwrap());
        for text in [
            r#"{"driver":"nbd","export":"a","server":{"type":"unix","path":"/s"}}"#,
            r#"{"file":{"driver":"nbd","server":{"type":"unix","path":"/s"},"export":"a"}}"#,
            r#"{"driver":"qcow2","file":{"driver":"nbd","export":"a","server.path":"/s"}}"#,
            r#"{"driver":"qcow2","file.driver":"nbd","file.export":"a","file.server.path":"/s"}"#,
        ] {
            let address = described(text).unwrap();
            assert_eq!(address.to_string(), "nbd+unix:///a?socket=/s", "{text}");
        }
        let tcp = r#"{"driver":"nbd","server":{"type":"inet","host":"h","port":"99"}}"#;
        assert_eq!(described(tcp).unwrap().to_string(), "nbd://h:99/");
        for other in [
            r#"{"driver":"file","filename":"/a"}"#,
            "{}",
            "[]",
            r#"{"driver":"nbd"}"#,
        ] {
            assert_eq!(described(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(export in "\\PC{0,20}", socket in "/\\PC{0,20}") {
            let address = NbdAddress { server: NbdServer::Unix(socket), export, tls: false };
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }

        #[test]
        fn nothing_panics(text in "(nbd(\\+unix)?://)?\\PC{0,40}") {
            let _ = text.parse::<NbdAddress>();
        }
    }
}

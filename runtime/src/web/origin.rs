//! Whose pages may call: an origin as browsers spell it.

use http::HeaderValue;
use http::uri::Authority;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// An origin, such as `https://console.example.org` or `http://127.0.0.1:8080`. It is compared with
/// what browsers send byte by byte: it is in lower case, without the port that goes with its scheme.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin(HeaderValue);

impl Origin {
    /// What the header `origin` must be.
    pub(super) fn header(&self) -> &HeaderValue {
        &self.0
    }

    /// What pages may be called that are served at an address.
    pub(super) fn of(address: SocketAddr) -> impl Iterator<Item = Origin> {
        let ip = address.ip().to_canonical();
        let host = match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let loopback = ip.is_loopback().then(|| "localhost".to_owned());
        let hosts = [Some(host), loopback].into_iter().flatten();
        hosts.flat_map(move |host| {
            ["http", "https"].into_iter().filter_map(move |scheme| {
                let port = match (own_port(scheme)?, address.port()) {
                    (own, port) if own == port => String::new(),
                    (_, port) => format!(":{port}"),
                };
                Origin::try_from(format!("{scheme}://{host}{port}")).ok()
            })
        })
    }
}

impl TryFrom<String> for Origin {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let header = HeaderValue::from_str(&text)
            .ok()
            .filter(|_| is_exact(&text));
        header.map(Origin).ok_or_else(|| {
            format!("`{text}` is not `https://HOST`, perhaps with a port, as a browser spells it")
        })
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.to_string()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

/// No `*`, no `null`, no path, and nothing that a browser would spell otherwise.
fn is_exact(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else {
        return false;
    };
    let Some(own_port) = own_port(scheme) else {
        return false;
    };
    let Ok(authority) = authority.parse::<Authority>() else {
        return false;
    };
    let plain = !authority.as_str().contains(['@', '*']) && !authority.host().is_empty();
    let port = match authority.port() {
        None => authority.as_str() == authority.host(),
        Some(port) => port.as_u16() != own_port && port.as_str() == port.as_u16().to_string(),
    };
    plain && port && text == text.to_ascii_lowercase()
}

/// The port that goes with a scheme of the web.
fn own_port(scheme: &str) -> Option<u16> {
    match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_called_as_browsers_spell_it() {
        let called = |address: &str| -> Vec<String> {
            let origins = Origin::of(address.parse().unwrap());
            origins.map(String::from).collect()
        };
        assert_eq!(
            called("127.0.0.1:7423"),
            [
                "http://127.0.0.1:7423",
                "https://127.0.0.1:7423",
                "http://localhost:7423",
                "https://localhost:7423"
            ]
        );
        assert_eq!(called("[::ffff:127.0.0.1]:7423"), called("127.0.0.1:7423"));
        assert_eq!(
            called("[2001:db8::1]:443"),
            ["http://[2001:db8::1]:443", "https://[2001:db8::1]"]
        );
    }

    #[test]
    fn an_origin_is_exact() {
        for good in [
            "https://console.example.org",
            "https://console.example.org:8443",
            "http://127.0.0.1:8080",
            "http://[::1]:8080",
            "http://localhost",
        ] {
            assert_eq!(Origin::try_from(good.to_owned()).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "*",
            "null",
            "console.example.org",
            "https://*.example.org",
            "https://",
            "https://a/",
            "https://a/path",
            "https://a?q",
            "https://a:443",
            "http://a:80",
            "https://a:",
            "https://a:08443",
            "https://me@a",
            "https://Console.example.org",
            "HTTPS://a",
            "ftp://a",
            "https://a b",
        ] {
            let refused = Origin::try_from(bad.to_owned()).unwrap_err();
            assert!(refused.contains(&format!("`{bad}`")), "{refused}");
        }
    }
}

//! Addresses that are called: with TLS, in plaintext, or a unix socket.

use http::Uri;
use http::uri::Authority;
use std::net::IpAddr;
use std::str::FromStr;

/// An address to call: `https://ADDRESS`, `http://ADDRESS` or `unix:/PATH`. What the scheme says is
/// decided here alone, however it is spelt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallAddress {
    /// With TLS.
    Tls(Authority),
    /// In plaintext.
    Plain(Authority),
    /// The path of a unix socket.
    Unix(String),
}

impl CallAddress {
    /// Whether it is on this machine, as far as the text tells: a name may lead anywhere.
    #[must_use]
    pub fn is_near(&self) -> bool {
        let (CallAddress::Tls(authority) | CallAddress::Plain(authority)) = self else {
            return true;
        };
        let host = host(authority).trim_end_matches('.').to_ascii_lowercase();
        if host == "localhost" || host.ends_with(".localhost") {
            return true;
        }
        host.parse::<IpAddr>().is_ok_and(|ip| {
            let ip = ip.to_canonical();
            // Connecting to no address in particular is connecting to oneself.
            ip.is_loopback() || ip.is_unspecified()
        })
    }
}

impl FromStr for CallAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.starts_with('/') {
                return Ok(CallAddress::Unix(path.to_owned()));
            }
            return Err(format!("{text:?} needs an absolute path after unix:"));
        }
        let uri: Uri = text
            .parse()
            .map_err(|_| format!("{text:?} is no address"))?;
        let authority = uri
            .authority()
            .filter(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'));
        let authority = authority.ok_or_else(|| format!("{text:?} names no host"))?;
        // "127.1" and the like are addresses to resolvers, and to nobody who looks at them.
        let last = host(authority).trim_end_matches('.').rsplit('.').next();
        let number = last.is_some_and(|last| {
            last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x")
        });
        if number && host(authority).parse::<IpAddr>().is_err() {
            return Err(format!("{text:?} has half an IP address"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(format!("{text:?} is more than an address"));
        }
        match uri.scheme_str() {
            Some("https") => Ok(CallAddress::Tls(authority.clone())),
            Some("http") => Ok(CallAddress::Plain(authority.clone())),
            _ => Err(format!(
                "{text:?} is neither https:// nor http:// nor unix:/"
            )),
        }
    }
}

/// The host of an address, without the brackets of IPv6.
pub(super) fn host(authority: &Authority) -> &str {
    let host = authority.host();
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_counts_however_it_is_spelt() {
        for (text, tls) in [
            ("https://a:1", true),
            ("HTTPS://a:1", true),
            ("HttpS://a", true),
            ("http://a:1", false),
            ("HTTP://a:1", false),
        ] {
            let parsed: CallAddress = text.parse().unwrap();
            assert_eq!(matches!(parsed, CallAddress::Tls(_)), tls, "{text}");
        }
        for bad in [
            "a:1",
            "ftp://a:1",
            "unix:a",
            "UNIX:/a",
            "https://",
            "https:///a",
            "//a:1",
            "https://user@a:1",
            "http://127.1:1",
            "http://2130706433:1",
            "http://0x7f.0x1:1",
            "https://a/b",
            "https://a?b",
            "",
        ] {
            assert!(bad.parse::<CallAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_on_this_machine_is_told_by_its_text() {
        for near in [
            "unix:/run/a",
            "http://127.0.0.1:1",
            "http://127.9.9.9:1",
            "https://[::1]:1",
            "https://[::ffff:127.0.0.1]:1",
            "http://0.0.0.0:1",
            "http://[::]:1",
            "https://LOCALHOST:1",
            "https://a.localhost.:1",
        ] {
            assert!(near.parse::<CallAddress>().unwrap().is_near(), "{near}");
        }
        for far in [
            "http://192.0.2.1:1",
            "https://localhost.example.org",
            "http://[2001:db8::1]:1",
        ] {
            assert!(!far.parse::<CallAddress>().unwrap().is_near(), "{far}");
        }
    }
}

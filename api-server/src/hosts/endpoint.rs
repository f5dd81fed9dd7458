//! What an agent's endpoint may look like: an address and a port, or a Unix socket.

use livemerge_runtime::CallAddress;
use tonic::transport::Uri;

/// The longest path of a Unix socket, in bytes.
const SOCKET_PATH_BYTES: usize = 107;

/// What an endpoint must be, for people.
pub const ENDPOINT_FORM: &str =
    "must be `http://ADDRESS:PORT`, `https://ADDRESS:PORT` or `unix:/PATH`";

/// Whether an agent may be called there.
pub fn is_endpoint(text: &str) -> bool {
    match text.strip_prefix("unix:") {
        Some(path) => path.starts_with('/') && (2..=SOCKET_PATH_BYTES).contains(&path.len()),
        None => {
            let plain = text.parse().is_ok_and(|uri| is_plain_address(&uri));
            plain && text.parse::<CallAddress>().is_ok()
        }
    }
}

/// Whether an endpoint is on this server's own machine, as far as its text tells.
pub fn is_near(endpoint: &str) -> bool {
    let parsed = endpoint.parse::<CallAddress>();
    parsed.is_ok_and(|address| address.is_near())
}

/// Nothing but an address and its port.
fn is_plain_address(uri: &Uri) -> bool {
    let address = uri.authority().is_some_and(|authority| {
        let port = authority.port_u16().is_some_and(|port| port > 0);
        port && !authority.host().is_empty() && !authority.as_str().contains('@')
    });
    let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    address && scheme && uri.path() == "/" && uri.query().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_or_a_socket() {
        for good in [
            "http://127.0.0.1:7421",
            "http://[::1]:1",
            "http://h1:7421",
            "https://127.0.0.1:1",
            "https://h1.example.org:7421",
            "unix:/run/a",
        ] {
            assert!(is_endpoint(good), "{good}");
        }
        let long = format!("unix:/{}", "a".repeat(SOCKET_PATH_BYTES));
        for bad in [
            "",
            "h1:7421",
            "http://h1",
            "http://127.0.0.1:0",
            "http://127.0.0.1:99999",
            "http://user:pw@127.0.0.1:1",
            "http://127.0.0.1:1/path?x",
            "https://h1",
            "http://127.1:7421",
            "ftp://127.0.0.1:1",
            "unix:relative",
            "unix:/",
            &long,
        ] {
            assert!(!is_endpoint(bad), "{bad}");
        }
    }
}

//! Where a console is served.

use crate::ListenAddress;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

const PORT: u16 = 7423;
const LOOPBACK: &str = "loopback";

/// Where a console is served: `loopback`, an IP address with a port, or nowhere, the empty text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ConsoleAddress {
    /// On 127.0.0.1:7423 beside an IP address. Nowhere beside a unix socket: who may reach that is said by
    /// its file, and everybody on the host reaches a port.
    #[default]
    Loopback,
    /// There.
    At(SocketAddr),
    /// Nowhere.
    Nowhere,
}

impl ConsoleAddress {
    /// The address, where gRPC is served at this one.
    pub(super) fn beside(self, grpc: &ListenAddress) -> Option<SocketAddr> {
        match (self, grpc) {
            (Self::At(address), _) => Some(address),
            (Self::Loopback, ListenAddress::Tcp(_)) => Some((Ipv4Addr::LOCALHOST, PORT).into()),
            (Self::Loopback, ListenAddress::Unix(_)) | (Self::Nowhere, _) => None,
        }
    }
}

impl FromStr for ConsoleAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(Self::Nowhere),
            LOOPBACK => Ok(Self::Loopback),
            text => text.parse().map(Self::At).map_err(|_| {
                format!("`{text}` is neither `{LOOPBACK}` nor an IP address with a port")
            }),
        }
    }
}

impl TryFrom<String> for ConsoleAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ConsoleAddress> for String {
    fn from(address: ConsoleAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for ConsoleAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => f.write_str(LOOPBACK),
            Self::At(address) => address.fmt(f),
            Self::Nowhere => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_and_printed_alike() {
        for text in ["", "loopback", "127.0.0.1:1", "[::1]:7423"] {
            assert_eq!(text.parse::<ConsoleAddress>().unwrap().to_string(), text);
        }
        for text in ["localhost:7423", "127.0.0.1", "unix:/x", "Loopback"] {
            let refused = text.parse::<ConsoleAddress>().unwrap_err();
            assert!(refused.contains(text), "{refused}");
        }
    }

    #[test]
    fn nobody_gets_by_a_port_what_a_socket_keeps_from_him() {
        let beside = |own: &str, grpc: &str| {
            let own: ConsoleAddress = own.parse().unwrap();
            let address = own.beside(&grpc.parse().unwrap());
            address.map(|address| address.to_string())
        };
        let (tcp, unix) = ("192.0.2.1:7420", "unix:/run/api.sock");
        assert_eq!(beside("loopback", tcp).unwrap(), "127.0.0.1:7423");
        assert_eq!(beside("loopback", unix), None);
        assert_eq!(beside("[::1]:1", unix).unwrap(), "[::1]:1");
        assert_eq!(beside("", tcp), None);
    }
}

//! An address that may be left empty in a configuration: the empty text is nowhere.

use serde::{Deserialize, Deserializer, Serializer, de};
use std::net::SocketAddr;

pub(crate) fn serialize<S: Serializer>(
    address: &Option<SocketAddr>,
    out: S,
) -> Result<S::Ok, S::Error> {
    let text = address.map(|address| address.to_string());
    out.serialize_str(&text.unwrap_or_default())
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(input)?;
    if text.is_empty() {
        return Ok(None);
    }
    let wanted = |_| de::Error::custom(format!("`{text}` is not an IP address with a port"));
    text.parse().map(Some).map_err(wanted)
}

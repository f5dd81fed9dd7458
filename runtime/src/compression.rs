//! How messages may be compressed on the wire.

use serde::{Deserialize, Serialize};
use tonic::codec::CompressionEncoding;

/// A way to compress messages, by its name in `grpc-encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// What every gRPC client knows.
    Gzip,
    /// Smaller and faster, of newer clients.
    Zstd,
}

impl From<Compression> for CompressionEncoding {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::Gzip => CompressionEncoding::Gzip,
            Compression::Zstd => CompressionEncoding::Zstd,
        }
    }
}

/// A generated service within the bounds of a [`ServerConfig`](crate::ServerConfig): how large a
/// request may be, compressed or not, and how messages may be compressed. tonic sets them for each
/// service by itself, and has no trait for it.
#[macro_export]
macro_rules! bounded {
    ($service:expr, $config:expr) => {{
        let config: &$crate::ServerConfig = $config;
        let mut service = $service.max_decoding_message_size(config.max_message_bytes());
        for encoding in config.encodings() {
            service = service
                .accept_compressed(encoding)
                .send_compressed(encoding);
        }
        service
    }};
}

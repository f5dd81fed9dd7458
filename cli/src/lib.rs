//! livemerge-cli

//! `livemerge volume`

use clap::{Args, Subcommand};

/// `livemerge volume`
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Lists the storage domains of the hosts, with their room
    Storages(StoragesArgs),
    /// Lists the volumes that are being removed, or are kept until a time
    Removed(RemovedArgs),
    /// Brings a removed volume back under its name; no chain has it then
    Restore(RestoreArgs),
}

/// `livemerge volume storages`
#[derive(Debug, Default, Args)]
pub(crate) struct StoragesArgs {
    /// Only those of this host
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
}

/// `livemerge volume removed`
#[derive(Debug, Default, Args)]
pub(crate) struct RemovedArgs {
    /// Only those of this storage domain
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) storage: Option<String>,
}

/// `livemerge volume restore`
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The storage domain
    pub(crate) storage: String,
    /// The removal's id, as `livemerge volume removed` lists it
    pub(crate) removal: String,
}

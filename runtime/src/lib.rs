//! How a LiveMerge server runs: configuration, listening, the layers every request passes,
//! health, reflection, logs and shutdown. Both servers are built on this crate, so that they
//! behave the same to operators and clients. It knows nothing of snapshots or merges.
//!
//! ```text
//!  Args + TOML + environment ──▶ config::load ──▶ Config { listen, server, log, .. }
//!                                                    │
//!           ListenConfig::bind ◀─────────────────────┤
//!                  │                                 ▼
//!                  └───────────────▶ Server::new ─ service(..) ─ serve(listener)
//!
//!  connection ─▶ TLS ─▶ request span ─▶ metrics ─▶ catch panic ─▶ deadline ─▶ gate (roles) ─▶ limiter ─▶ service
//! ```
//!
//! A drain (SIGTERM, SIGINT, or anyone who cancels [`Shutdown`]) goes in this order: health says
//! NOT_SERVING, [`Shutdown`] is cancelled so that watches and drivers end, the listener closes,
//! running calls finish within `server.drain_seconds`, and what is left is cut off.
//!
//! # Example: the main of a server
//!
//! ```no_run
//! use clap::Parser;
//! use livemerge_runtime::{
//!     Args, AuthConfig, ListenConfig, LogConfig, Reach, Rules, Security, Server, ServerConfig,
//!     TlsConfig, telemetry,
//! };
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Parser)]
//! #[command(name = "livemerge-example", version)]
//! struct Cli {
//!     #[command(flatten)]
//!     args: Args,
//! }
//!
//! // Every table of a configuration carries both serde attributes.
//! #[derive(Serialize, Deserialize)]
//! #[serde(default, deny_unknown_fields)]
//! struct Config {
//!     listen: ListenConfig,
//!     server: ServerConfig,
//!     log: LogConfig,
//!     tls: TlsConfig,
//!     auth: Option<AuthConfig>,
//! }
//!
//! impl Default for Config {
//!     fn default() -> Self {
//!         Config {
//!             listen: ListenConfig::loopback(50051),
//!             server: ServerConfig::default(),
//!             log: LogConfig::default(),
//!             tls: TlsConfig::default(),
//!             auth: None,
//!         }
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> anyhow::Result<()> {
//!     let args = Cli::parse().args;
//!     let config: Config = args.load("LIVEMERGE_EXAMPLE_")?;
//!     let reach = Reach::of(&config.tls, config.auth.as_ref(), args.insecure);
//!     config.listen.admit(reach)?;
//!     if args.report(&config, &mut std::io::stdout())? {
//!         return Ok(()); // --check-config or --print-config
//!     }
//!     telemetry::init(&config.log)?;
//!
//!     let rules = Rules::new(); // .permit("livemerge.v1.MergeService", &["GetMerge"], &[Role::Viewer])
//!     let security = Security::open(&config.tls, config.auth.as_ref(), rules)?;
//!     let server = Server::new(config.server.clone()).secured(security);
//!     server.end_with_signals()?; // from here on `shutdown` is cancelled by them
//!     let (shutdown, readiness) = (server.shutdown(), server.readiness());
//!     // let merges = MergeServiceServer::new(MergeApi::new(shutdown.clone()))
//!     //     .max_decoding_message_size(config.server.max_message_bytes());
//!     let server = server
//!         // .descriptors(livemerge_proto::FILE_DESCRIPTOR_SET)
//!         // .service(merges)
//!         .streams(["/livemerge.v1.MergeService/WatchMerges"]);
//!     let listener = config.listen.bind(reach).await?;
//!     readiness.set_all(true); // once hypervisor, database, ... have answered
//!     server.serve(listener).await?;
//!     // Tasks that own mutations saw `shutdown` and are awaited here.
//!     # drop(shutdown);
//!     Ok(())
//! }
//! ```

pub mod client;
pub mod config;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod metrics;
pub mod telemetry;
pub mod trace;

mod args;
mod backoff;
mod clock;
mod compression;
mod connections;
mod error;
mod health;
mod late;
mod layers;
mod limits;
mod listen;
mod probes;
mod process;
mod security;
mod server;
mod server_config;
mod web;

pub use args::Args;
pub use backoff::{Backoff, Tries};
pub use clock::{Clock, ManualClock, SystemClock};
pub use compression::Compression;
pub use error::{ConfigError, ServeError};
pub use health::Readiness;
pub use late::Late;
pub use layers::{RequestIds, RequestLayer, RequestSpan};
pub use listen::{ListenAddress, ListenConfig, Listener};
pub use metrics::{Metrics, MetricsConfig};
pub use process::process;
pub use security::{
    AuthConfig, BoundRole, CallAddress, Caller, Client, ClientCertificate, ClientConfig, HostNames,
    JwtConfig, Line, NamesOfHost, Reach, Role, Rules, Security, SecurityFileError, Subject,
    TlsConfig, hold_hangups,
};
pub use server::{Server, Shutdown};
pub use server_config::ServerConfig;
pub use telemetry::{LogConfig, LogFormat};
pub use trace::{DurableSpan, TraceContext, TracesConfig};
pub use web::{ConsoleAddress, ConsoleConfig, Origin, Page, Pages, Web, WebConfig};

//! `livemerge event`

use clap::{Args, Subcommand, ValueEnum};
use livemerge_proto::v1;

/// `livemerge event`
#[derive(Debug, Subcommand)]
pub(crate) enum EventCommand {
    /// Lists the events, oldest first
    List {
        /// Which ones.
        #[command(flatten)]
        filter: EventFilterArgs,
        /// Lists the newest first
        #[arg(long)]
        newest_first: bool,
        /// At most so many
        #[arg(long, value_name = "NUMBER")]
        limit: Option<usize>,
    },
    /// Writes events as they happen, also over restarts of the server; as JSON, one document a line
    /// with the token to go on behind it
    Watch(WatchEventsArgs),
}

/// `livemerge event watch`
#[derive(Debug, Args)]
pub(crate) struct WatchEventsArgs {
    /// Which ones.
    #[command(flatten)]
    pub(crate) filter: EventFilterArgs,
    /// Goes on behind the event that had this token; the filter must be the same
    #[arg(long, value_name = "TOKEN", conflicts_with = "from_start")]
    pub(crate) since_token: Option<String>,
    /// Begins with the first event there is [default: with the next one]
    #[arg(long)]
    pub(crate) from_start: bool,
}

/// Which events.
#[derive(Debug, Default, Args)]
pub(crate) struct EventFilterArgs {
    /// Only those about this machine, by id or name
    #[arg(long)]
    pub(crate) vm: Option<String>,
    /// Only those of this operation, by id
    #[arg(long)]
    pub(crate) operation: Option<String>,
    /// Only those that matter at least so much
    #[arg(long)]
    pub(crate) severity: Option<Severity>,
    /// Only those of this type, such as `live_merge_completed`; can be given again for several
    #[arg(long, value_parser = event_type)]
    pub(crate) r#type: Vec<v1::EventType>,
}

impl EventFilterArgs {
    /// As the API has it.
    pub(crate) fn least_severity(&self) -> i32 {
        let least = self.severity.map(v1::EventSeverity::from);
        least.unwrap_or_default().into()
    }

    /// As the API has it.
    pub(crate) fn types(&self) -> Vec<i32> {
        self.r#type
            .iter()
            .map(|r#type| i32::from(*r#type))
            .collect()
    }
}

/// How much events matter.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Severity {
    /// As it should be
    Info,
    /// Worth a look; nothing is lost
    Warning,
    /// Somebody should act; nothing is lost
    Error,
}

impl From<Severity> for v1::EventSeverity {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Info => Self::Info,
            Severity::Warning => Self::Warning,
            Severity::Error => Self::Error,
        }
    }
}

fn event_type(text: &str) -> Result<v1::EventType, &'static str> {
    let name = format!("EVENT_TYPE_{}", text.to_uppercase());
    let known = v1::EventType::from_str_name(&name);
    known
        .filter(|known| *known != v1::EventType::Unspecified)
        .ok_or("is no type of an event; `livemerge event list` shows them")
}

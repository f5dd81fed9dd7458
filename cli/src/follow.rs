//! Follows the audit log.
//!
//! ```text
//!   WatchEvents ──▶ write each event, keep its token       (over restarts of the server: `watch`)
//!            └──▶ --timeout: exit 5        Ctrl-C: exit 130, and the command that goes on
//! ```
//!
//! An event is written once: the token that a try begins with is that of the last piece taken.

use crate::connect::Session;
use crate::failure::{Exit, Failure};
use crate::output::text::{escape, time_or_dash, word};
use crate::output::{Format, Listed as _, Output, Stop};
use crate::watch::Watching;
use livemerge_proto::v1;
use serde::Serialize;
use std::io::{self, Write as _};
use tonic::Response;

/// Writes events as they come, until something ends it. `wanted` says which, and where to begin.
///
/// # Errors
/// Always: Ctrl-C, the end of the time, a token that cannot be used, stdout without a reader.
pub(crate) async fn events(
    session: &Session,
    output: Output,
    wanted: v1::WatchEventsRequest,
) -> Result<(), Stop> {
    let mut follower = Follower {
        session,
        output,
        wanted,
    };
    let stop = tokio::select! {
        stop = follower.follow() => stop,
        Ok(()) = tokio::signal::ctrl_c() => Failure::new(Exit::Interrupted, "interrupted").into(),
    };
    Err(match stop {
        Stop::Failed(failure)
            if matches!(failure.exit(), Exit::Unavailable | Exit::Interrupted) =>
        {
            follower.hint(failure).into()
        }
        other => other,
    })
}

/// What a script gets of each event: all that a list gives, and where to go on behind it.
#[derive(Serialize)]
struct Followed<'a, E: Serialize> {
    #[serde(flatten)]
    event: E,
    resume_token: &'a str,
}

struct Follower<'a> {
    session: &'a Session,
    output: Output,
    wanted: v1::WatchEventsRequest,
}

impl Follower<'_> {
    async fn follow(&mut self) -> Stop {
        let mut watching = watch(self.session, self.wanted.clone());
        loop {
            let taken = match watching.next(say).await {
                Ok(piece) => self.take(piece),
                Err(failure) => Err(failure.into()),
            };
            if let Err(stop) = taken {
                return stop;
            }
        }
    }

    fn take(&mut self, piece: v1::WatchEventsResponse) -> Result<(), Stop> {
        if let Some(event) = &piece.event {
            self.write(event, &piece.resume_token)?;
        }
        self.wanted.resume_token = piece.resume_token;
        Ok(())
    }

    fn write(&self, event: &v1::Event, resume_token: &str) -> Result<(), Stop> {
        match self.output.format() {
            Format::Json => self.output.json_line(&Followed {
                event: event.document(),
                resume_token,
            }),
            Format::Table => self.output.text(&line(event)),
        }
    }

    /// Adds the command that goes on where this one stopped.
    fn hint(&self, failure: Failure) -> Failure {
        if self.wanted.resume_token.is_empty() {
            return failure;
        }
        let mut words = vec!["event watch".to_owned()];
        let mut option = |name: &str, value: &str| {
            if !value.is_empty() {
                words.push(format!("--{name} {value}"));
            }
        };
        option("vm", &self.wanted.vm_id);
        option("operation", &self.wanted.operation_id);
        if self.wanted.least_severity() != v1::EventSeverity::Unspecified {
            option("severity", &severity(self.wanted.least_severity()));
        }
        for r#type in self.wanted.types() {
            option("type", &event_type(r#type));
        }
        option("since-token", &self.wanted.resume_token);
        failure.hint(format!("go on: {}", self.session.command(&words.join(" "))))
    }
}

fn watch(
    session: &Session,
    wanted: v1::WatchEventsRequest,
) -> Watching<'_, v1::WatchEventsResponse> {
    let begun_behind = Some(wanted.resume_token.clone()).filter(|token| !token.is_empty());
    let open = move |token: Option<String>| {
        let mut client = session.events();
        let request = v1::WatchEventsRequest {
            from_start: wanted.from_start && token.is_none(),
            resume_token: token.unwrap_or_default(),
            ..wanted.clone()
        };
        async move { client.watch_events(request).await.map(Response::into_inner) }
    };
    let token_of = |piece: &v1::WatchEventsResponse| Some(piece.resume_token.clone());
    Watching::new(session, "trying again", begun_behind, open, token_of)
}

/// A line of the log for people; no text in it steers the terminal.
fn line(event: &v1::Event) -> String {
    format!(
        "{}  {:<7}  {:<24}  {}",
        time_or_dash(event.occurred_at.as_ref()),
        severity(event.severity()),
        event_type(event.r#type()),
        escape(&event.message),
    )
}

fn severity(severity: v1::EventSeverity) -> String {
    word(severity.as_str_name(), "EVENT_SEVERITY_")
}

fn event_type(r#type: v1::EventType) -> String {
    word(r#type.as_str_name(), "EVENT_TYPE_")
}

/// A reader of stderr that went away is no reason to stop.
fn say(text: &str) {
    let _unread = io::stderr().write_all(format!("{}\n", escape(text)).as_bytes());
}

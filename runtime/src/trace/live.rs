//! A span of something that one task does, from now to its drop.

use super::{TraceContext, export, now};
use opentelemetry::KeyValue;
use std::borrow::Cow;
use std::time::SystemTime;
use tonic::Code;

/// What a span is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// A request that is served.
    Server,
    /// A call of another server.
    Client,
    /// Anything else.
    Internal,
}

/// Recorded when it is dropped.
#[derive(Debug)]
pub struct LiveSpan {
    context: TraceContext,
    parent: Option<TraceContext>,
    name: Cow<'static, str>,
    kind: SpanKind,
    begun: SystemTime,
    attributes: Vec<KeyValue>,
    error: Option<String>,
    is_news: bool,
}

impl LiveSpan {
    /// A part of what this task works in; of a trace of its own where it works in none.
    #[must_use]
    pub fn begin(name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Self {
        Self::under(TraceContext::current(), name, kind)
    }

    /// A part of `parent`.
    #[must_use]
    pub fn under(
        parent: Option<TraceContext>,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
    ) -> Self {
        LiveSpan {
            context: parent.map_or_else(TraceContext::root, |parent| parent.child()),
            parent,
            name: name.into(),
            kind,
            begun: now(),
            attributes: Vec::new(),
            error: None,
            is_news: true,
        }
    }

    /// Where what it does works.
    #[must_use]
    pub fn context(&self) -> TraceContext {
        self.context
    }

    /// Adds what is known of it.
    pub fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.attributes.push(KeyValue::new(name, value.into()));
    }

    /// It is not worth a record.
    pub(crate) fn forget(&mut self) {
        self.is_news = false;
    }

    /// A call has ended with this code. Of one that is served a refusal is no failure.
    pub(crate) fn came_to(&mut self, code: Code) {
        self.set("rpc.response.status_code", (code as i32).to_string());
        let is_ours = matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        );
        if code != Code::Ok && (is_ours || self.kind == SpanKind::Client) {
            self.fail(code.description());
        }
    }

    /// It came to nothing, for this reason.
    pub fn fail(&mut self, why: impl Into<String>) {
        self.error = Some(why.into());
    }
}

impl Drop for LiveSpan {
    fn drop(&mut self) {
        if !self.is_news {
            return;
        }
        export::record(export::Ended {
            context: self.context,
            parent: self.parent.map(|parent| parent.span()),
            name: std::mem::take(&mut self.name),
            kind: self.kind,
            begun: self.begun,
            ended: now(),
            attributes: std::mem::take(&mut self.attributes),
            error: self.error.take(),
        });
    }
}

//! A span that stands in a record until it has ended, over restarts.

use super::live::SpanKind;
use super::{TraceContext, export};
use opentelemetry::KeyValue;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::time::SystemTime;

/// A span that was begun, and the one that it is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurableSpan {
    /// The span.
    traceparent: TraceContext,
    /// What it is a part of, in the same trace.
    parent: TraceContext,
}

impl DurableSpan {
    /// A part of what this task works in; `None` where it works in no trace.
    #[must_use]
    pub fn begin() -> Option<Self> {
        let parent = TraceContext::current()?;
        Some(DurableSpan {
            traceparent: parent.child(),
            parent,
        })
    }

    /// Where what is done for it works.
    #[must_use]
    pub fn context(&self) -> TraceContext {
        self.traceparent
    }

    /// Records it.
    pub fn end(
        &self,
        name: impl Into<Cow<'static, str>>,
        (begun, ended): (SystemTime, SystemTime),
        attributes: &[(&'static str, String)],
        error: Option<String>,
    ) {
        let parent = Some(self.parent.span());
        record(
            self.traceparent,
            parent,
            name.into(),
            (begun, ended),
            attributes,
            error,
        );
    }

    /// Records a part of it that is over.
    pub fn part(
        &self,
        name: impl Into<Cow<'static, str>>,
        (begun, ended): (SystemTime, SystemTime),
        attributes: &[(&'static str, String)],
    ) {
        let part = self.traceparent.child();
        let parent = Some(self.traceparent.span());
        record(part, parent, name.into(), (begun, ended), attributes, None);
    }
}

fn record(
    context: TraceContext,
    parent: Option<u64>,
    name: Cow<'static, str>,
    (begun, ended): (SystemTime, SystemTime),
    attributes: &[(&'static str, String)],
    error: Option<String>,
) {
    let attributes = attributes.iter();
    export::record(export::Ended {
        context,
        parent,
        name,
        kind: SpanKind::Internal,
        begun,
        ended,
        attributes: attributes
            .map(|(name, value)| KeyValue::new(*name, value.clone()))
            .collect(),
        error,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_the_same_span_after_a_restart() {
        assert_eq!(DurableSpan::begin(), None);
        let request = TraceContext::root();
        let begun = super::super::scope(Some(request), async { DurableSpan::begin() }).await;
        let begun = begun.unwrap();
        assert_eq!(begun.context().trace_id(), request.trace_id());
        let kept = toml::to_string(&begun).unwrap();
        assert_eq!(toml::from_str::<DurableSpan>(&kept).unwrap(), begun);
    }
}

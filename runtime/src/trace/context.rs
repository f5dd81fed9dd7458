//! A place in a trace, as W3C's `traceparent` spells it.

use super::export;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// The header that carries it.
pub(crate) const TRACEPARENT: &str = "traceparent";

const SAMPLED: u8 = 1;

/// A span of a trace. Its text is a `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceContext {
    trace: u128,
    span: u64,
    flags: u8,
}

impl TraceContext {
    /// The first span of a trace of its own, sampled where spans are sent somewhere.
    #[must_use]
    pub fn root() -> Self {
        TraceContext {
            trace: Uuid::new_v4().as_u128(),
            span: span_id(),
            flags: u8::from(export::is_on()),
        }
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn child(&self) -> Self {
        TraceContext {
            span: span_id(),
            ..*self
        }
    }

    /// That in which this task works.
    #[must_use]
    pub fn current() -> Option<Self> {
        super::current()
    }

    /// 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    pub(super) fn trace(&self) -> u128 {
        self.trace
    }

    pub(super) fn span(&self) -> u64 {
        self.span
    }

    pub(super) fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

/// Half of a random UUID that holds neither its version nor its variant alone; never 0.
fn span_id() -> u64 {
    Uuid::new_v4().as_u64_pair().0
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace, self.span, self.flags
        )
    }
}

impl From<TraceContext> for String {
    fn from(context: TraceContext) -> Self {
        context.to_string()
    }
}

impl TryFrom<String> for TraceContext {
    type Error = NotATraceparent;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// A text that is no `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a traceparent")]
pub struct NotATraceparent;

/// `version-traceid-parentid-flags`; later versions may append fields.
impl FromStr for TraceContext {
    type Err = NotATraceparent;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut fields = text.split('-');
        let mut field = || fields.next().ok_or(NotATraceparent);
        let (version, trace, span, flags) = (field()?, field()?, field()?, field()?);
        let version = hex(version, 2)?;
        let ends = version != 0 || fields.next().is_none();
        let (trace, span) = (hex(trace, 32)?, hex(span, 16)?);
        if version == 0xff || !ends || trace == 0 || span == 0 {
            return Err(NotATraceparent);
        }
        Ok(TraceContext {
            trace,
            span: u64::try_from(span).map_err(|_| NotATraceparent)?,
            flags: u8::try_from(hex(flags, 2)?).map_err(|_| NotATraceparent)?,
        })
    }
}

/// So many lower-case digits.
fn hex(field: &str, length: usize) -> Result<u128, NotATraceparent> {
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if field.len() != length || !field.bytes().all(digit) {
        return Err(NotATraceparent);
    }
    u128::from_str_radix(field, 16).map_err(|_| NotATraceparent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_context_is_what_its_text_says() {
        let text = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let context: TraceContext = text.parse().unwrap();
        assert_eq!(context.to_string(), text);
        assert_eq!(context.trace_id(), TRACE);
        assert!(context.is_sampled());
        let child = context.child();
        assert_eq!((child.trace, child.flags), (context.trace, context.flags));
        assert_ne!(child.span, context.span);
        assert!(
            format!("01-{TRACE}-00f067aa0ba902b7-01-more")
                .parse::<TraceContext>()
                .is_ok()
        );
    }

    #[test]
    fn what_is_no_context_is_refused() {
        let zeros = "0".repeat(32);
        for text in [
            String::new(),
            format!("00-{TRACE}-00f067aa0ba902b7"),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{zeros}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-+0f067aa0ba902b7-01"),
        ] {
            assert_eq!(text.parse::<TraceContext>(), Err(NotATraceparent), "{text}");
        }
    }

    #[tokio::test]
    async fn a_task_of_its_own_can_inherit_the_context() {
        assert_eq!(TraceContext::current(), None);
        let context = TraceContext::root();
        let work = async {
            let alone = tokio::spawn(async { TraceContext::current() });
            let heir = tokio::spawn(super::super::inherited(async { TraceContext::current() }));
            (alone.await.unwrap(), heir.await.unwrap())
        };
        let seen = super::super::scope(Some(context), work).await;
        assert_eq!(seen, (None, Some(context)));
    }
}

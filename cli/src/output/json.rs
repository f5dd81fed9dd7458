//! JSON that can be shown on a terminal too.

use super::Stop;
use super::text::steers;
use serde::Serialize;
use std::fmt::Write as _;
use std::io;

pub(super) fn pretty(document: &impl Serialize) -> Result<String, Stop> {
    finish(serde_json::to_string_pretty(document))
}

pub(super) fn line(document: &impl Serialize) -> Result<String, Stop> {
    finish(serde_json::to_string(document))
}

fn finish(json: serde_json::Result<String>) -> Result<String, Stop> {
    Ok(harmless(&json.map_err(io::Error::other)?))
}

/// JSON leaves some characters that steer terminals as they are. They can only stand inside
/// strings, where `\u` says the same.
fn harmless(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && steers(c) {
            let _infallible = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_escaped_and_reads_the_same() {
        let text = "a\x1b\u{9b}\u{202e}\u{feff}\n\té";
        let json = line(&text).ok().unwrap();
        assert_eq!(json, "\"a\\u001b\\u009b\\u202e\\ufeff\\n\\té\"");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}

//! `docs/errors.md` is made from the closed list of reasons. `make docs` writes it.

use livemerge_proto::reason::{DOMAIN, Reason};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const INTRODUCTION: &str = "\
# Errors

Made from the code (`proto/src/reason.rs`) by `make docs`; do not edit.

Every answer of a method of ours that is an error is a `google.rpc.Status` whose details hold an
`ErrorInfo` with one of the reasons below and the domain `DOMAIN`. What the transport refuses before a
method is reached (a method that is not there, a message that is too large or cannot be decoded) has a
code and no reason. Branch on the reason; the text is for people, and every dynamic value of it
stands in the metadata too. Besides:

- `FIELD_INVALID` comes with `BadRequest`, which names every bad field; of very many the first, and how
  many more there are stands in the metadata under `more`. What a field must be is declared at the field
  in `proto/livemerge/v1` (`buf.validate`).
- FAILED_PRECONDITION comes with `PreconditionFailure`.
- UNAVAILABLE and RESOURCE_EXHAUSTED come with `RetryInfo`. Repeat with the same `request_id`.

An operation that failed carries the same reasons in `failure.reason`, an event in `details.reason`.

| reason | code | what it means, what to do |
|---|---|---|
";

#[test]
fn the_document_is_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors.md");
    let wanted = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &wanted).expect("docs can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, wanted, "run `make docs`");
}

fn document() -> String {
    let mut text = INTRODUCTION.replace("DOMAIN", DOMAIN);
    for reason in Reason::ALL {
        let code = format!("{:?}", reason.code());
        writeln!(
            text,
            "| `{reason}` | {} | {} |",
            screaming(&code),
            reason.advice()
        )
        .expect("a string takes everything");
    }
    text
}

/// `FailedPrecondition` as gRPC spells it.
fn screaming(camel: &str) -> String {
    let mut out = String::new();
    for letter in camel.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(letter.to_ascii_uppercase());
    }
    out
}

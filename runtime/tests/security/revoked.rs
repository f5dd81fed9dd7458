//! What was let in and is good no more, while its connection and its stream stay open and nobody
//! calls.

use crate::authority::{Authority, When};
use crate::rig::{Outcome, Rig, SERVED, SPIFFE, call, ending, send, token, tokens};
use livemerge_runtime::{ClientConfig, Line, Role, TlsConfig};
use std::time::Duration;
use tokio::task::JoinHandle;
use tonic::Code;

/// A stream that says nothing, and what it ends with.
async fn held(line: &Line, headers: &[(&str, &str)]) -> JoinHandle<Outcome> {
    let response = send(line, "/test.Who/Hold", headers).await.unwrap();
    let mut held = tokio::spawn(ending(response));
    let soon = tokio::time::timeout(Duration::from_millis(300), &mut held).await;
    assert!(soon.is_err(), "it goes on: {soon:?}");
    held
}

async fn ends(held: JoinHandle<Outcome>, within: u64) -> Outcome {
    let ended = tokio::time::timeout(Duration::from_secs(within), held).await;
    ended.expect("it ends").unwrap()
}

fn with_crl(files: &crate::authority::Files, tls: &mut TlsConfig) {
    tls.client_crl_file = Some(files.path("crl.pem"));
}

#[tokio::test]
async fn a_revoked_certificate_ends_its_idle_stream_and_no_other() {
    let rig = Rig::start(|files, tls, _| with_crl(files, tls)).await;
    let lost = rig
        .clients
        .issue(&[&format!("{SPIFFE}operator")], When::Now);
    let (bad, good) = (rig.with(&lost), rig.of(Role::Operator));
    let (ended, other) = (held(&bad, &[]).await, held(&good, &[]).await);
    rig.files.put("crl.pem", &rig.clients.revoked(&[&lost]));
    rig.reload().await;
    let outcome = ends(ended, 5).await;
    assert!(
        outcome.is(Code::Unauthenticated, "CREDENTIALS_INVALID"),
        "{outcome:?}"
    );
    assert!(!other.is_finished());
}

#[tokio::test]
async fn a_revoked_certificate_ends_a_watch_of_health_too() {
    let rig = Rig::start(|files, tls, _| with_crl(files, tls)).await;
    let lost = rig
        .clients
        .issue(&[&format!("{SPIFFE}operator")], When::Now);
    let line = rig.with(&lost);
    let watch = send(&line, "/grpc.health.v1.Health/Watch", &[])
        .await
        .unwrap();
    let watch = tokio::spawn(ending(watch));
    rig.files.put("crl.pem", &rig.clients.revoked(&[&lost]));
    rig.reload().await;
    // Nobody needs a role for it: the connection is closed.
    ends(watch, 5).await;
}

#[tokio::test]
async fn a_certificate_that_expires_ends_what_it_began() {
    let rig = Rig::start(|_, _, _| {}).await;
    let name = format!("{SPIFFE}operator");
    let short = rig
        .clients
        .issue(&[&name], When::For(Duration::from_secs(8)));
    let line = rig.with(&short);
    assert_eq!(call(&line, "/test.Who/Write", &[]).await.code, SERVED);
    let held = held(&line, &[]).await;
    let outcome = ends(held, 30).await;
    assert!(
        outcome.is(Code::Unauthenticated, "CREDENTIALS_INVALID"),
        "{outcome:?}"
    );
    let outcome = call(&line, "/test.Who/Write", &[]).await;
    assert!(outcome.code != SERVED, "{outcome:?}");
}

#[tokio::test]
async fn a_token_that_is_struck_off_ends_its_stream() {
    let rig = Rig::with_tokens().await;
    let line = rig.line(&ClientConfig::default());
    let bearer = |role| format!("Bearer {}", token(role));
    let (viewer, operator) = (bearer(Role::Viewer), bearer(Role::Operator));
    let ended = held(&line, &[("authorization", &viewer)]).await;
    let other = held(&line, &[("authorization", &operator)]).await;
    // A file that was cut off strikes nobody off.
    rig.files.put("tokens.toml", "");
    rig.reload().await;
    assert!(!ended.is_finished());
    rig.files.put("tokens.toml", &tokens(&[Role::Operator]));
    rig.reload().await;
    let outcome = ends(ended, 5).await;
    assert!(
        outcome.is(Code::Unauthenticated, "CREDENTIALS_INVALID"),
        "{outcome:?}"
    );
    assert!(!other.is_finished());
    rig.files.put("tokens.toml", &tokens(&[]));
    rig.reload().await;
    assert_eq!(ends(other, 5).await.reason, "CREDENTIALS_INVALID");
}

#[tokio::test]
async fn a_key_that_is_not_usable_keeps_no_revocation_from_counting() {
    let rig = Rig::start(|files, tls, _| with_crl(files, tls)).await;
    let lost = rig
        .clients
        .issue(&[&format!("{SPIFFE}operator")], When::Now);
    let held = held(&rig.with(&lost), &[]).await;
    rig.files.put("server.key", "hush-hush");
    rig.files.put("crl.pem", &rig.clients.revoked(&[&lost]));
    rig.reload().await;
    assert_eq!(ends(held, 5).await.reason, "CREDENTIALS_INVALID");
}

#[tokio::test]
async fn a_revocation_list_that_is_out_of_date_lets_nobody_in() {
    let rig = Rig::start(|files, tls, _| with_crl(files, tls)).await;
    let line = rig.of(Role::Operator);
    assert_eq!(call(&line, "/test.Who/Write", &[]).await.code, SERVED);
    let held = held(&line, &[]).await;
    rig.files
        .put("crl.pem", &rig.clients.revoked_until(&[], 2022));
    rig.reload().await;
    let outcome = call(&rig.of(Role::Viewer), "/test.Who/Read", &[]).await;
    assert_eq!(outcome.reason, "no answer", "{outcome:?}");
    assert_eq!(ends(held, 5).await.reason, "CREDENTIALS_INVALID");
}

#[tokio::test]
async fn an_authority_between_that_is_revoked_takes_its_certificates_with_it() {
    let rig = Rig::start(|files, tls, _| with_crl(files, tls)).await;
    let (between, serial) = rig.clients.below("between");
    let mut issued = between.issue(&[&format!("{SPIFFE}operator")], When::Now);
    issued.cert += &between.pem();
    let line = rig.with(&issued);
    let both =
        |above: &[u64]| rig.clients.revoked_until(above, 4000) + &between.revoked_until(&[], 4000);
    // Of the one between no list speaks yet.
    assert_eq!(
        call(&line, "/test.Who/Write", &[]).await.reason,
        "no answer"
    );
    rig.files.put("crl.pem", &both(&[]));
    rig.reload().await;
    assert_eq!(call(&line, "/test.Who/Write", &[]).await.code, SERVED);
    rig.files.put("crl.pem", &both(&[serial]));
    rig.reload().await;
    let outcome = call(&line, "/test.Who/Write", &[]).await;
    assert!(outcome.code != SERVED, "{outcome:?}");
}

#[tokio::test]
async fn a_client_leaves_a_server_whose_authority_it_believes_no_more() {
    let rig = Rig::start(|_, _, _| {}).await;
    let line = rig.of(Role::Operator);
    let held = held(&line, &[]).await;
    rig.files
        .put("servers-ca.pem", &Authority::new("servers").pem());
    ends(held, 15).await;
    let outcome = call(&line, "/test.Who/Write", &[]).await;
    assert_eq!(outcome.reason, "no answer", "{outcome:?}");
    rig.files.put("servers-ca.pem", &rig.servers.pem());
    let again = async { while call(&line, "/test.Who/Write", &[]).await.code != SERVED {} };
    tokio::time::timeout(Duration::from_secs(15), again)
        .await
        .unwrap();
}

//! Certificates, authorities, revocations and tokens that change while connections are open.

use crate::HEALTH;
use crate::authority::{Authority, When};
use crate::rig::{Rig, SERVED, SPIFFE, call, ending, send, token, tokens};
use livemerge_runtime::{ClientConfig, Role};
use std::time::Duration;
use tonic::Code;

#[tokio::test]
async fn a_new_server_certificate_is_shown_to_new_connections_and_old_ones_go_on() {
    let rig = Rig::start(|_, _, _| {}).await;
    let old = rig.of(Role::Operator);
    let held = send(&old, "/test.Who/Hold", &[]).await.unwrap();
    let held = tokio::spawn(ending(held));

    let successor = Authority::new("servers");
    rig.files
        .put_issued("server", &successor.issue(&["127.0.0.1"], When::Now));
    rig.reload().await;
    assert_eq!(call(&old, "/test.Who/Write", &[]).await.code, SERVED);
    assert!(!held.is_finished(), "the stream goes on");
    let outcome = call(&rig.of(Role::Operator), HEALTH, &[]).await;
    assert_eq!(
        outcome.reason, "no answer",
        "the old authority alone is trusted: {outcome:?}"
    );
    rig.files.put("servers-ca.pem", &successor.pem());
    assert_eq!(
        call(&rig.of(Role::Operator), HEALTH, &[]).await.code,
        Code::Ok
    );
}

#[tokio::test]
async fn half_a_rotation_changes_nothing() {
    let rig = Rig::start(|_, _, _| {}).await;
    let fresh = rig.servers.issue(&["127.0.0.1"], When::Now);
    for (file, content) in [
        ("server.pem", fresh.cert.as_str()),
        ("server.key", "hush-hush"),
        ("clients-ca.pem", ""),
    ] {
        let before = std::fs::read_to_string(rig.files.path(file)).unwrap();
        rig.files.put(file, content);
        rig.reload().await;
        let outcome = call(&rig.of(Role::Operator), "/test.Who/Write", &[]).await;
        assert_eq!(outcome.code, SERVED, "{file} {outcome:?}");
        rig.files.put(file, &before);
    }
}

#[tokio::test]
async fn an_authority_that_is_taken_out_shuts_its_clients_out() {
    let rig = Rig::start(|_, _, _| {}).await;
    let old = rig.of(Role::Operator);
    let held = tokio::spawn(ending(send(&old, "/test.Who/Hold", &[]).await.unwrap()));
    let successor = Authority::new("clients");

    // Both, so that clients can change over one by one.
    rig.files
        .put("clients-ca.pem", &(rig.clients.pem() + &successor.pem()));
    rig.reload().await;
    let new = rig.with(&successor.issue(&[&format!("{SPIFFE}operator")], When::Now));
    for line in [&old, &new] {
        assert_eq!(call(line, "/test.Who/Write", &[]).await.code, SERVED);
    }
    rig.files.put("clients-ca.pem", &successor.pem());
    rig.reload().await;
    assert_eq!(call(&new, "/test.Who/Write", &[]).await.code, SERVED);
    let outcome = call(&old, "/test.Who/Write", &[]).await;
    assert!(outcome.shut_out(), "{outcome:?}");
    let ended = tokio::time::timeout(Duration::from_secs(5), held).await;
    assert!(
        ended.is_ok(),
        "its connection is closed, and the stream with it"
    );
    let shut_out = async { while call(&old, HEALTH, &[]).await.reason != "no answer" {} };
    tokio::time::timeout(Duration::from_secs(10), shut_out)
        .await
        .unwrap();
    assert_eq!(call(&new, "/test.Who/Write", &[]).await.code, SERVED);
}

#[tokio::test]
async fn one_certificate_is_revoked_and_the_others_stay() {
    let rig = Rig::start(|files, tls, _| tls.client_crl_file = Some(files.path("crl.pem"))).await;
    let name = format!("{SPIFFE}operator");
    let lost = rig.clients.issue(&[&name], When::Now);
    let (bad, good) = (rig.with(&lost), rig.of(Role::Operator));
    for line in [&bad, &good] {
        assert_eq!(call(line, "/test.Who/Write", &[]).await.code, SERVED);
    }
    rig.files.put("crl.pem", &rig.clients.revoked(&[&lost]));
    rig.reload().await;
    let outcome = call(&bad, "/test.Who/Write", &[]).await;
    assert!(outcome.shut_out(), "{outcome:?}");
    assert_eq!(
        call(&rig.with(&lost), HEALTH, &[]).await.reason,
        "no answer"
    );
    assert_eq!(call(&good, "/test.Who/Write", &[]).await.code, SERVED);
}

#[tokio::test]
async fn a_token_that_is_struck_off_is_refused_on_open_connections() {
    let rig = Rig::with_tokens().await;
    let line = rig.line(&ClientConfig::default());
    let bearer = format!("Bearer {}", token(Role::Viewer));
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(call(&line, "/test.Who/Read", &headers).await.code, SERVED);
    rig.files.put("tokens.toml", &tokens(&[Role::Operator]));
    rig.reload().await;
    let outcome = call(&line, "/test.Who/Read", &headers).await;
    assert!(
        outcome.is(Code::Unauthenticated, "CREDENTIALS_INVALID"),
        "{outcome:?}"
    );
    // By the clock too, without a signal.
    rig.files.put("tokens.toml", &tokens(&[Role::Viewer]));
    let seen = async {
        while call(&line, "/test.Who/Read", &headers).await.code != SERVED {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), seen)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_client_shows_its_new_certificate_once_the_old_one_is_refused() {
    let rig = Rig::start(|files, tls, _| tls.client_crl_file = Some(files.path("crl.pem"))).await;
    let name = format!("{SPIFFE}agent");
    let old = rig.clients.issue(&[&name], When::Now);
    let (cert, key) = rig.files.put_issued("agent", &old);
    let agent = rig.line(&ClientConfig {
        cert_file: Some(cert),
        key_file: Some(key),
        ..rig.trusting()
    });
    assert_eq!(call(&agent, "/test.Who/Register", &[]).await.code, SERVED);
    rig.files
        .put_issued("agent", &rig.clients.issue(&[&name], When::Now));
    rig.files.put("crl.pem", &rig.clients.revoked(&[&old]));
    rig.reload().await;
    let outcome = call(&agent, "/test.Who/Register", &[]).await;
    assert!(outcome.shut_out(), "{outcome:?}");
    let again = async {
        while call(&agent, "/test.Who/Register", &[]).await.code != SERVED {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again)
        .await
        .unwrap();
}

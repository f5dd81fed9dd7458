//! Tokens that somebody else has signed, over a real connection.

use crate::authority::{Files, since_1970};
use crate::rig::{Rig, call, ending, send, token};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use livemerge_runtime::{ClientConfig, JwtConfig, Line, Role};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use std::time::Duration;
use tonic::Code;

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

struct Issuer(Ed25519KeyPair);

impl Issuer {
    fn new() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Issuer(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    fn keys(&self) -> String {
        let x = encoded(self.0.public_key());
        format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"k","x":"{x}"}}]}}"#)
    }

    /// The header of a call by Ann, who is an operator for so long.
    fn bearer(&self, seconds: i64) -> String {
        let until = i64::try_from(since_1970().as_secs()).unwrap() + seconds;
        let claims = format!(
            r#"{{"iss":"i","aud":"livemerge","sub":"ann","exp":{until},"roles":["operator"]}}"#
        );
        let said = format!(
            "{}.{}",
            encoded(r#"{"alg":"EdDSA","kid":"k"}"#),
            encoded(claims)
        );
        format!("Bearer {said}.{}", encoded(self.0.sign(said.as_bytes())))
    }
}

async fn start(issuer: &Issuer) -> (Rig, Line) {
    let listen = livemerge_runtime::ListenConfig::loopback(0);
    let rig = Rig::start_at(listen, Files::new(), |files, tls, auth| {
        *tls = livemerge_runtime::TlsConfig::default();
        auth.subjects.clear();
        auth.jwt = Some(JwtConfig {
            jwks_file: files.put("jwks.json", &issuer.keys()),
            issuer: "i".to_owned(),
            audience: "livemerge".to_owned(),
            roles_claim: "roles".to_owned(),
            host_claim: None,
            leeway_seconds: 0,
        });
    })
    .await;
    let line = rig.line(&ClientConfig::default());
    (rig, line)
}

#[tokio::test]
async fn a_signed_token_is_taken_beside_the_others() {
    let issuer = Issuer::new();
    let (_rig, line) = start(&issuer).await;
    let bearer = issuer.bearer(300);
    let outcome = call(&line, "/test.Who/Write", &[("authorization", &bearer)]).await;
    assert!(outcome.served("jwt:ann"), "{outcome:?}");
    let outcome = call(&line, "/test.Who/Order", &[("authorization", &bearer)]).await;
    assert_eq!(outcome.reason, "METHOD_NOT_PERMITTED", "{outcome:?}");
    let own = format!("Bearer {}", token(Role::Viewer));
    let outcome = call(&line, "/test.Who/Read", &[("authorization", &own)]).await;
    assert!(outcome.served("token:viewer"), "{outcome:?}");
    for (bad, text) in [
        (issuer.bearer(-5), "expired"),
        (Issuer::new().bearer(300), "not known"),
        (bearer[..bearer.len() - 4].to_owned(), "not known"),
    ] {
        let outcome = call(&line, "/test.Who/Write", &[("authorization", &bad)]).await;
        let invalid = outcome.is(Code::Unauthenticated, "CREDENTIALS_INVALID");
        assert!(invalid && outcome.text.contains(text), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_signed_token_that_expires_ends_its_stream() {
    let issuer = Issuer::new();
    let (_rig, line) = start(&issuer).await;
    let headers = [("authorization", issuer.bearer(4))];
    let headers = headers
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let held = send(&line, "/test.Who/Hold", &headers).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), ending(held)).await;
    assert_eq!(ended.unwrap().text, "the bearer token has expired");
}

#[tokio::test]
async fn keys_that_are_replaced_end_what_the_old_ones_began() {
    let issuer = Issuer::new();
    let (rig, line) = start(&issuer).await;
    let bearer = issuer.bearer(300);
    let headers = [("authorization", bearer.as_str())];
    let held = tokio::spawn(ending(
        send(&line, "/test.Who/Hold", &headers).await.unwrap(),
    ));
    let successor = Issuer::new();
    rig.files.put("jwks.json", &successor.keys());
    rig.reload().await;
    let ended = tokio::time::timeout(Duration::from_secs(5), held)
        .await
        .unwrap();
    assert_eq!(ended.unwrap().reason, "CREDENTIALS_INVALID");
    let bearer = successor.bearer(300);
    let outcome = call(&line, "/test.Who/Write", &[("authorization", &bearer)]).await;
    assert!(outcome.served("jwt:ann"), "{outcome:?}");
}

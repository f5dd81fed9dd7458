//! Who is let in, and who is not: every kind of credential over real connections.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod authority;
mod jwt;
mod logs;
mod names;
mod places;
mod reload;
mod revoked;
mod rig;

use authority::{Authority, Files, When};
use livemerge_runtime::{
    ClientCertificate, ClientConfig, ListenAddress, ListenConfig, Role, TlsConfig,
};
use rig::{METHODS, Rig, SERVED, SPIFFE, call, token};
use tonic::Code;

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const REFLECTION: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

#[tokio::test]
async fn each_method_takes_its_roles_and_no_others() {
    let rig = Rig::with_tokens().await;
    let line = rig.line(&ClientConfig::default());
    for role in Role::ALL {
        let bearer = format!("Bearer {}", token(role));
        let headers = [("authorization", bearer.as_str())];
        for (method, roles) in METHODS.iter().filter(|(method, _)| *method != "Hold") {
            let outcome = call(&line, &format!("/test.Who/{method}"), &headers).await;
            if roles.contains(&role) {
                let name = format!("token:{}", role.as_str());
                assert!(outcome.served(&name), "{method} {role:?} {outcome:?}");
            } else {
                let refused = outcome.is(Code::PermissionDenied, "METHOD_NOT_PERMITTED");
                assert!(refused, "{method} {role:?} {outcome:?}");
            }
        }
        for unruled in [
            "/test.Who/Unruled",
            "/test.Who/read",
            "/no.Such/Method",
            "/",
        ] {
            let outcome = call(&line, unruled, &headers).await;
            let refused = outcome.is(Code::PermissionDenied, "METHOD_NOT_PERMITTED");
            assert!(refused, "{unruled} {role:?} {outcome:?}");
        }
        for path in REFLECTION {
            let outcome = call(&line, path, &headers).await;
            let reads = matches!(role, Role::Viewer | Role::Operator);
            assert_eq!(
                outcome.code != Code::PermissionDenied,
                reads,
                "{role:?} {outcome:?}"
            );
        }
        assert_eq!(call(&line, HEALTH, &headers).await.code, Code::Ok);
    }
}

#[tokio::test]
async fn without_credentials_health_is_all_there_is() {
    let rig = Rig::with_tokens().await;
    let line = rig.line(&ClientConfig::default());
    assert_eq!(call(&line, HEALTH, &[]).await.code, Code::Ok);
    let paths = ["/test.Who/Read", "/test.Who/Unruled", "/no.Such/Method"];
    for path in paths.into_iter().chain(REFLECTION) {
        let outcome = call(&line, path, &[]).await;
        let missing = outcome.is(Code::Unauthenticated, "CREDENTIALS_MISSING");
        assert!(missing, "{path} {outcome:?}");
    }
}

#[tokio::test]
async fn a_token_counts_in_its_place_alone() {
    let rig = Rig::with_tokens().await;
    let line = rig.line(&ClientConfig::default());
    let good = token(Role::Operator);
    let bearer = format!("Bearer {good}");
    let elsewhere: [(&str, &[(&str, &str)]); 6] = [
        ("/test.Who/Read", &[("x-authorization", &bearer)]),
        ("/test.Who/Read", &[("token", &good)]),
        ("/test.Who/Read", &[("cookie", &bearer)]),
        ("/test.Who/Read", &[("proxy-authorization", &bearer)]),
        (&format!("/test.Who/Read?access_token={good}"), &[]),
        (
            &format!("/test.Who/Read?authorization=Bearer%20{good}"),
            &[],
        ),
    ];
    for (path, headers) in elsewhere {
        let outcome = call(&line, path, headers).await;
        let missing = outcome.is(Code::Unauthenticated, "CREDENTIALS_MISSING");
        assert!(missing, "{path} {headers:?} {outcome:?}");
    }
    let wrong: [&[(&str, &str)]; 7] = [
        &[("authorization", &good)],
        &[("authorization", "Bearer hush-hush-nobody")],
        &[("authorization", "Bearer ")],
        &[("authorization", &format!("{bearer} "))],
        &[("authorization", &format!("Basic {good}"))],
        &[("authorization", &bearer.to_uppercase())],
        &[("authorization", &bearer), ("authorization", &bearer)],
    ];
    for headers in wrong {
        let outcome = call(&line, "/test.Who/Read", headers).await;
        let invalid = outcome.is(Code::Unauthenticated, "CREDENTIALS_INVALID");
        assert!(invalid, "{headers:?} {outcome:?}");
        assert!(!outcome.text.contains("hush"), "{outcome:?}");
    }
    let outcome = call(&line, "/test.Who/Read", &[("authorization", &bearer)]).await;
    assert!(outcome.served("token:operator"), "{outcome:?}");
}

#[tokio::test]
async fn a_client_sends_the_token_of_its_file() {
    let rig = Rig::with_tokens().await;
    let line = rig.line(&ClientConfig {
        token_file: Some(rig.files.put("token", &(token(Role::Agent) + "\n"))),
        ..ClientConfig::default()
    });
    let outcome = call(&line, "/test.Who/Register", &[]).await;
    assert!(outcome.served("token:agent"), "{outcome:?}");
}

#[tokio::test]
async fn a_certificate_gives_the_roles_of_its_names() {
    let rig = Rig::start(|_, _, _| {}).await;
    for role in Role::ALL {
        let line = rig.of(role);
        for (method, roles) in METHODS.iter().filter(|(method, _)| *method != "Hold") {
            let outcome = call(&line, &format!("/test.Who/{method}"), &[]).await;
            if roles.contains(&role) {
                let name = format!("{SPIFFE}{}", role.as_str());
                assert!(outcome.served(&name), "{method} {role:?} {outcome:?}");
            } else {
                let refused = outcome.is(Code::PermissionDenied, "METHOD_NOT_PERMITTED");
                assert!(refused, "{method} {role:?} {outcome:?}");
            }
        }
    }
    let known = format!("{SPIFFE}viewer");
    for (names, served) in [
        (vec!["viewer.example.ORG"], Some("viewer.example.org")),
        (
            vec!["stranger.example.org", known.as_str()],
            Some(known.as_str()),
        ),
        (vec!["stranger.example.org"], None),
        (vec!["viewer.example.org.evil.org"], None),
        (vec!["spiffe://example.org/livemerge/viewer/x"], None),
        (vec!["SPIFFE://example.org/livemerge/viewer"], None),
        (vec![], None),
    ] {
        let line = rig.with(&rig.clients.issue(&names, When::Now));
        let outcome = call(&line, "/test.Who/Read", &[]).await;
        match served {
            Some(name) => assert!(outcome.served(name), "{names:?} {outcome:?}"),
            None => assert_eq!(
                outcome.reason, "METHOD_NOT_PERMITTED",
                "{names:?} {outcome:?}"
            ),
        }
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_good_is_not_connected() {
    let rig = Rig::start(|_, _, _| {}).await;
    let name = format!("{SPIFFE}operator");
    let stranger = Authority::new("clients");
    for (kind, issued) in [
        ("expired", rig.clients.issue(&[&name], When::Expired)),
        ("not yet good", rig.clients.issue(&[&name], When::NotYet)),
        ("of another authority", stranger.issue(&[&name], When::Now)),
        (
            "of the servers' authority",
            rig.servers.issue(&[&name], When::Now),
        ),
    ] {
        for path in ["/test.Who/Write", HEALTH] {
            let outcome = call(&rig.with(&issued), path, &[]).await;
            assert!(
                outcome.is(Code::Unavailable, "no answer"),
                "{kind} {outcome:?}"
            );
        }
    }
    let bearer = format!("Bearer {}", token(Role::Operator));
    for headers in [&[][..], &[("authorization", bearer.as_str())]] {
        let outcome = call(&rig.line(&rig.trusting()), HEALTH, headers).await;
        assert!(
            outcome.is(Code::Unavailable, "no answer"),
            "no certificate: {outcome:?}"
        );
    }
    let plain = rig.line(&ClientConfig::default());
    assert_eq!(
        call(&plain, HEALTH, &[]).await.reason,
        "no answer",
        "plaintext"
    );
    let outcome = call(&rig.of(Role::Operator), "/test.Who/Write", &[]).await;
    assert_eq!(outcome.code, SERVED);
}

#[tokio::test]
async fn where_certificates_are_optional_a_token_does() {
    let optional = |_: &_, tls: &mut TlsConfig, _: &mut _| {
        tls.client_certificate = ClientCertificate::Optional;
    };
    let rig = Rig::start(optional).await;
    let line = rig.line(&rig.trusting());
    assert_eq!(call(&line, HEALTH, &[]).await.code, Code::Ok);
    let outcome = call(&line, "/test.Who/Read", &[]).await;
    assert!(
        outcome.is(Code::Unauthenticated, "CREDENTIALS_MISSING"),
        "{outcome:?}"
    );
    let bearer = format!("Bearer {}", token(Role::Viewer));
    let headers = [("authorization", bearer.as_str())];
    assert!(
        call(&line, "/test.Who/Read", &headers)
            .await
            .served("token:viewer")
    );

    // Of two credentials the token counts, and a wrong one is not made good by the other.
    let line = rig.of(Role::Operator);
    let outcome = call(&line, "/test.Who/Write", &headers).await;
    assert_eq!(outcome.reason, "METHOD_NOT_PERMITTED", "{outcome:?}");
    let headers = [("authorization", "Bearer wrong")];
    let outcome = call(&line, "/test.Who/Write", &headers).await;
    assert_eq!(outcome.reason, "CREDENTIALS_INVALID", "{outcome:?}");
    let expired = rig
        .clients
        .issue(&[&format!("{SPIFFE}operator")], When::Expired);
    let outcome = call(&rig.with(&expired), HEALTH, &[]).await;
    assert_eq!(
        outcome.reason, "no answer",
        "a bad one is not taken for none"
    );
}

#[tokio::test]
async fn a_client_believes_no_server_but_the_one_it_means() {
    let rig = Rig::start(|_, _, _| {}).await;
    let own = rig.showing(&rig.clients.issue(&["a"], When::Now));
    let other_name = ClientConfig {
        server_name: Some("api.example.org".to_owned()),
        ..own.clone()
    };
    let other_authority = ClientConfig {
        ca_file: Some(rig.files.path("clients-ca.pem")),
        ..own.clone()
    };
    for client in [other_name, other_authority] {
        let outcome = call(&rig.line(&client), HEALTH, &[]).await;
        assert_eq!(outcome.reason, "no answer", "{client:?} {outcome:?}");
    }
    assert_eq!(call(&rig.line(&own), HEALTH, &[]).await.code, Code::Ok);
}

#[tokio::test]
async fn a_unix_socket_is_without_tls_and_asks_for_a_token() {
    let files = Files::new();
    let listen = ListenConfig {
        address: ListenAddress::Unix(files.path("a.sock")),
        ..ListenConfig::default()
    };
    let rig = Rig::start_at(listen, files, |_, _, _| {}).await;
    let client = ClientConfig {
        token_file: Some(rig.files.put("token", &token(Role::Server))),
        ..ClientConfig::default()
    };
    let socket = rig.address.to_string();
    let line = |client: &ClientConfig| {
        let client = client.open(false).unwrap();
        client.line(&socket, |endpoint| endpoint).unwrap()
    };
    let outcome = call(&line(&client), "/test.Who/Order", &[]).await;
    assert!(outcome.served("token:server"), "{outcome:?}");
    let outcome = call(&line(&ClientConfig::default()), "/test.Who/Order", &[]).await;
    assert_eq!(outcome.reason, "CREDENTIALS_MISSING", "{outcome:?}");
}

//! Names: of certificates, and of what is called.

use crate::authority::When;
use crate::rig::{Rig, SERVED, SPIFFE, call};
use livemerge_runtime::ClientConfig;

#[tokio::test]
async fn the_caller_is_the_name_whose_role_let_it_in() {
    let rig = Rig::start(|_, _, _| {}).await;
    let operator = format!("{SPIFFE}operator");
    let stranger = "https://stranger.example.org/x";
    for (names, method, who) in [
        (
            vec!["viewer.example.org", &operator],
            "Write",
            operator.as_str(),
        ),
        (
            vec!["viewer.example.org", &operator],
            "Read",
            operator.as_str(),
        ),
        (
            vec!["viewer.example.org", stranger],
            "Read",
            "viewer.example.org",
        ),
    ] {
        let line = rig.with(&rig.clients.issue(&names, When::Now));
        let outcome = call(&line, &format!("/test.Who/{method}"), &[]).await;
        assert!(outcome.served(who), "{names:?} {outcome:?}");
    }
    // The role of the one does not let in what only the other may.
    let (server, viewer) = (format!("{SPIFFE}server"), "viewer.example.org");
    let line = rig.with(&rig.clients.issue(&[viewer, &server], When::Now));
    assert!(call(&line, "/test.Who/Order", &[]).await.served(&server));
    let outcome = call(&line, "/test.Who/Write", &[]).await;
    assert_eq!(outcome.reason, "METHOD_NOT_PERMITTED", "{outcome:?}");
}

#[tokio::test]
async fn a_certificate_with_two_spiffe_names_is_nobodys() {
    let rig = Rig::start(|_, _, _| {}).await;
    let (one, other) = (format!("{SPIFFE}operator"), "spiffe://example.org/else");
    let line = rig.with(&rig.clients.issue(&[&one, other], When::Now));
    let outcome = call(&line, "/test.Who/Read", &[]).await;
    assert_eq!(outcome.reason, "CREDENTIALS_INVALID", "{outcome:?}");
}

#[tokio::test]
async fn subjects_come_and_go_with_their_file() {
    let known = "[subjects]\n'late.example.org' = 'operator'\n";
    let rig = Rig::start(|files, _, auth| {
        auth.subjects_file = Some(files.put("subjects.toml", "[subjects]\n"));
    })
    .await;
    let line = rig.with(&rig.clients.issue(&["late.example.org"], When::Now));
    let outcome = call(&line, "/test.Who/Write", &[]).await;
    assert_eq!(outcome.reason, "METHOD_NOT_PERMITTED", "{outcome:?}");
    rig.files.put("subjects.toml", known);
    rig.reload().await;
    assert_eq!(call(&line, "/test.Who/Write", &[]).await.code, SERVED);
    for bad in [
        "",
        "[subjects]\n'*' = 'operator'\n",
        "[subjects]\n'viewer.example.org' = 'operator'\n",
    ] {
        rig.files.put("subjects.toml", bad);
        rig.reload().await;
        assert_eq!(
            call(&line, "/test.Who/Write", &[]).await.code,
            SERVED,
            "{bad}"
        );
    }
    rig.files
        .put("subjects.toml", &known.replace("operator", "viewer"));
    rig.reload().await;
    let outcome = call(&line, "/test.Who/Write", &[]).await;
    assert_eq!(outcome.reason, "METHOD_NOT_PERMITTED", "{outcome:?}");
}

#[tokio::test]
async fn a_scheme_in_other_letters_is_called_with_tls() {
    let rig = Rig::start(|_, _, _| {}).await;
    let name = format!("{SPIFFE}operator");
    let (cert, key) = rig
        .files
        .put_issued("own", &rig.clients.issue(&[&name], When::Now));
    let client = ClientConfig {
        cert_file: Some(cert),
        key_file: Some(key),
        ..rig.trusting()
    };
    for scheme in ["HTTPS", "Https", "hTTPs"] {
        let address = format!("{scheme}://{}", rig.address);
        let line = client
            .open(false)
            .unwrap()
            .line(&address, |endpoint| endpoint);
        let outcome = call(&line.unwrap(), "/test.Who/Write", &[]).await;
        assert!(outcome.served(&name), "{scheme} {outcome:?}");
    }
    assert!(
        rig.line_to("HTTPS", &ClientConfig::default()).is_err(),
        "nor in plaintext without"
    );
}

//! Names: of certificates, and of what is called.

use crate::authority::When;
use crate::rig::{Rig, SERVED, SPIFFE, call};
use livemerge_runtime::{ClientConfig, Rules, Security};

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
    let client = rig.showing(&rig.clients.issue(&[&name], When::Now));
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

/// The server is called as the agent of a host, by another one that knows which names that has.
#[tokio::test]
async fn a_server_is_called_as_a_host_by_the_names_that_are_bound_to_it() {
    let (one, two) = (format!("{SPIFFE}agent/h1"), format!("{SPIFFE}agent/h2"));
    let mut caller = None;
    let rig = Rig::start(|files, tls, auth| {
        let subjects = format!(
            "[subjects]\n'{one}' = {{ role = 'agent', host = 'h1' }}\n\
             '{two}' = {{ role = 'agent', host = 'h2' }}\n'127.example.org' = 'agent'\n"
        );
        auth.subjects_file = Some(files.put("subjects.toml", &subjects));
        caller = Some(Security::open(tls, Some(auth), Rules::new()).unwrap());
    })
    .await;
    let names = caller.unwrap().host_names().unwrap();
    let name = format!("{SPIFFE}operator");
    let client = rig.showing(&rig.clients.issue(&[&name], When::Now));
    let client = client.open(false).unwrap();
    let address = format!("https://{}", rig.address);
    let asked = async |host: &str| {
        let names = Some(names.of(host));
        let line = client.line_to(&address, names, |endpoint| endpoint);
        call(&line.unwrap(), "/test.Who/Write", &[]).await
    };
    let shows = async |shown: &[&str]| {
        let shown = [&["127.0.0.1"], shown].concat();
        let issued = rig.servers.issue(&shown, When::Now);
        rig.files.put_issued("server", &issued);
        rig.reload().await;
    };
    // For its address alone; as another one's agent; as an agent of no host; as two.
    for shown in [
        vec![],
        vec![two.as_str()],
        vec!["127.example.org"],
        vec![&one, &two],
    ] {
        shows(&shown).await;
        let outcome = asked("h1").await;
        assert_eq!(outcome.reason, "no answer", "{shown:?}");
        assert!(outcome.text.contains("of host h1"), "{outcome:?}");
    }
    shows(&[&one]).await;
    assert!(asked("h1").await.served(&name));
    assert_eq!(asked("h2").await.reason, "no answer");
    let plain = ClientConfig::default().open(false).unwrap();
    let near = plain.line_to("http://127.0.0.1:1", Some(names.of("h1")), |it| it);
    assert!(near.unwrap_err().contains("not https"));
}

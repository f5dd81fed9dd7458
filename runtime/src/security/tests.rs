use super::*;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    #[serde(default)]
    tls: TlsConfig,
    auth: Option<AuthConfig>,
}

fn check(text: &str) -> Result<(), String> {
    let tables: Tables = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    let checked = Security::check(&tables.tls, tables.auth.as_ref());
    checked.map_err(|error| error.to_string())
}

const CERT: &str = "[tls]\ncert_file = '/c'\nkey_file = '/k'\n";
const CA: &str = "client_ca_file = '/a'\n";
const SUBJECT: &str = "[auth.subjects]\n'spiffe://a/b' = 'server'\n";
const JWT: &str = "[auth.jwt]\njwks_file = '/j'\nissuer = 'i'\naudience = 'me'\n";
const TOKENS: &str = "[auth]\ntokens_file = '/t'\n";

#[test]
fn tables_that_belong_together_are_taken() {
    for good in [
        String::new(),
        CERT.to_owned(),
        TOKENS.to_owned(),
        JWT.to_owned(),
        format!("{CERT}{CA}[auth]\nsubjects_file = '/s'\n"),
        format!("{CERT}{TOKENS}"),
        format!("{CERT}{CA}{SUBJECT}"),
        format!("{CERT}{CA}client_crl_file = '/r'\n{TOKENS}"),
        format!("{CERT}{CA}client_certificate = 'optional'\n{SUBJECT}"),
    ] {
        assert_eq!(check(&good), Ok(()), "{good}");
    }
}

#[test]
fn what_would_be_less_than_it_looks_is_refused() {
    for (bad, named) in [
        ("[tls]\ncert_file = '/c'\n".to_owned(), "tls.cert_file"),
        ("[tls]\nkey_file = '/k'\n".to_owned(), "tls.key_file"),
        (format!("[tls]\n{CA}"), "tls.client_ca_file"),
        // Certificates that give no role: whoever has one would be let in to nothing, or to all.
        (format!("{CERT}{CA}"), "tls.client_ca_file"),
        (
            format!("{CERT}client_crl_file = '/r'\n"),
            "tls.client_crl_file",
        ),
        (
            format!("{CERT}client_certificate = 'optional'\n"),
            "tls.client_certificate",
        ),
        (format!("{CERT}{SUBJECT}"), "auth.subjects"),
        (SUBJECT.to_owned(), "auth.subjects"),
        (
            format!("{CERT}{CA}[auth.subjects]\n'' = 'viewer'\n"),
            "auth.subjects",
        ),
        (
            format!("{CERT}{CA}[auth.subjects]\n'a.org' = 'viewer'\n'A.org' = 'operator'\n"),
            "auth.subjects",
        ),
        (
            format!("{CERT}{CA}[auth.subjects]\n'a.org' = {{ role = 'server', host = 'h1' }}\n"),
            "auth.subjects",
        ),
        (
            "[auth]\nsubjects_file = '/s'\n".to_owned(),
            "auth.subjects_file",
        ),
        // A table that knows nobody lets nobody in: surely something was forgotten.
        ("[auth]\n".to_owned(), "auth"),
        (format!("{CERT}[auth]\n"), "auth"),
        (format!("{CERT}{CA}[auth.subjects]\n"), "auth"),
        (JWT.replace("'me'", "''"), "auth.jwt.audience"),
        (
            JWT.to_owned() + "leeway_seconds = 301",
            "auth.jwt.leeway_seconds",
        ),
    ] {
        let refused = check(&bad).unwrap_err();
        assert!(refused.starts_with(named), "{bad}: {refused}");
    }
    for unknown in [
        "[tls]\ncert = '/c'\n",
        "[auth]\ntokens = '/t'\n",
        "[auth.subjects]\na = 'admin'\n",
        "[auth.subjects]\na = 'Operator'\n",
        "[tls]\nclient_certificate = 'none'\n",
    ] {
        let refused = check(unknown).unwrap_err();
        assert!(refused.starts_with("unknown "), "{unknown}: {refused}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let auth: AuthConfig = toml::from_str("tokens_file = '/nowhere/tokens.toml'").unwrap();
    let opened = Security::open(&TlsConfig::default(), Some(&auth), Rules::new());
    let refused = opened.unwrap_err();
    assert_eq!(refused.to_string(), "cannot read /nowhere/tokens.toml");
}

#[test]
fn others_hear_a_server_that_has_tls_and_knows_its_callers() {
    for (text, reach) in [
        (String::new(), Reach::Near),
        (CERT.to_owned(), Reach::Near),
        (TOKENS.to_owned(), Reach::Near),
        (format!("{CERT}{TOKENS}"), Reach::Far),
        (format!("{CERT}{CA}{SUBJECT}"), Reach::Far),
    ] {
        let Tables { tls, auth } = toml::from_str(&text).unwrap();
        assert_eq!(Reach::of(&tls, auth.as_ref(), false), reach, "{text}");
        assert_eq!(Reach::of(&tls, auth.as_ref(), true), Reach::Far, "{text}");
    }
}

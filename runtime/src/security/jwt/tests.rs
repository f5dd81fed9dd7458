#![allow(
    clippy::needless_pass_by_value,
    reason = "claims are written where they are passed"
)]

use super::*;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use serde_json::json;

/// A public key whose private one is nobody's any more, and what it signed until the year 4000.
const RSA_N: &str = "uoNpZggIr0_KHuTNicUnfNs0s2JnaUWmeF3FsqMzkoFwz4YBLtfvzVBmBmKVtB4PMyOPAy3svZKrpQWHJ-4zf3ZKFcnG92AKWODgmCuXGyOqphpougLbdlE_SponKyho0Bvsc8TIGzf2pEfA2ya275Bjuxsp-LDm3zXWaEtd_s9BzHOwvkR7qnHoWuvphj4fkMa14o9A_adU80jPUzf9zeupzir-zw_6LVbNqTGonqDMyCx2ybmx3gXAAuo7ZJP5sZMBSJfznrjQ_RpP7aG0OVmmVVhSnAx0XC28NcVVhHKscvR3ZGnuweIyY9NG7-8pNloCsnk6Ld7FKz5CrvNQHw";
const RSA_TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlLm9yZyIsImF1ZCI6ImxpdmVtZXJnZSIsInN1YiI6ImFubiIsImV4cCI6NjQwNjA1ODg4MDAsInJvbGVzIjpbIm9wZXJhdG9yIl19.Y71sRsRyieP8enfRr0N-gFWyZLDTnJinXMIfaDKmg1Elodkm1ZDNmmtaOGB2iouGvzfhr6nYefVw2TIpG9eqrIVq7U19gU_ChnZmPjB3rkxPLej4P027POSwiTmWl1fEr7SaA5zVB9k0DB-E6rNC30CNNUhKwwXBs3WBiY-d71AafHVa67Bmzh0jh2PCZbON8QCHl4Qx2LzGwnfgUF8nftK2apmzhwch1MLQUBAomM0BIQdBps_7BATR8MSyeBJTYt35FrowCHUJYRpmSWgACVmRWfw6DQhA-b8OcSHMYWDVJtCz-_5viyFs-xUprEhbFhAcpw3sW8hSgDyk_5s64w";
const ISSUER: &str = "https://issuer.example.org";

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn now() -> u64 {
    jsonwebtoken::get_current_timestamp()
}

/// An issuer with a key of each kind, and the file of its keys.
struct Issuer {
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
    dir: tempfile::TempDir,
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let signing = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let ec = EcdsaKeyPair::generate_pkcs8(signing, &random).unwrap();
        let issuer = Issuer {
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
            ec: EcdsaKeyPair::from_pkcs8(signing, ec.as_ref(), &random).unwrap(),
            dir: tempfile::tempdir().unwrap(),
        };
        issuer.publish(issuer.keys());
        issuer
    }

    fn keys(&self) -> Vec<Value> {
        let point = self.ec.public_key().as_ref();
        let (x, y) = (encoded(&point[1..33]), encoded(&point[33..]));
        let ed = encoded(self.ed.public_key());
        vec![
            json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "use": "sig", "x": ed }),
            json!({ "kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "x": x, "y": y }),
            json!({ "kty": "RSA", "kid": "rsa", "n": RSA_N, "e": "AQAB" }),
            json!({ "kty": "oct", "kid": "hmac", "k": encoded("hush-hush") }),
            json!({ "kty": "RSA", "kid": "enc", "use": "enc", "n": RSA_N, "e": "AQAB" }),
            json!({ "kty": "new", "kid": "new" }),
        ]
    }

    fn publish(&self, keys: Vec<Value>) {
        let set = json!({ "keys": keys });
        std::fs::write(self.dir.path().join("jwks.json"), set.to_string()).unwrap();
    }

    fn open(&self) -> Jwts {
        self.open_with(None)
    }

    fn open_with(&self, host_claim: Option<&str>) -> Jwts {
        Jwts::open(&JwtConfig {
            jwks_file: self.dir.path().join("jwks.json"),
            issuer: ISSUER.to_owned(),
            audience: "livemerge".to_owned(),
            roles_claim: roles(),
            host_claim: host_claim.map(str::to_owned),
            leeway_seconds: 30,
        })
        .unwrap()
    }

    /// A token as the header says, whose claims are as `change` leaves them.
    fn token(&self, header: Value, change: Value) -> String {
        let mut claims = json!({
            "iss": ISSUER, "aud": "livemerge", "sub": "ann", "exp": now() + 300, "roles": ["viewer"],
        });
        for (name, value) in change.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        let said = format!(
            "{}.{}",
            encoded(header.to_string()),
            encoded(claims.to_string())
        );
        let signature = match header["alg"].as_str() {
            Some("none") => Vec::new(),
            Some("ES256") => {
                let signed = self.ec.sign(&SystemRandom::new(), said.as_bytes());
                signed.unwrap().as_ref().to_vec()
            }
            Some("HS256") => {
                // As if the public key were a secret: the oldest trick.
                let secret = self.ed.public_key().as_ref();
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
                ring::hmac::sign(&key, said.as_bytes()).as_ref().to_vec()
            }
            _ => self.ed.sign(said.as_bytes()).as_ref().to_vec(),
        };
        format!("{said}.{}", encoded(signature))
    }

    fn ed(&self, change: Value) -> String {
        self.token(json!({ "alg": "EdDSA", "kid": "ed" }), change)
    }
}

#[test]
fn a_token_is_taken_by_each_algorithm() {
    let issuer = Issuer::new();
    let jwts = issuer.open();
    let ec = issuer.token(
        json!({ "alg": "ES256", "kid": "ec", "typ": "JWT" }),
        json!({}),
    );
    for (token, role) in [
        (issuer.ed(json!({})), Role::Viewer),
        (ec, Role::Viewer),
        (RSA_TOKEN.to_owned(), Role::Operator),
    ] {
        let shown = jwts.shown(&token).unwrap();
        assert_eq!(shown.name, "jwt:ann");
        assert_eq!(
            shown.grants,
            [Caller::new("jwt:ann".to_owned(), role, None)]
        );
    }
}

#[test]
fn what_a_token_must_say_is_looked_at() {
    let issuer = Issuer::new();
    let jwts = issuer.open();
    for (change, why) in [
        (json!({ "exp": now() - 31 }), "it has expired"),
        (json!({ "exp": 0 }), "it has expired"),
        (json!({ "exp": null }), "it lacks a claim"),
        (json!({ "exp": "tomorrow" }), "it lacks a claim"),
        (json!({ "nbf": now() + 60 }), "it is not good yet"),
        (json!({ "nbf": "yesterday" }), "it cannot be read"),
        (json!({ "aud": "another" }), "it is for another audience"),
        (json!({ "aud": ["another"] }), "it is for another audience"),
        (json!({ "aud": null }), "it lacks a claim"),
        (
            json!({ "iss": "https://evil.example.org" }),
            "it is from another issuer",
        ),
        (json!({ "iss": [ISSUER] }), "it cannot be read"),
        (json!({ "iss": null }), "it cannot be read"),
        (json!({ "sub": null }), "it cannot be read"),
        (json!({ "sub": "" }), "its subject is no plain name"),
        (json!({ "sub": "an n" }), "its subject is no plain name"),
    ] {
        let refused = jwts.shown(&issuer.ed(change.clone())).unwrap_err();
        assert_eq!(refused, Refusal(why), "{change}");
    }
    for change in [
        json!({ "exp": now() - 20 }),
        json!({ "nbf": now() + 20 }),
        json!({ "aud": ["another", "livemerge"] }),
    ] {
        assert!(jwts.shown(&issuer.ed(change.clone())).is_ok(), "{change}");
    }
}

#[test]
fn the_key_says_how_a_token_is_signed() {
    let issuer = Issuer::new();
    let jwts = issuer.open();
    for (header, why) in [
        (json!({ "alg": "none", "kid": "ed" }), "it cannot be read"),
        (json!({ "alg": "EdDSA" }), "it names no key"),
        (
            json!({ "alg": "EdDSA", "kid": "other" }),
            "its key is not known",
        ),
        (
            json!({ "alg": "EdDSA", "kid": "enc" }),
            "its key is not known",
        ),
        (
            json!({ "alg": "HS256", "kid": "hmac" }),
            "its key is not known",
        ),
        (
            json!({ "alg": "HS256", "kid": "ed" }),
            "it is signed by another algorithm than its key's",
        ),
        (
            json!({ "alg": "ES256", "kid": "ed" }),
            "it is signed by another algorithm than its key's",
        ),
        (
            json!({ "alg": "EdDSA", "kid": "ed", "crit": ["b64"] }),
            "it asks for extensions",
        ),
    ] {
        let refused = jwts.shown(&issuer.token(header.clone(), json!({})));
        assert_eq!(refused.unwrap_err(), Refusal(why), "{header}");
    }
    let stranger = Issuer::new();
    let refused = jwts.shown(&stranger.ed(json!({}))).unwrap_err();
    assert_eq!(refused, Refusal("its signature is wrong"));
    let whole = issuer.ed(json!({}));
    for bad in ["", "a", "a.b", "a.b.c", &whole[1..], &format!("{whole}.")] {
        assert!(jwts.shown(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_roles_are_in_a_claim_of_the_operators_choice() {
    let claims = json!({
        "roles": ["viewer", "admin", 7],
        "scope": "openid operator",
        "https://example.org/roles": ["server"],
        "realm": { "access": { "roles": ["agent"] } },
        "role": "Viewer",
    });
    for (claim, roles) in [
        ("roles", &[Role::Viewer][..]),
        ("scope", &[Role::Operator]),
        ("https://example.org/roles", &[Role::Server]),
        ("realm.access.roles", &[Role::Agent]),
        ("role", &[]),
        ("realm", &[]),
        ("realm.access", &[]),
        ("nothing", &[]),
        ("roles.x", &[]),
    ] {
        let found = roles_in(claims.as_object().unwrap(), claim);
        assert_eq!(found, roles, "{claim}");
    }
}

#[test]
fn keys_change_with_their_file_and_outlive_a_bad_one() {
    let issuer = Issuer::new();
    let jwts = issuer.open();
    let (ed, mut keys) = (issuer.ed(json!({})), issuer.keys());
    for bad in [
        vec![],
        vec![keys[3].clone()],
        vec![keys[0].clone(), keys[0].clone()],
    ] {
        issuer.publish(bad);
        assert!(!jwts.watched().look(false));
        assert!(jwts.shown(&ed).is_ok());
    }
    keys.remove(0);
    issuer.publish(keys);
    assert!(jwts.watched().look(false));
    assert_eq!(
        jwts.shown(&ed).unwrap_err(),
        Refusal("its key is not known")
    );
    assert!(jwts.shown(RSA_TOKEN).is_ok());
}

#[test]
fn an_agent_is_bound_to_the_host_that_its_token_names() {
    let issuer = Issuer::new();
    let as_agent = |mut claims: Value| {
        claims["roles"] = json!(["agent", "viewer"]);
        issuer.ed(claims)
    };
    let grants = |claim: Option<&str>, claims: Value| {
        let shown = issuer.open_with(claim).shown(&as_agent(claims)).unwrap();
        let grants = shown.grants.into_iter();
        let grants = grants.map(|grant| (grant.role(), grant.host().map(str::to_owned)));
        grants.collect::<Vec<_>>()
    };
    let (agent, viewer) = (Role::Agent, (Role::Viewer, None));
    let bound = [(agent, Some("h1".to_owned())), viewer.clone()];
    assert_eq!(grants(Some("host"), json!({ "host": "h1" })), bound);
    let nested = json!({ "livemerge": { "host": "h1" } });
    assert_eq!(grants(Some("livemerge.host"), nested), bound);
    for without in [
        json!({}),
        json!({ "host": "" }),
        json!({ "host": "h1\n" }),
        json!({ "host": ["h1"] }),
        json!({ "host": 1 }),
    ] {
        assert_eq!(grants(Some("host"), without), std::slice::from_ref(&viewer));
    }
    let anyones = grants(None, json!({ "host": "h1" }));
    assert_eq!(anyones, [(agent, None), viewer]);
}

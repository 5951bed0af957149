//! An issuer over TLS and its tokens.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header};
use parking_lot::Mutex;
use serde_json::json;

use super::*;
use crate::auth::AUTHENTICATED;
use crate::auth::fixture::Fixture;
use crate::auth::tokens::ISSUER;
use crate::outbound::Outbound;
use crate::outbound::tests::Echo;

/// A key of an issuer.
pub(crate) struct Key {
    id: &'static str,
    algorithm: Algorithm,
    signing: EncodingKey,
}

impl Key {
    pub(crate) fn new(id: &'static str, algorithm: Algorithm) -> Self {
        let pem = |kind| rcgen::KeyPair::generate_for(kind).unwrap().serialize_pem();
        let signing = match algorithm {
            Algorithm::ES256 => EncodingKey::from_ec_pem(pem(&rcgen::PKCS_ECDSA_P256_SHA256).as_bytes()),
            _ => EncodingKey::from_rsa_pem(pem(&rcgen::PKCS_RSA_SHA256).as_bytes()),
        };
        Self { id, algorithm, signing: signing.unwrap() }
    }

    pub(crate) fn public(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.signing, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.id.to_owned());
        serde_json::to_value(jwk).unwrap()
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.signing).unwrap()
    }
}

/// What an issuer serves.
#[derive(Default)]
struct Served {
    url: Mutex<String>,
    keys: Mutex<Vec<Value>>,
    asked: AtomicUsize,
}

/// An issuer that is there.
struct Provider {
    server: Echo,
    served: Arc<Served>,
    outbound: Outbound,
    _fixture: Fixture,
}

impl Provider {
    async fn new(keys: &[&Key]) -> Self {
        let served = Arc::new(Served::default());
        let of_server = Arc::clone(&served);
        let server = Echo::answering(&["127.0.0.1"], move |path| {
            of_server.asked.fetch_add(1, Ordering::SeqCst);
            let url = of_server.url.lock().clone();
            match path {
                "/.well-known/openid-configuration" => json!({"issuer": url, "jwks_uri": format!("{url}/keys")}),
                _ => json!({"keys": *of_server.keys.lock()}),
            }
        })
        .await;
        *served.url.lock() = format!("https://127.0.0.1:{}", server.port);
        let fixture = Fixture::new().await;
        let outbound = Outbound::new(fixture.cache.clone(), &fixture.registry, None);
        let provider = Self { server, served, outbound, _fixture: fixture };
        provider.serve(keys);
        provider
    }

    fn serve(&self, keys: &[&Key]) {
        *self.served.keys.lock() = keys.iter().map(|key| key.public()).collect();
    }

    fn url(&self) -> String {
        self.served.url.lock().clone()
    }

    fn asked(&self) -> usize {
        self.served.asked.load(Ordering::SeqCst)
    }

    /// The authentication of a server that believes this issuer, with what else its entry says.
    fn believed(&self, more: &Value) -> Authentication {
        let authority = String::from_utf8(STANDARD.decode(&self.server.bundle).unwrap()).unwrap();
        let issuer = json!({"url": self.url(), "audiences": ["cluster"], "certificateAuthority": authority});
        let mut jwt = json!({"issuer": issuer, "claimMappings": {"username": {"claim": "sub", "prefix": "oidc:"}}});
        for (field, value) in more.as_object().unwrap() {
            jwt[field] = value.clone();
        }
        configured(&json!({ "jwt": [jwt] }), &self.outbound).unwrap()
    }

    /// Claims that are good.
    fn claims(&self, more: &Value) -> Value {
        let now = Timestamp::now().as_second();
        let mut claims = json!({"iss": self.url(), "aud": "cluster", "sub": "jane", "exp": now + 600, "iat": now});
        for (field, value) in more.as_object().unwrap() {
            claims[field] = value.clone();
        }
        claims
    }
}

fn configured(file: &Value, outbound: &Outbound) -> Result<Authentication, String> {
    let mut file = file.clone();
    file["apiVersion"] = "apiserver.config.k8s.io/v1".into();
    file["kind"] = "AuthenticationConfiguration".into();
    Authentication::parse(&file.to_string(), Path::new("auth.yaml"), outbound).map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        format!("{error}: {source}")
    })
}

async fn verify(authentication: &Authentication, token: &str) -> Result<UserInfo, String> {
    let verified = authentication.issuers.verify(token).await.ok_or("not of a known issuer")?;
    verified.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_token_of_a_believed_issuer_is_its_user_by_claims_and_by_expressions() {
    for algorithm in [Algorithm::ES256, Algorithm::RS256, Algorithm::PS256] {
        let key = Key::new("one", algorithm);
        let provider = Provider::new(&[&key]).await;
        let by_claims = provider.believed(&json!({"claimMappings": {
            "username": {"claim": "sub", "prefix": "oidc:"}, "groups": {"claim": "roles", "prefix": "team-"},
            "uid": {"claim": "id"}}}));
        let token = key.sign(&provider.claims(&json!({"roles": ["a", "b"], "id": "u1", "aud": ["x", "cluster"]})));
        let user = verify(&by_claims, &token).await.unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("oidc:jane", "u1"), "{algorithm:?}");
        assert_eq!(user.groups, ["team-a", "team-b", AUTHENTICATED]);

        let by_expressions = provider.believed(&json!({
            "claimMappings": {
                "username": {"expression": "claims.sub + '@' + claims.tenant"},
                "groups": {"expression": "claims.?roles.orValue('nobody')"},
                "uid": {"expression": "string(claims.number)"},
                "extra": [{"key": "example.com/tenant", "valueExpression": "claims.tenant"},
                    {"key": "example.com/none", "valueExpression": "claims.?none.orValue([])"}],
            },
            "claimValidationRules": [{"claim": "tenant", "requiredValue": "t1"},
                {"expression": "claims.exp - claims.iat <= 3600", "message": "it lives too long"}],
            "userValidationRules": [{"expression": "!user.username.startsWith('system:')", "message": "reserved"},
                {"expression": "user.groups.all(g, g != 'root')"}],
        }));
        let claims = json!({"tenant": "t1", "number": 7});
        let user = verify(&by_expressions, &key.sign(&provider.claims(&claims))).await.unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane@t1", "7"));
        assert_eq!(user.groups, ["nobody", AUTHENTICATED]);
        assert_eq!(user.extra.into_iter().collect::<Vec<_>>(), [("example.com/tenant".into(), vec!["t1".into()])]);
        let long = Timestamp::now().as_second() + 9000;
        for (claims, why) in [
            (json!({"tenant": "t2", "number": 7}), "required claim tenant value does not match. Got = t2, want = t1"),
            (json!({"tenant": "t1", "number": 7, "exp": long}), "failed: it lives too long"),
            (json!({"tenant": "t1", "number": 7, "sub": "system:jane"}), "failed: reserved"),
            (json!({"tenant": "t1", "number": 7, "roles": ["root"]}), "user.groups.all(g, g != 'root')"),
            (json!({"tenant": "t1", "number": 7, "roles": [1]}), "must return a string or a list of strings"),
            (json!({"tenant": "t1"}), "error evaluating uid claim expression: no such key: number"),
        ] {
            let said = verify(&by_expressions, &key.sign(&provider.claims(&claims))).await.unwrap_err();
            assert!(said.contains(why), "{claims}: {said}");
        }
    }
}

#[tokio::test]
async fn a_token_that_is_not_for_us_or_not_the_issuers_is_refused() {
    let (key, other) = (Key::new("one", Algorithm::ES256), Key::new("one", Algorithm::ES256));
    let provider = Provider::new(&[&key]).await;
    let authentication = provider.believed(&json!({}));
    let good = provider.claims(&json!({}));
    assert_eq!(verify(&authentication, &key.sign(&good)).await.unwrap().name, "oidc:jane");
    let now = Timestamp::now().as_second();
    let with = |more: Value| key.sign(&provider.claims(&more));
    for (token, why) in [
        (with(json!({"aud": "other"})), "expected audience in [\"cluster\"] got [\"other\"]"),
        (with(json!({"aud": null})), "expected audience"),
        (with(json!({"exp": now - 1})), "ExpiredSignature"),
        (with(json!({"exp": null})), "exp"),
        (with(json!({"nbf": now + 1000})), "not valid yet"),
        (with(json!({"sub": null})), "parse username claim \"sub\""),
        (with(json!({"sub": ""})), ""),
        (other.sign(&good), "InvalidSignature"),
    ] {
        if why.is_empty() {
            // A prefix alone is a name.
            assert_eq!(verify(&authentication, &token).await.unwrap().name, "oidc:");
            continue;
        }
        let said = verify(&authentication, &token).await.unwrap_err();
        assert!(said.contains(why), "{why}: {said}");
    }
    // The public key is no secret.
    let public = provider.served.keys.lock()[0].to_string();
    let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::HS256) };
    let forged = jsonwebtoken::encode(&header, &good, &EncodingKey::from_secret(public.as_bytes())).unwrap();
    assert!(verify(&authentication, &forged).await.unwrap_err().contains("HS256 are not taken"));
    let unsigned = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let unsigned = format!("{unsigned}.{}.", URL_SAFE_NO_PAD.encode(good.to_string()));
    verify(&authentication, &unsigned).await.unwrap_err();
    let elsewhere = key.sign(&provider.claims(&json!({"iss": "https://elsewhere.example"})));
    assert_eq!(verify(&authentication, &elsewhere).await.unwrap_err(), "not of a known issuer");
    for nonsense in ["", "a.b", "a.b.c", "a.b.c.d"] {
        assert_eq!(verify(&authentication, nonsense).await.unwrap_err(), "not of a known issuer");
    }
}

#[tokio::test]
async fn new_keys_are_found_old_ones_go_and_nonsense_does_not_bother_the_issuer() {
    let (old, new, unknown) =
        (Key::new("old", Algorithm::ES256), Key::new("new", Algorithm::RS256), Key::new("x", Algorithm::ES256));
    let provider = Provider::new(&[&old]).await;
    let mut authentication = provider.believed(&json!({}));
    let claims = provider.claims(&json!({}));
    let (first, second) = (old.sign(&claims), new.sign(&claims));
    assert!(provider.asked() == 0 && verify(&authentication, &first).await.is_ok());
    for _ in 0..5 {
        assert!(verify(&authentication, &unknown.sign(&claims)).await.is_err());
        assert!(verify(&authentication, &first).await.is_ok());
    }
    assert_eq!(provider.asked(), 2, "a document and its keys, once");
    provider.serve(&[&new]);
    assert!(verify(&authentication, &second).await.unwrap_err().contains("no key of"));
    Arc::get_mut(&mut authentication.issuers.0).unwrap()[0].keys.pause = Duration::ZERO;
    assert!(verify(&authentication, &second).await.is_ok());
    assert!(verify(&authentication, &first).await.is_err(), "a key that was withdrawn");
    drop(provider);
    assert!(verify(&authentication, &second).await.is_ok(), "known keys need no issuer");
}

#[tokio::test]
async fn an_issuer_with_another_certificate_or_name_is_not_asked_for_keys() {
    let key = Key::new("one", Algorithm::ES256);
    let (provider, other) = (Provider::new(&[&key]).await, Provider::new(&[&key]).await);
    let token = key.sign(&provider.claims(&json!({})));
    let authority = String::from_utf8(STANDARD.decode(&other.server.bundle).unwrap()).unwrap();
    let issuer = json!({"url": provider.url(), "audiences": ["cluster"], "certificateAuthority": authority});
    let wrong = provider.believed(&json!({ "issuer": issuer }));
    let said = verify(&wrong, &token).await.unwrap_err();
    assert!(said.contains("certificate"), "{said}");
    assert_eq!(provider.asked(), 0);

    let renamed = provider.believed(&json!({}));
    let url = provider.url();
    *provider.served.url.lock() = "https://elsewhere.example".to_owned();
    let said = verify(&renamed, &token).await.unwrap_err();
    assert!(said.contains(&format!("expected {url:?} got \"https://elsewhere.example\"")), "{said}");
}

#[tokio::test]
async fn an_issuer_that_cannot_be_reached_may_have_its_documents_here() {
    let key = Key::new("one", Algorithm::ES256);
    let provider = Provider::new(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| format!("file://{}", dir.path().join(name).display());
    let document = json!({"issuer": "https://far.example", "jwks_uri": at("keys.json")});
    std::fs::write(dir.path().join("document.json"), document.to_string()).unwrap();
    std::fs::write(dir.path().join("keys.json"), json!({"keys": [key.public(), {"kty": "new"}]}).to_string()).unwrap();
    let far = json!({"url": "https://far.example", "discoveryURL": at("document.json"), "audiences": ["cluster"]});
    let authentication = provider.believed(&json!({ "issuer": far }));
    let token = key.sign(&provider.claims(&json!({"iss": "https://far.example"})));
    assert_eq!(verify(&authentication, &token).await.unwrap().name, "oidc:jane");
}

#[tokio::test]
async fn a_mail_address_names_a_user_only_if_it_is_verified() {
    let key = Key::new("one", Algorithm::ES256);
    let provider = Provider::new(&[&key]).await;
    let username = json!({"claimMappings": {"username": {"claim": "email", "prefix": ""}}});
    let authentication = provider.believed(&username);
    for (more, name) in [
        (json!({"email": "j@example.com"}), Ok("j@example.com")),
        (json!({"email": "j@example.com", "email_verified": true}), Ok("j@example.com")),
        (json!({"email": "j@example.com", "email_verified": false}), Err("email not verified")),
        (json!({"email": "j@example.com", "email_verified": "yes"}), Err("not a boolean")),
    ] {
        let said = verify(&authentication, &key.sign(&provider.claims(&more))).await;
        match name {
            Ok(name) => assert_eq!(said.unwrap().name, name),
            Err(why) => assert!(said.unwrap_err().contains(why), "{more}"),
        }
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_honoured_is_refused_with_the_place() {
    let provider = Provider::new(&[]).await;
    let issuer = |more: Value| {
        let mut issuer = json!({"url": "https://a.example", "audiences": ["c"]});
        for (field, value) in more.as_object().unwrap() {
            issuer[field] = value.clone();
        }
        json!({"issuer": issuer, "claimMappings": {"username": {"claim": "sub", "prefix": ""}}})
    };
    let mapped = |mappings: Value| {
        let mut jwt = issuer(json!({}));
        jwt["claimMappings"] = mappings;
        jwt
    };
    let username = json!({"claim": "sub", "prefix": ""});
    let ruled = |field: &str, rules: Value| {
        let mut jwt = issuer(json!({}));
        jwt[field] = rules;
        jwt
    };
    for (jwt, why) in [
        (issuer(json!({"url": ""})), "jwt[0].issuer.url: Required value"),
        (issuer(json!({"url": "http://a.example"})), "URL scheme must be https"),
        (issuer(json!({"url": "https://u:p@a.example"})), "must not contain a username or password"),
        (issuer(json!({"url": "https://a.example?x=y"})), "must not contain a query"),
        (issuer(json!({"url": ISSUER})), "must not overlap with disallowed issuers"),
        (issuer(json!({"discoveryURL": "https://a.example/"})), "discoveryURL must be different from URL"),
        (issuer(json!({"audiences": []})), "jwt[0].issuer.audiences: Required value"),
        (issuer(json!({"audiences": ["a", "b"]})), "audienceMatchPolicy must be MatchAny for multiple audiences"),
        (issuer(json!({"audiences": ["a", "a"], "audienceMatchPolicy": "MatchAny"})), "audiences[1]: Duplicate value"),
        (
            issuer(json!({"certificateAuthority": "no"})),
            "jwt[0].issuer.certificateAuthority: Invalid value: \"<omitted>\"",
        ),
        (issuer(json!({"egressSelectorType": "cluster"})), "egressSelectorType: Invalid value"),
        (issuer(json!({"jwks": "x"})), "unknown field `jwks`"),
        (mapped(json!({})), "claimMappings.username: Required value: claim or expression is required"),
        (mapped(json!({"username": {"claim": "sub"}})), "username.prefix: Required value: prefix is required"),
        (mapped(json!({"username": {"claim": "sub", "expression": "'x'"}})), "claim and expression can't both be set"),
        (mapped(json!({"username": {"expression": "claims."}})), "username.expression: Invalid value: \"claims.\""),
        (mapped(json!({"username": {"expression": "user.name"}})), "undeclared reference to 'user'"),
        (mapped(json!({"username": {"expression": "claims.email"}})), "claims.email_verified must be used"),
        (
            mapped(json!({"username": username, "extra": [{"key": "a", "valueExpression": "'x'"}]})),
            "domain-prefixed path",
        ),
        (
            mapped(json!({"username": username, "extra": [{"key": "x.k8s.io/a", "valueExpression": "'x'"}]})),
            "reserved for Kubernetes use",
        ),
        (mapped(json!({"username": username, "extra": [{"key": "a.io/a"}]})), "valueExpression: Required value"),
        (ruled("claimValidationRules", json!([{}])), "claimValidationRules[0]: Required value"),
        (
            ruled("claimValidationRules", json!([{"expression": "'x'"}])),
            "claimValidationRules[0].expression: Invalid value: \"'x'\"",
        ),
        (ruled("userValidationRules", json!([{"expression": "claims.x == 1"}])), "undeclared reference to 'claims'"),
    ] {
        let said = configured(&json!({ "jwt": [jwt] }), &provider.outbound).err().unwrap_or_default();
        assert!(said.contains(why), "{why}: {said}");
    }
    let twice = configured(&json!({"jwt": [issuer(json!({})), issuer(json!({}))]}), &provider.outbound);
    assert!(twice.unwrap_err().contains("jwt[1].issuer.url: Duplicate value"));
    let anonymous = |text: Value| configured(&json!({ "anonymous": text }), &provider.outbound);
    let at = anonymous(json!({"enabled": true, "conditions": [{"path": "/livez"}]})).unwrap().anonymous;
    assert!(at.allows("/livez") && !at.allows("/livez/ping") && !at.allows("/version"));
    assert!(!anonymous(json!({"enabled": false})).unwrap().anonymous.allows("/livez"));
    assert!(
        anonymous(json!({"conditions": [{"path": "/livez"}]})).unwrap_err().contains("enabled should be set to true")
    );
}

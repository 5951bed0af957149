//! Requests to a registry: as whom, and how much of what it answers is read.
//!
//! What must stay true: pods name the registry that is asked, so nothing that one sends is read without a bound but a blob,
//! which goes to disk and has its size and digest named before.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use oci_distribution::Reference;
use oci_distribution::secrets::RegistryAuth;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::challenge::Challenge;
use super::reference;
use super::source::{Failure, SourceError};
use crate::fault;

/// Longest time without a byte from a registry.
pub(super) const SILENCE: Duration = Duration::from_secs(30);
/// Longest time to connect.
pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// Bytes of a manifest at most: what the distribution specification has registries take, and what other runtimes read.
pub(super) const LARGEST_MANIFEST: usize = 4 << 20;
/// Bytes of what goes before a manifest: a token, or an error.
const LARGEST_WORD: usize = 64 << 10;

/// A registry, asked with one set of credentials.
pub(super) struct Transport {
    client: reqwest::Client,
    login: RegistryAuth,
    /// What the registry asked for and was given.
    authorization: Mutex<Option<HeaderValue>>,
}

/// The answer of a token service.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Transport {
    pub(super) fn new(image: &Reference, login: RegistryAuth) -> Result<Self, SourceError> {
        let client = reqwest::Client::builder()
            .read_timeout(SILENCE)
            .connect_timeout(CONNECT)
            .user_agent(concat!("wherry/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| unreachable(image, &error))?;
        Ok(Self { client, login, authorization: Mutex::default() })
    }

    /// A manifest by tag or digest.
    pub(super) async fn manifest(&self, image: &Reference, accepted: &[&str]) -> Result<Bytes, Failure> {
        let which = image.digest().or(image.tag()).unwrap_or("latest");
        let response = self.get(image, &format!("manifests/{which}"), &accepted.join(", ")).await?;
        read(image, response, LARGEST_MANIFEST, "manifest").await.map_err(Failure::Other)
    }

    /// A blob, to be read as it comes.
    pub(super) async fn blob(&self, image: &Reference, digest: &str) -> Result<reqwest::Response, Failure> {
        self.get(image, &format!("blobs/{digest}"), "*/*").await
    }

    /// What is at a path of the image's repository; asked twice if the registry wants to know who asks.
    async fn get(&self, image: &Reference, path: &str, accepted: &str) -> Result<reqwest::Response, Failure> {
        let scheme = if reference::plain_http(image.registry()) { "http" } else { "https" };
        let url = format!("{scheme}://{}/v2/{}/{path}", image.resolve_registry(), image.repository());
        let known = self.authorization.lock().await.clone();
        let first = self.send(image, &url, accepted, known).await?;
        if first.status() != StatusCode::UNAUTHORIZED {
            return answered(image, first).await;
        }
        let Some(authorization) = self.authorize(image, first.headers()).await? else {
            return answered(image, first).await;
        };
        *self.authorization.lock().await = Some(authorization.clone());
        answered(image, self.send(image, &url, accepted, Some(authorization)).await?).await
    }

    async fn send(
        &self,
        image: &Reference,
        url: &str,
        accepted: &str,
        authorization: Option<HeaderValue>,
    ) -> Result<reqwest::Response, Failure> {
        let mut request = self.client.get(url).header(ACCEPT, accepted);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.send().await.map_err(|error| Failure::Other(unreachable(image, &error)))
    }

    /// What the registry's challenge is met with; `None`: there is nothing to meet it with.
    async fn authorize(&self, image: &Reference, headers: &HeaderMap) -> Result<Option<HeaderValue>, Failure> {
        if let RegistryAuth::Bearer(token) = &self.login {
            return Ok(secret(&format!("Bearer {token}")));
        }
        let mut asked = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        match asked.find_map(Challenge::parse) {
            Some(Challenge::Basic) => Ok(self.basic()),
            Some(Challenge::Bearer { realm, service, scope }) => {
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", image.repository()));
                let mut url = url::Url::parse(&realm).map_err(|_| {
                    Failure::Other(answer(image, format!("with a token service at {realm:?}, which is no URL")))
                })?;
                url.query_pairs_mut().extend_pairs(service.map(|service| ("service", service)));
                url.query_pairs_mut().append_pair("scope", &scope);
                self.token(image, url).await.map(Some)
            }
            None => Ok(None),
        }
    }

    async fn token(&self, image: &Reference, url: url::Url) -> Result<HeaderValue, Failure> {
        let response = self.send(image, url.as_str(), "application/json", self.basic()).await?;
        match response.status().as_u16() {
            200 => {}
            400 | 401 | 403 => return Err(Failure::Denied { known: false }),
            code => return Err(Failure::Other(answer(image, format!("{code} when it was asked for a token")))),
        }
        let bytes = read(image, response, LARGEST_WORD, "token").await.map_err(Failure::Other)?;
        let token = serde_json::from_slice::<Token>(&bytes).ok().and_then(|token| token.token.or(token.access_token));
        let header = token.and_then(|token| secret(&format!("Bearer {token}")));
        header.ok_or_else(|| Failure::Other(answer(image, "without a token when it was asked for one".to_owned())))
    }

    fn basic(&self) -> Option<HeaderValue> {
        use base64::Engine as _;
        let RegistryAuth::Basic(user, password) = &self.login else { return None };
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        secret(&format!("Basic {encoded}"))
    }
}

/// A header that is shown nowhere.
fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn unreachable(image: &Reference, error: &(dyn std::error::Error + 'static)) -> SourceError {
    SourceError::Unreachable { registry: image.registry().to_owned(), message: fault::told(error) }
}

fn answer(image: &Reference, message: String) -> SourceError {
    SourceError::Answer { registry: image.registry().to_owned(), message }
}

/// What is said of an answer that is not read to its end.
pub(super) fn too_large(what: &str, most: usize) -> String {
    format!("with a {what} of more than {} KiB, which is not read", most >> 10)
}

/// An answer's body, of at most so many bytes.
async fn read(
    image: &Reference,
    mut response: reqwest::Response,
    most: usize,
    what: &str,
) -> Result<Bytes, SourceError> {
    let mut all = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(image, &error))? {
        if all.len() + chunk.len() > most {
            return Err(answer(image, too_large(what, most)));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}

/// A good answer, or what a bad one means.
async fn answered(image: &Reference, response: reqwest::Response) -> Result<reqwest::Response, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    // What a registry says after that many bytes changes nothing.
    let body = read(image, response, LARGEST_WORD, "error").await.unwrap_or_default();
    Err(meaning(image, status, &body))
}

/// One error of a registry.
#[derive(Deserialize)]
struct Told {
    code: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<Told>,
}

fn meaning(image: &Reference, status: StatusCode, body: &[u8]) -> Failure {
    let errors = serde_json::from_slice::<Errors>(body).map(|told| told.errors).unwrap_or_default();
    let has = |codes: &[&str]| errors.iter().any(|error| codes.contains(&error.code.as_str()));
    if status == StatusCode::UNAUTHORIZED || has(&["UNAUTHORIZED"]) {
        return Failure::Denied { known: false };
    }
    if status == StatusCode::FORBIDDEN || has(&["DENIED"]) {
        return Failure::Denied { known: true };
    }
    if status == StatusCode::NOT_FOUND || has(&["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"]) {
        return Failure::Other(SourceError::NotFound(image.whole()));
    }
    let said = errors.iter().map(|error| format!("{}: {}", error.code, error.message));
    let said: Vec<String> = std::iter::once(status.as_u16().to_string()).chain(said).collect();
    Failure::Other(answer(image, said.join(": ")))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use futures::FutureExt;
    use http_body_util::combinators::UnsyncBoxBody;
    use http_body_util::{BodyExt, Full, StreamBody};
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;

    use super::super::credentials::Credentials;
    use super::super::source::{Registry, Source};
    use super::*;

    type Answering = fn(Asked<'_>) -> Answer;
    type Answer = http::Response<UnsyncBoxBody<Bytes, Infallible>>;
    type Seen = Arc<parking_lot::Mutex<Vec<String>>>;

    /// What a registry is asked.
    struct Asked<'a> {
        path: &'a str,
        who: &'a str,
        host: &'a str,
    }

    /// A registry on this machine: its name, and the paths that it was asked for, with credentials. Ends with the test.
    async fn registry(answer: Answering) -> (String, Seen) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (seen, own) = (Seen::default(), host.clone());
        let noted = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (noted, host) = (Arc::clone(&noted), own.clone());
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let path = request.uri().to_string();
                    let who = request.headers().get(AUTHORIZATION).map_or("", |value| value.to_str().unwrap());
                    noted.lock().push(format!("{path} {who}").trim().to_owned());
                    let response = answer(Asked { path: &path, who, host: &host });
                    async move { Ok::<_, Infallible>(response) }
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection.map(drop));
            }
        });
        (host, seen)
    }

    fn whole(status: u16, text: &'static str) -> Answer {
        http::Response::builder().status(status).body(Full::new(Bytes::from(text)).boxed_unsync()).unwrap()
    }

    fn endless(status: u16) -> Answer {
        let frames = futures::stream::repeat_with(|| Ok(http_body::Frame::data(Bytes::from(vec![b' '; 64 << 10]))));
        http::Response::builder().status(status).body(StreamBody::new(frames).boxed_unsync()).unwrap()
    }

    /// Asks for a token of a service of its own.
    fn with_tokens(asked: &Asked<'_>, token: fn() -> Answer) -> Answer {
        if asked.path.starts_with("/token") {
            return token();
        }
        if asked.who == "Bearer t0ken" {
            return whole(200, "{}");
        }
        let mut response = whole(401, "");
        let challenge = format!(r#"Bearer realm="http://{}/token",service="s",scope="a:b:pull,push""#, asked.host);
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_str(&challenge).unwrap());
        response
    }

    async fn manifest(host: &str, with_login: bool) -> Result<Bytes, SourceError> {
        let image = reference::parse(&format!("{host}/team/app:v1")).unwrap();
        let mut credentials = Credentials::default();
        if with_login {
            let file = format!(r#"{{"auths":{{"{host}":{{"auth":"YTpi"}}}}}}"#);
            credentials.read("f", file.as_bytes()).unwrap();
        }
        Registry::new(credentials).manifest(&image).await
    }

    #[tokio::test]
    async fn an_answer_without_an_end_is_not_read_to_it() {
        let cases: [(Answering, &str); 3] = [
            (|_| endless(200), "with a manifest of more than 4096 KiB, which is not read"),
            (|_| endless(500), "500"),
            (|asked| with_tokens(&asked, || endless(200)), "with a token of more than 64 KiB, which is not read"),
        ];
        for (answer, said) in cases {
            let (host, _) = registry(answer).await;
            let error = manifest(&host, false).await.unwrap_err().to_string();
            assert_eq!(error, format!("{host} answered {said}"));
        }
    }

    #[tokio::test]
    async fn a_token_is_asked_for_as_the_registry_wants_and_with_the_credentials() {
        let (host, seen) = registry(|asked| with_tokens(&asked, || whole(200, r#"{"access_token":"t0ken"}"#))).await;
        assert_eq!(&manifest(&host, true).await.unwrap()[..], b"{}");
        let manifest = "/v2/team/app/manifests/v1";
        let token = "/token?service=s&scope=a%3Ab%3Apull%2Cpush Basic YTpi";
        assert_eq!(*seen.lock(), [manifest, token, &format!("{manifest} Bearer t0ken")]);
    }

    const UNKNOWN: &str = r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#;
    const BROKEN: &str = r#"{"errors":[{"code":"UNKNOWN","message":"the disk is full"}]}"#;

    #[tokio::test]
    async fn what_a_registry_answers_is_told_apart() {
        let told = async |answer: Answering| {
            let (host, _) = registry(answer).await;
            manifest(&host, false).await.unwrap_err().to_string().replace(&host, "R")
        };
        assert_eq!(told(|_| whole(404, UNKNOWN)).await, "R/team/app:v1 not found in the registry");
        assert_eq!(told(|_| whole(503, BROKEN)).await, "R answered 503: UNKNOWN: the disk is full");
        assert!(told(|_| whole(401, "")).await.starts_with("pull access denied for R/team/app, "));
        let no_token = told(|asked| with_tokens(&asked, || whole(401, ""))).await;
        assert!(no_token.starts_with("pull access denied for R/team/app, "), "{no_token}");
        assert_eq!(
            told(|asked| with_tokens(&asked, || whole(502, ""))).await,
            "R answered 502 when it was asked for a token"
        );
    }
}

//! The guestbook's front end. `GET /` shows the entries, `POST /` adds the request's body as one.
//!
//! It reaches the store through its Service name and its own sidecar, the filter, over the pod's localhost.

use wstd::http::{Body, Client, Error, Method, Request, Response, StatusCode};

/// Longest entry in bytes.
const LONGEST_ENTRY: usize = 1024;

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let answer = match *request.method() {
        Method::GET => list().await,
        Method::POST => add(request).await,
        _ => return text(StatusCode::METHOD_NOT_ALLOWED, "use GET to read, POST to write\n"),
    };
    match answer {
        Ok(entries) => text(StatusCode::OK, &entries),
        Err(failure) => {
            eprintln!("{failure}");
            text(failure.status, &format!("{failure}\n"))
        }
    }
}

/// What went wrong, and whose fault it was.
struct Failure {
    status: StatusCode,
    what: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

async fn list() -> Result<String, Failure> {
    call(Method::GET, &setting("STORE_URL", "http://guestbook-store/"), String::new()).await
}

async fn add(request: Request<Body>) -> Result<String, Failure> {
    let mut body = request.into_body();
    let entry = body.str_contents().await.map_err(|error| bad(format!("the entry cannot be read: {error}")))?.trim().to_owned();
    if entry.is_empty() || entry.len() > LONGEST_ENTRY {
        return Err(bad(format!("an entry has 1 to {LONGEST_ENTRY} bytes, this one has {}", entry.len())));
    }
    let clean = call(Method::POST, &setting("FILTER_URL", "http://127.0.0.1:9090/"), entry).await?;
    call(Method::POST, &setting("STORE_URL", "http://guestbook-store/"), clean).await
}

fn bad(what: String) -> Failure {
    Failure { status: StatusCode::BAD_REQUEST, what }
}

/// Calls another component and returns what it said.
async fn call(method: Method, url: &str, body: String) -> Result<String, Failure> {
    let failed = |what: String| Failure { status: StatusCode::BAD_GATEWAY, what: format!("{url}: {what}") };
    let request = Request::builder().method(method).uri(url).body(Body::from(body)).map_err(|e| failed(e.to_string()))?;
    let response = Client::new().send(request).await.map_err(|e| failed(e.to_string()))?;
    let status = response.status();
    let mut body = response.into_body();
    let said = body.str_contents().await.map_err(|e| failed(e.to_string()))?.to_owned();
    if status.is_success() { Ok(said) } else { Err(failed(format!("{status}: {said}"))) }
}

fn text(status: StatusCode, body: &str) -> Result<Response<Body>, Error> {
    let response = Response::builder().status(status).header("content-type", "text/plain; charset=utf-8");
    Ok(response.body(Body::from(body.to_owned()))?)
}

//! Plain HTTP/1.1 to Services and registries, one connection per request.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

pub use super::api::Answer;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(20);

/// Gets a URL. The error says what failed.
pub fn get(url: &str) -> Result<Answer, String> {
    send("GET", url, &[], Bytes::new())
}

/// Posts a text.
pub fn post(url: &str, body: &str) -> Result<Answer, String> {
    send("POST", url, &[], body.to_owned().into())
}

/// The body of a URL that must answer 200.
pub fn text(url: &str) -> Result<String, String> {
    let answer = get(url)?;
    if answer.status == 200 {
        Ok(answer.text())
    } else {
        Err(format!("{url} answered {}: {}", answer.status, answer.text()))
    }
}

/// Sends a request and reads the whole answer.
pub fn send(method: &str, url: &str, headers: &[(&str, &str)], body: Bytes) -> Result<Answer, String> {
    let url = url::Url::parse(url).map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let answer = runtime.block_on(async { tokio::time::timeout(ANSWER, exchange(method, &url, headers, body)).await });
    answer
        .map_err(|_| format!("{url} did not answer within {ANSWER:?}"))?
        .map_err(|e| format!("{url}: {}", with_causes(&*e)))
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

async fn exchange(
    method: &str,
    url: &url::Url,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<Answer, Box<dyn std::error::Error>> {
    let address = format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(80));
    let stream = TcpStream::connect(&address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let mut request =
        Request::builder().method(method).uri(target).header("host", &address).header("connection", "close");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, body) = sender.send_request(request.body(Full::new(body))?).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    connection.abort();
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
}

//! The guestbook's back end: a command component that listens on a `wasi:sockets` TCP port and keeps the entries in its
//! memory, one line each. `GET` answers with all of them, `POST` appends one. HTTP/1.1, one request per connection.

use std::cell::RefCell;
use std::rc::Rc;

use wstd::io::{AsyncRead, AsyncWrite};
use wstd::iter::AsyncIterator;
use wstd::net::{TcpListener, TcpStream};

/// Longest request in bytes, head and body.
const LONGEST_REQUEST: usize = 16 * 1024;
/// Most entries kept; the oldest go first.
const MOST_ENTRIES: usize = 1000;

type Entries = Rc<RefCell<Vec<String>>>;

#[wstd::main]
async fn main() -> wstd::io::Result<()> {
    let port = std::env::var("PORT").unwrap_or_else(|_| "8080".to_owned());
    let listener = TcpListener::bind(&format!("0.0.0.0:{port}")).await?;
    println!("listening on {}", listener.local_addr()?);
    let entries = Entries::default();
    let mut incoming = listener.incoming();
    while let Some(stream) = incoming.next().await {
        match stream {
            Ok(stream) => {
                let entries = entries.clone();
                wstd::runtime::spawn(async move {
                    if let Err(error) = serve(stream, &entries).await {
                        eprintln!("a connection failed: {error}");
                    }
                })
                .detach();
            }
            Err(error) => eprintln!("accept failed: {error}"),
        }
    }
    Ok(())
}

/// Reads one request, answers it, closes.
async fn serve(mut stream: TcpStream, entries: &Entries) -> wstd::io::Result<()> {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    let answer = loop {
        match parse(&request) {
            Parsed::Whole { post, body } => break respond(post, body, entries),
            Parsed::Bad(why) => break response("400 Bad Request", why),
            Parsed::More if request.len() >= LONGEST_REQUEST => break response("413 Content Too Large", "too large\n"),
            Parsed::More => {}
        }
        let n = stream.read(&mut chunk).await?;
        if n == 0 {
            return Ok(());
        }
        request.extend_from_slice(&chunk[..n]);
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.flush().await
}

enum Parsed {
    /// Not all of it has arrived.
    More,
    Bad(&'static str),
    Whole { post: bool, body: String },
}

fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Parsed::More,
        Err(_) => return Parsed::Bad("not HTTP/1.1\n"),
    };
    let header = |name: &str| request.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value);
    let body = if header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case(b"chunked")) {
        match unchunk(&bytes[head..]) {
            Some(body) => body,
            None => return Parsed::More,
        }
    } else {
        let length = header("content-length").and_then(|v| std::str::from_utf8(v).ok()?.parse().ok()).unwrap_or(0);
        match bytes.get(head..head + length) {
            Some(body) => body.to_vec(),
            None => return Parsed::More,
        }
    };
    match (request.method, String::from_utf8(body)) {
        (_, Err(_)) => Parsed::Bad("not UTF-8\n"),
        (Some("GET"), Ok(body)) => Parsed::Whole { post: false, body },
        (Some("POST"), Ok(body)) => Parsed::Whole { post: true, body },
        _ => Parsed::Bad("use GET or POST\n"),
    }
}

/// A chunked body, once its last chunk is there.
fn unchunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).ok()?.trim(), 16).ok()?;
        let chunk = bytes.get(line + 2..line + 2 + size)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(chunk);
        bytes = bytes.get(line + 2 + size + 2..)?;
    }
}

fn respond(post: bool, body: String, entries: &Entries) -> String {
    let mut entries = entries.borrow_mut();
    if post {
        println!("new entry: {body}");
        entries.push(body);
        if entries.len() > MOST_ENTRIES {
            entries.remove(0);
        }
    }
    let list: String = entries.iter().flat_map(|entry| [entry.as_str(), "\n"]).collect();
    response("200 OK", &list)
}

fn response(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

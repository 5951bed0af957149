//! The smallest microservice: `wasi:http` 0.2, one line that says which pod answered.

use wstd::http::{Body, Error, Request, Response};

#[wstd::http_server]
async fn main(_request: Request<Body>) -> Result<Response<Body>, Error> {
    let pod = std::env::var("HOSTNAME").unwrap_or_else(|_| "a component".to_owned());
    Ok(Response::new(format!("Hello from {pod}\n").into()))
}

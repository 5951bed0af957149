//! The same service for WASI 0.3: one instance answers many requests.

use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{wit_bindgen, wit_future, wit_stream};

struct Hello;

wasip3::http::service::export!(Hello);

impl wasip3::exports::http::handler::Guest for Hello {
    async fn handle(_request: Request) -> Result<Response, ErrorCode> {
        let pod = wasip3::cli::environment::get_environment()
            .into_iter()
            .find_map(|(key, value)| (key == "HOSTNAME").then_some(value))
            .unwrap_or_else(|| "a component".to_owned());
        let (mut body, reader) = wit_stream::new();
        let (trailers, trailers_reader) = wit_future::new(|| Ok(None));
        let (response, _sent) = Response::new(Fields::new(), Some(reader), trailers_reader);
        drop(trailers);
        wit_bindgen::spawn_local(async move {
            body.write_all(format!("Hello from {pod}\n").into_bytes()).await;
        });
        Ok(response)
    }
}

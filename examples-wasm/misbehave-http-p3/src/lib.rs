//! The same for WASI 0.3, where one instance serves many requests at once: what one does wrong, others notice.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{clocks::monotonic_clock, wit_bindgen, wit_future, wit_stream};

/// Requests that this instance was given.
static GIVEN: AtomicUsize = AtomicUsize::new(0);

struct Misbehave;

wasip3::http::service::export!(Misbehave);

impl wasip3::exports::http::handler::Guest for Misbehave {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed) + 1;
        match request.get_path_with_query().as_deref().unwrap_or("/") {
            // Of WASI 0.2: nothing else runs in this instance meanwhile.
            "/sleep" => std::thread::sleep(Duration::from_millis(200)),
            // Of WASI 0.3: others do.
            "/wait" => monotonic_clock::wait_for(3_600_000_000_000).await,
            "/loop" => {
                let mut n = 0u64;
                loop {
                    n = black_box(n.wrapping_add(1));
                }
            }
            "/trap" => {
                black_box(unsafe { std::ptr::read_volatile(0xffff_fff0 as *const u32) });
            }
            "/error" => return Err(ErrorCode::InternalError(None)),
            _ => {}
        }
        let (mut body, reader) = wit_stream::new();
        let (trailers, trailers_reader) = wit_future::new(|| Ok(None));
        let (response, _sent) = Response::new(Fields::new(), Some(reader), trailers_reader);
        drop(trailers);
        wit_bindgen::spawn_local(async move {
            body.write_all(format!("request {given} of this instance\n").into_bytes()).await;
        });
        Ok(response)
    }
}

//! An HTTP service that answers `/`, and does one thing wrong on each other path.

use std::hint::black_box;

use wstd::http::{Body, Error, Request, Response, StatusCode};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    match request.uri().path() {
        "/" => Ok(Response::new("fine\n".to_owned().into())),
        "/loop" => {
            let mut n = 0u64;
            loop {
                n = black_box(n.wrapping_add(1));
            }
        }
        "/allocate" => {
            let mut kept: Vec<Vec<u8>> = Vec::new();
            loop {
                kept.push(black_box(vec![1; 1 << 20]));
            }
        }
        "/trap" => {
            let read = black_box(unsafe { std::ptr::read_volatile(0xffff_fff0 as *const u32) });
            Ok(Response::new(format!("{read}\n").into()))
        }
        "/flood" => {
            for line in 0..100_000 {
                eprintln!("line {line}");
            }
            Ok(Response::new("flooded\n".to_owned().into()))
        }
        other => Ok(Response::builder().status(StatusCode::NOT_FOUND).body(format!("no {other}\n").into())?),
    }
}

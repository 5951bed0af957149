//! The guestbook's sidecar: answers with the text it was sent, rude words starred out. It is served on the pod's
//! localhost for the front end beside it.

use wstd::http::{Body, Error, Request, Response};

const DEFAULT_WORDS: &str = "darn,heck";

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let mut body = request.into_body();
    let text = body.str_contents().await?;
    let words = std::env::var("RUDE_WORDS").unwrap_or_else(|_| DEFAULT_WORDS.to_owned());
    let clean = words.split(',').filter(|word| !word.is_empty()).fold(text.to_owned(), |text, word| {
        text.replace(word, &"*".repeat(word.chars().count()))
    });
    Ok(Response::new(clean.into()))
}

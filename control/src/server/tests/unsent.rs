//! Answers that their clients do not read.

use std::sync::Arc;

use http::Response;

use super::*;
use crate::audit::Origin;
use crate::server::body::Body;
use crate::server::listen::{Connection, connection_of};

const MAP: &str = "/api/v1/namespaces/default/configmaps/large";

impl Api {
    async fn with_a_large_map() -> Self {
        let api = Self::new().await;
        let mut map = config_map("large");
        map["data"]["a"] = "x".repeat(1_000_000).into();
        api.post("/api/v1/namespaces/default/configmaps", &map).await.expect(201);
        api
    }

    async fn over_a(&self, connection: &Arc<Connection>, path: &str, accept: &str) -> Response<Body> {
        let mut request = Request::get(path).header(ACCEPT, accept).body(body::empty()).unwrap();
        request.extensions_mut().insert(Origin { connection: Some(Arc::clone(connection)), ..Origin::default() });
        self.server.handle(request, UserInfo::admin()).await
    }
}

#[tokio::test]
async fn answers_that_a_user_does_not_read_are_bounded_until_their_last_byte_is_sent() {
    let api = Api::with_a_large_map().await;
    let ((eve, closing), (adam, _)) = (connection_of("eve"), connection_of("adam"));
    let mut unread = Vec::new();
    let refused = loop {
        assert!(unread.len() < 100, "nothing bounds what is held");
        let answer = api.over_a(&eve, MAP, "application/json").await;
        match answer.status().as_u16() {
            200 => unread.push(answer),
            code => break code,
        }
    };
    assert_eq!((refused, unread.len() > 30), (429, true));
    let pretty = format!("{MAP}?pretty=true");
    let whole = format!("{MAP}?includeObject=Object");
    let forms = [
        (MAP, "application/json"),
        (&*pretty, "application/json"),
        (MAP, "application/yaml"),
        (MAP, "application/cbor"),
        (&*whole, "application/json;as=Table;v=v1;g=meta.k8s.io"),
    ];
    for (path, accept) in forms {
        assert_eq!(api.over_a(&eve, path, accept).await.status(), 429, "{accept}");
        assert_eq!(api.over_a(&adam, path, accept).await.status(), 200, "{accept}");
    }
    // A connection that has taken an answer has not sent it yet.
    let mut taken = Vec::new();
    for answer in unread.drain(..2) {
        taken.push(answer.into_body().collect().await.unwrap().to_bytes());
    }
    assert_eq!(api.over_a(&eve, MAP, "application/json").await.status(), 429);
    drop(taken);
    for (path, accept) in forms {
        assert_eq!(api.over_a(&eve, path, accept).await.status(), 200, "{accept}");
    }
    assert!(!closing.is_cancelled());
}

#[tokio::test]
async fn who_has_most_unread_answers_loses_the_connection_when_all_room_is_taken() {
    let api = Api::with_a_large_map().await;
    let mut greedy = Vec::new();
    for user in ["a", "b", "c", "d"] {
        let (connection, closing) = connection_of(user);
        let mut unread = Vec::new();
        loop {
            let answer = api.over_a(&connection, MAP, "application/json").await;
            if answer.status() != 200 {
                break;
            }
            unread.push(answer);
        }
        greedy.push((closing, unread));
    }
    let closed = |greedy: &[(tokio_util::sync::CancellationToken, Vec<_>)]| {
        greedy.iter().filter(|(closing, _)| closing.is_cancelled()).count()
    };
    assert_eq!(closed(&greedy), 0);
    let (modest, closing) = connection_of("modest");
    let mut read = Vec::new();
    for _ in 0..10 {
        let answer = api.over_a(&modest, MAP, "application/json").await;
        assert_eq!(answer.status(), 200);
        read.push(answer);
    }
    assert!(closed(&greedy) > 0 && !closing.is_cancelled());
}

#[tokio::test]
async fn who_reads_nothing_is_told_what_became_of_a_write_and_loses_the_oldest_answers() {
    let api = Api::with_a_large_map().await;
    let (eve, closing) = connection_of("eve");
    let mut unread = Vec::new();
    while unread.len() < 100 {
        let answer = api.over_a(&eve, MAP, "application/json").await;
        if answer.status() != 200 {
            break;
        }
        unread.push(answer);
    }
    let (writer, _) = connection_of("eve");
    let mut told = Vec::new();
    while !closing.is_cancelled() {
        assert!(told.len() < 100, "nothing bounds what is held");
        let request = Request::patch(MAP).header(CONTENT_TYPE, "application/merge-patch+json");
        let mut request = request.body(body::full(r#"{"metadata": {"labels": {"a": "b"}}}"#)).unwrap();
        request.extensions_mut().insert(Origin { connection: Some(Arc::clone(&writer)), ..Origin::default() });
        told.push(api.server.handle(request, UserInfo::admin()).await);
    }
    assert!(told.iter().all(|answer| answer.status() == 200));
    assert!(told.len() > 30, "as much room again");
}

#[test]
fn what_another_server_announces_is_not_taken_for_what_is_there() {
    let theirs = body::boxed(http_body_util::Full::new(bytes::Bytes::from_static(b"announced")));
    assert_eq!(http_body::Body::size_hint(&theirs).exact(), None);
    assert_eq!(http_body::Body::size_hint(&body::full("made")).exact(), Some(4));
}

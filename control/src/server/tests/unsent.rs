//! Answers that their clients do not read, asked of the pipeline; over real connections: `listen/tests/unread.rs`.

use std::sync::Arc;

use http::Response;
use http::header::ACCEPT_ENCODING;
use tokio::time::timeout;

use super::*;
use crate::audit::Origin;
use crate::server::body::Body;
use crate::server::listen::{Connection, a_connection};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MAP: &str = "/api/v1/namespaces/default/configmaps/large";
const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

fn large_map() -> Value {
    let mut map = config_map("large");
    map["data"]["a"] = "x".repeat(1_000_000).into();
    map["metadata"]["finalizers"] = json!(["example.com/stays"]);
    map
}

impl Api {
    async fn with_a_large_map() -> Self {
        let api = Self::new().await;
        api.put_large_map().await;
        api
    }

    pub(super) async fn put_large_map(&self) {
        self.post(MAPS, &large_map()).await.expect(201);
    }

    async fn send_over(&self, (connection, user): (&Arc<Connection>, &str), request: Request<Body>) -> Response<Body> {
        let mut request = request;
        request.extensions_mut().insert(Origin { connection: Some(Arc::clone(connection)), ..Origin::default() });
        self.server.handle(request, UserInfo::authenticated(user, &[])).await
    }

    pub(super) async fn get_over(&self, from: (&Arc<Connection>, &str), path: &str, accept: &str) -> Response<Body> {
        self.send_over(from, Request::get(path).header(ACCEPT, accept).body(body::empty()).unwrap()).await
    }

    /// Asks until one is refused.
    pub(super) async fn leave_unread(&self, from: (&Arc<Connection>, &str)) -> Vec<Response<Body>> {
        let mut unread = Vec::new();
        loop {
            assert!(unread.len() < 100, "nothing bounds what is held");
            let answer = self.get_over(from, MAP, JSON).await;
            match answer.status().as_u16() {
                200 => unread.push(answer),
                code => break assert_eq!(code, 429),
            }
        }
        unread
    }
}

#[tokio::test]
async fn answers_that_a_user_does_not_read_are_bounded_until_their_last_byte_is_sent() {
    let api = Api::with_a_large_map().await;
    let (connection, closing) = a_connection();
    // As through a proxy, which has one connection for all its users.
    let [eve, adam] = ["eve", "adam"].map(|user| (&connection, user));
    let mut unread = api.leave_unread(eve).await;
    assert!(unread.len() > 30);
    let (pretty, whole) = (format!("{MAP}?pretty=true"), format!("{MAP}?includeObject=Object"));
    let forms = [(MAP, JSON), (&*pretty, JSON), (MAP, "application/yaml"), (MAP, "application/cbor"), (&*whole, TABLE)];
    for (path, accept) in forms {
        assert_eq!(api.get_over(eve, path, accept).await.status(), 429, "{accept}");
        assert_eq!(api.get_over(adam, path, accept).await.status(), 200, "{accept}");
    }
    // A connection that has taken an answer has not sent it yet.
    let mut taken = Vec::new();
    for answer in unread.drain(..2) {
        taken.push(answer.into_body().collect().await.unwrap().to_bytes());
    }
    assert_eq!(api.get_over(eve, MAP, JSON).await.status(), 429);
    drop(taken);
    for (path, accept) in forms {
        assert_eq!(api.get_over(eve, path, accept).await.status(), 200, "{accept}");
    }
    drop(unread);
    assert!(!closing.is_cancelled());
    assert_eq!(api.server.unsent().held(), 0);
}

#[tokio::test]
async fn who_has_most_unread_answers_loses_the_connection_when_all_room_is_taken() {
    let api = Api::with_a_large_map().await;
    let mut greedy = Vec::new();
    for user in ["a", "b", "c", "d"] {
        let (connection, closing) = a_connection();
        greedy.push((closing, api.leave_unread((&connection, user)).await));
    }
    let closed = |greedy: &[(tokio_util::sync::CancellationToken, Vec<_>)]| {
        greedy.iter().filter(|(closing, _)| closing.is_cancelled()).count()
    };
    assert_eq!(closed(&greedy), 0);
    let (modest, closing) = a_connection();
    let mut read = Vec::new();
    for _ in 0..10 {
        let answer = api.get_over((&modest, "modest"), MAP, JSON).await;
        assert_eq!(answer.status(), 200);
        read.push(answer);
    }
    assert!(closed(&greedy) > 0 && !closing.is_cancelled());
}

#[tokio::test]
async fn an_answer_for_which_there_is_no_room_is_refused_before_anything_is_done_for_it() {
    let api = Api::with_a_large_map().await;
    let (connection, closing) = a_connection();
    let eve = (&connection, "eve");
    let _unread = api.leave_unread(eve).await;
    // Nobody gets to work on much.
    let busy = api.server.heavy().busy().await;
    let (pretty, whole) = (format!("{MAPS}?pretty=true"), format!("{MAPS}?includeObject=Object"));
    for (path, accept) in [(&*pretty, JSON), (&*whole, TABLE), (MAPS, "application/yaml"), (MAP, "application/cbor")] {
        let answer = timeout(Duration::from_secs(20), api.get_over(eve, path, accept)).await.expect("no work is done");
        assert_eq!(answer.status(), 429, "{path} {accept}");
    }
    let mut other = large_map();
    other["metadata"]["name"] = "other".into();
    let writes = [
        (Request::post(MAPS).header(CONTENT_TYPE, JSON), other.to_string()),
        (Request::put(MAP).header(CONTENT_TYPE, JSON), large_map().to_string()),
        (Request::patch(MAP).header(CONTENT_TYPE, "application/merge-patch+json"), r#"{"data":{"b":"c"}}"#.to_owned()),
    ];
    for (request, body) in writes {
        let request = request.body(body::full(body)).unwrap();
        let answer = timeout(Duration::from_secs(20), api.send_over(eve, request)).await.expect("no work is done");
        assert_eq!(answer.status(), 429);
    }
    assert!(!closing.is_cancelled());
    drop(busy);
    let maps = api.get(MAPS).await.expect(200);
    assert_eq!((maps["items"].as_array().unwrap().len(), &maps["items"][0]["data"]["b"]), (1, &Value::Null));
}

#[tokio::test]
async fn what_a_list_keeps_until_it_is_sent_is_counted() {
    const OLD: &str = "/api/v1/namespaces/default/events";
    const NEW: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
    let api = Api::new().await;
    for number in 0..4 {
        let metadata = json!({"name": format!("e{number}"), "annotations": {"a": "x".repeat(100_000)}});
        let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": metadata, "reason": "R", "message": "m",
            "type": "Normal", "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}});
        api.post(OLD, &event).await.expect(201);
    }
    let (connection, _) = a_connection();
    let held = async |path: &str, packing: &str| {
        let request = Request::get(path).header(ACCEPT, JSON).header(ACCEPT_ENCODING, packing);
        let answer = api.send_over((&connection, "eve"), request.body(body::empty()).unwrap()).await;
        assert_eq!(answer.status(), 200);
        api.server.unsent().held()
    };
    assert_eq!(held(OLD, "identity").await, 0, "the cache has what is shown");
    assert!(held(OLD, "gzip").await > 300_000, "what compresses");
    assert!(held(NEW, "identity").await > 400_000, "objects in another version than they are stored in");
}

#[tokio::test]
async fn whose_write_is_done_is_told_though_there_is_no_room_and_loses_no_connection() {
    let api = Api::with_a_large_map().await;
    let (connection, closing) = a_connection();
    let eve = (&connection, "eve");
    let _unread = api.leave_unread(eve).await;
    let before = api.server.unsent().held();
    let mut told = Vec::new();
    for _ in 0..10 {
        // What waits for its finalizers is shown.
        let answer = api.send_over(eve, Request::delete(MAP).body(body::empty()).unwrap()).await;
        assert_eq!(answer.status(), 200);
        told.push(answer);
    }
    assert!(!closing.is_cancelled());
    assert!(api.server.unsent().held() > before + 9_000_000, "it counts all the same");
}

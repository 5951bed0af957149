//! Answers that clients of HTTP/2 do not read, over real connections and from the whole server.

use futures::future::join_all;
use hyper::body::Incoming;

use super::*;
use crate::server::tests::Api;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MAP: &str = "/api/v1/namespaces/default/configmaps/map-0";
/// What one user may leave unread, and a little for refusals.
const ROOM: usize = 68 << 20;
const MUCH: usize = 60 << 20;

/// A cluster with objects that are just not large.
struct Cluster {
    api: Api,
    running: Running,
    token: String,
}

/// A connection whose client reads none of its answers.
struct Deaf {
    answers: Vec<Response<Incoming>>,
    _connection: JoinSet<()>,
    _sender: SendRequest<Body>,
}

impl Cluster {
    async fn new() -> Self {
        let api = Api::new().await;
        for number in 0..16 {
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("map-{number}")},
                "data": {"a": "x".repeat(60_000)}});
            api.post(MAPS, &map).await.expect(201);
        }
        let running = Running::serve(Arc::new(api.server.clone()), IDLE, MAX_CONNECTIONS).await;
        let token = running.token().await;
        Self { api, running, token }
    }

    fn held(&self) -> usize {
        self.api.server.unsent().held()
    }

    async fn deaf(&self, path: &str) -> Deaf {
        let mut connection = JoinSet::new();
        let sender = self.running.http2(&mut connection, 0).await;
        let asked = (0..500).map(|_| {
            let (mut sender, request) = (sender.clone(), get(path, &self.token));
            async move { sender.send_request(request).await.unwrap() }
        });
        Deaf { answers: join_all(asked).await, _connection: connection, _sender: sender }
    }

    async fn until(&self, met: impl Fn(usize) -> bool) {
        let wait = async {
            while !met(self.held()) {
                assert!(self.held() < ROOM, "{} are held", self.held());
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("{} are held", self.held()));
    }

    /// What another user reads.
    async fn read(&self, path: &str) -> usize {
        let admin = self.running.client(&self.running.pki.admin_identity().unwrap()).await;
        admin.request_text(Request::get(path).body(Vec::new()).unwrap()).await.unwrap().len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn small_answers_on_many_streams_that_are_not_read_are_bounded_together() {
    let cluster = Cluster::new().await;
    let mut deaf = Vec::new();
    for _ in 0..3 {
        deaf.push(cluster.deaf(MAP).await);
    }
    let told = |code: u16| deaf.iter().flat_map(|deaf| &deaf.answers).filter(|answer| answer.status() == code).count();
    assert_eq!(told(200) + told(429), 1_500);
    assert!(told(429) > 100, "nothing bounds what is held");
    assert!((MUCH..ROOM).contains(&cluster.held()), "{} are held", cluster.held());
    assert!(cluster.read(MAP).await > 60_000, "another user is served");
    drop(deaf);
    cluster.until(|held| held == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_of_lists_on_many_streams_that_are_not_read_are_bounded_together() {
    let cluster = Cluster::new().await;
    let mut deaf = Vec::new();
    for _ in 0..3 {
        deaf.push(cluster.deaf(MAPS).await);
    }
    let told = |code: u16| deaf.iter().flat_map(|deaf| &deaf.answers).filter(|answer| answer.status() == code).count();
    assert_eq!(told(200) + told(429), 1_500);
    assert!(told(200) > 400, "lists begin while there is room");
    cluster.until(|held| held > MUCH).await;
    assert!(cluster.read(MAPS).await > 16 * 60_000, "another user is served");
    drop(deaf);
    cluster.until(|held| held == 0).await;
}

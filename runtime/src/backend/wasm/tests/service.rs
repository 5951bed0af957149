//! Instances of WASI 0.3, which serve many requests at once: what one request does, others must not suffer.

use futures::future::join_all;

use super::*;

/// The component that misbehaves, with these annotations.
async fn misbehave(node: &Node, pod: &Pod, annotations: &[(&str, &str)]) -> Arc<dyn Container> {
    let mut config = node.config(&node.example("misbehave-http-p3"), &Log::new());
    config.annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    pod.start(config).await.unwrap()
}

#[tokio::test]
async fn requests_that_sleep_in_a_call_of_wasi_0_2_hold_up_nobody() {
    let node = Node::new();
    let (pod, other) = (node.pod("sleep").await, node.pod("other").await);
    let _containers = (misbehave(&node, &pod, &[]).await, misbehave(&node, &other, &[]).await);
    let asked = join_all((0..9).map(|_| get(pod.at(8080), "/sleep")));
    let (answers, beside) = soon(async { tokio::join!(asked, get(other.at(8080), "/")) }).await;
    assert!(answers.iter().chain([&beside]).all(|(status, _)| *status == 200), "{answers:?} {beside:?}");
}

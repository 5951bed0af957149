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

/// One instance at most: who is answered is answered by it, or by the next once it has ended.
const ALONE: (&str, &str) = ("wherry.dev/max-instances", "1");

#[tokio::test]
async fn an_instance_serves_many_at_once_and_ends_when_they_leave() {
    let node = Node::new();
    let pod = node.pod("many").await;
    let container = misbehave(&node, &pod, &[ALONE]).await;
    let waiting: Vec<_> = (0..15).map(|_| tokio::spawn(get(pod.at(8080), "/wait"))).collect();
    soon(asked(&*container, 15)).await;
    assert_eq!(soon(get(pod.at(8080), "/")).await.0, 200);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    soon(async {
        while container.stats().memory_bytes > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_trap_ends_an_instance_with_all_its_requests_and_the_next_one_serves() {
    let node = Node::new();
    let pod = node.pod("trap").await;
    let container = misbehave(&node, &pod, &[ALONE]).await;
    let waiting = tokio::spawn(get(pod.at(8080), "/wait"));
    soon(ran(&*container)).await;
    assert_eq!(soon(get(pod.at(8080), "/trap")).await.0, 500);
    assert_eq!(soon(waiting).await.unwrap().0, 500);
    assert_eq!(soon(get(pod.at(8080), "/")).await, (200, "request 1 of this instance\n".into()));
}

#[tokio::test]
async fn an_instance_goes_on_after_an_error_of_its_handler_and_after_an_answer_without_a_body() {
    let node = Node::new();
    let pod = node.pod("error").await;
    let _container = misbehave(&node, &pod, &[ALONE]).await;
    assert_eq!(soon(get(pod.at(8080), "/error")).await.0, 500);
    assert_eq!(soon(ask(pod.at(8080), "HEAD", "/")).await, (200, String::new()));
    assert_eq!(soon(get(pod.at(8080), "/")).await, (200, "request 3 of this instance\n".into()));
}

#[tokio::test]
async fn requests_beside_a_loop_are_served_by_other_instances() {
    let node = Node::new();
    let pod = node.pod("loop").await;
    let container = misbehave(&node, &pod, &[]).await;
    let looping: Vec<_> = (0..3).map(|_| tokio::spawn(get(pod.at(8080), "/loop"))).collect();
    soon(asked(&*container, 3)).await;
    let answers = soon(join_all((0..32).map(|_| get(pod.at(8080), "/")))).await;
    assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
    looping.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn an_instance_serves_no_more_requests_in_its_life_than_it_may() {
    let node = Node::new();
    let pod = node.pod("reuse").await;
    let _container = misbehave(&node, &pod, &[("wherry.dev/instance-reuse", "2")]).await;
    for _ in 0..20 {
        for (status, body) in soon(join_all((0..16).map(|_| get(pod.at(8080), "/")))).await {
            assert!(
                status == 200 && ["request 1 of", "request 2 of"].iter().any(|told| body.starts_with(told)),
                "{body}"
            );
        }
    }
}

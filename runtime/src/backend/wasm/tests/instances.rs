//! Instances of servers: how containers share the node's, and what becomes of requests when one fails.

use std::pin::pin;

use super::super::instances::Instances;
use super::*;
use crate::backend::Difference;

/// A server of which there is one instance at once.
async fn alone(node: &Node, pod: &Pod, example: &str, log: Arc<dyn LogSink>) -> Arc<dyn Container> {
    let mut config = node.config(&node.example(example), &Log::new());
    config.log = log;
    config.annotations.insert("wherry.dev/max-instances".into(), "1".into());
    pod.start(config).await.unwrap()
}

#[tokio::test]
async fn a_container_with_much_to_do_gives_its_place_to_who_waits_for_one() {
    let instances = Instances::new(1);
    let other = instances.share("other");
    let node = Node::bounded(|backend| backend.instances = instances);
    let pod = node.pod("busy").await;
    let container = alone(&node, &pod, "misbehave-http", Log::new()).await;
    let address = pod.at(8080);
    let first = tokio::spawn(get(address, "/loop"));
    soon(ran(&*container)).await;
    let second = tokio::spawn(get(address, "/loop"));
    soon(asked(&*container, 2)).await;
    // The next in the queue for the node's only place.
    let mut place = pin!(other.place());
    assert!(futures::poll!(place.as_mut()).is_pending());
    first.abort();
    let place = soon(place).await;
    assert!(place.is_some());
    let before = container.stats().cpu;
    drop(place);
    soon(async {
        while container.stats().cpu <= before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!second.is_finished());
    second.abort();
}

/// A log whose writer fails as soon as it may.
#[derive(Debug)]
struct Failing(Semaphore);

#[async_trait::async_trait]
impl LogSink for Failing {
    async fn write(&self, _: Stream, _: Bytes) {}

    async fn line(&self, _: Stream, _: &str) {
        self.0.acquire().await.unwrap().forget();
        panic!("the log cannot be written");
    }
}

#[tokio::test]
async fn what_waits_for_an_instance_gets_another_when_its_worker_panics() {
    let node = Node::new();
    let pod = node.pod("failing").await;
    let log = Arc::new(Failing(Semaphore::new(0)));
    let container = alone(&node, &pod, "misbehave-http", log.clone()).await;
    let address = pod.at(8080);
    let trapped = tokio::spawn(get(address, "/trap"));
    soon(asked(&*container, 1)).await;
    // The worker is to write of the trap, as the connection may be, and serves nobody before.
    let waiting = tokio::spawn(get(address, "/"));
    soon(asked(&*container, 2)).await;
    log.0.add_permits(100);
    assert_eq!(soon(waiting).await.unwrap(), (200, "fine\n".into()));
    assert_eq!(soon(get(address, "/")).await.0, 200);
    trapped.abort();
}

#[tokio::test]
async fn a_request_that_an_instance_has_no_place_for_in_its_table_is_answered_with_an_error() {
    let node = Node::bounded(|backend| backend.entries = 0..=0);
    for example in ["hello-http", "hello-http-p3"] {
        let pod = node.pod(example).await;
        let container = alone(&node, &pod, example, Log::new()).await;
        for _ in 0..2 {
            assert_eq!(soon(get(pod.at(8080), "/")).await.0, 500, "{example}");
        }
        let exit = soon(container.stop(Duration::from_secs(30))).await;
        assert_eq!((exit.code, exit.reason.as_str()), (0, "Completed"), "no request ended it");
    }
}

#[tokio::test]
async fn a_container_has_no_more_instances_than_its_namespace_and_says_so() {
    let node = Node::bounded(|backend| backend.instances = Instances::new(8));
    for (asked, differs) in [("5", vec![Difference::Instances { asked: 5, most: 4 }]), ("4", Vec::new())] {
        let pod = node.pod(asked).await;
        let mut config = node.config(&node.example("hello-http"), &Log::new());
        config.annotations.insert("wherry.dev/max-instances".into(), asked.into());
        let container = pod.sandbox.create_container(config).await.unwrap();
        assert_eq!(soon(container.start()).await.unwrap().differs, differs);
    }
}

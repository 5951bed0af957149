//! Servers: answers, failures, limits, and neighbours that misbehave.

use futures::FutureExt;
use futures::future::join_all;
use http_body_util::{BodyExt, Full};

use super::super::room::Descriptors;
use super::*;
use crate::network::Protocol;

async fn serve(node: &Node, pod: &Pod, example: &str, log: &Arc<Log>) -> Arc<dyn Container> {
    let mut config = node.config(&node.example(example), log);
    config.env.insert("HOSTNAME".into(), "pod-1".into());
    pod.start(config).await.unwrap()
}

#[tokio::test]
async fn a_request_is_answered_by_0_2_and_0_3() {
    let node = Node::new();
    for example in ["hello-http", "hello-http-p3"] {
        let pod = node.pod(example).await;
        let container = serve(&node, &pod, example, &Log::new()).await;
        for _ in 0..3 {
            let (status, body) = soon(get(pod.at(8080), "/")).await;
            assert_eq!(status, 200, "{body}");
            assert!(body.contains("pod-1"), "{body}");
        }
        assert_eq!(container.stats().requests, 3);
        assert!(container.stats().cpu > Duration::ZERO);
    }
}

#[tokio::test]
async fn a_trap_is_a_500_and_the_next_request_is_answered() {
    let node = Node::new();
    let pod = node.pod("trap").await;
    let log = Log::new();
    let _container = serve(&node, &pod, "misbehave-http", &log).await;
    assert_eq!(soon(get(pod.at(8080), "/trap")).await.0, 500);
    assert!(log.stderr().contains("wasm backtrace"), "{}", log.stderr());
    assert_eq!(soon(get(pod.at(8080), "/")).await, (200, "fine\n".into()));
}

#[tokio::test]
async fn a_request_that_needs_too_much_memory_ends_the_container() {
    let node = Node::new();
    let pod = node.pod("oom").await;
    let mut config = node.config(&node.example("misbehave-http"), &Log::new());
    config.memory_limit = Some(16 << 20);
    let container = pod.start(config).await.unwrap();
    let address = pod.at(8080);
    let asked = tokio::spawn(async move { get(address, "/allocate").await });
    let exit = soon(container.wait()).await;
    assert_eq!((exit.code, exit.reason.as_str()), (137, "OOMKilled"));
    assert_eq!(soon(asked).await.unwrap().0, 500);
}

#[tokio::test]
async fn loops_keep_nobody_from_an_answer_and_end_when_their_clients_leave() {
    let node = Node::new();
    let pod = node.pod("loop").await;
    let container = serve(&node, &pod, "misbehave-http", &Log::new()).await;
    let address = pod.at(8080);
    let looping: Vec<_> = (0..4).map(|_| tokio::spawn(get(address, "/loop"))).collect();
    soon(async {
        while container.stats().cpu < Duration::from_millis(200) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for _ in 0..50 {
        assert_eq!(soon(get(address, "/")).await.0, 200);
    }
    assert!(looping.iter().all(|task| !task.is_finished()), "others were answered beside all loops, which have no end");
    for task in &looping {
        task.abort();
    }
    drop(looping);
    soon(async {
        while container.stats().memory_bytes > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A request as guests of the node make it.
async fn call(pod: &Pod) -> Option<(u16, Bytes)> {
    let route = pod.network.connect(Protocol::Tcp, "127.0.0.1:8080".parse().unwrap()).ok()?;
    let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
    let request = ::http::Request::get("http://127.0.0.1:8080/").body(body).unwrap();
    let answer = route.local?.call(request).await;
    let status = answer.status().as_u16();
    Some((status, answer.into_body().collect().await.ok()?.to_bytes()))
}

#[tokio::test]
async fn guests_that_wait_for_a_container_learn_that_it_was_killed() {
    let node = Node::new();
    let pod = node.pod("killed").await;
    let mut config = node.config(&node.example("misbehave-http"), &Log::new());
    config.annotations.insert("wherry.dev/max-instances".into(), "1".into());
    let container = pod.start(config).await.unwrap();
    let looping = tokio::spawn(get(pod.at(8080), "/loop"));
    soon(ran(&*container)).await;
    let stopped = async {
        asked(&*container, 3).await;
        container.stop(Duration::ZERO).await
    };
    let (first, second, _exit) = soon(async { tokio::join!(call(&pod), call(&pod), stopped) }).await;
    assert_eq!((first.unwrap().0, second.unwrap().0), (500, 500));
    looping.abort();
}

#[tokio::test]
async fn what_each_instance_copies_of_the_environment_counts_as_its_memory() {
    let node = Node::new();
    let pod = node.pod("wordy").await;
    let log = Log::new();
    let mut config = node.config(&node.example("misbehave-http-p3"), &log);
    config.memory_limit = Some(16 << 20);
    config.env.insert("LONG".into(), "x".repeat(17 << 20));
    let _container = pod.start(config).await.unwrap();
    assert_eq!(soon(get(pod.at(8080), "/")).await.0, 500);
    assert!(log.stderr().contains("the memory limit has no room for 178"), "{}", log.stderr());
}

#[tokio::test]
async fn a_drained_server_answers_guests_of_its_node_and_nobody_else() {
    let node = Node::new();
    let pod = node.pod("drain").await;
    let container = serve(&node, &pod, "hello-http", &Log::new()).await;
    soon(container.drain()).await;
    assert!(TcpStream::connect(pod.at(8080)).await.is_err(), "it is closed for the host");
    let (status, body) = soon(call(&pod)).await.unwrap();
    assert_eq!(status, 200);
    assert!(String::from_utf8_lossy(&body).contains("pod-1"), "{body:?}");
    let exit = soon(container.stop(Duration::from_secs(30))).await;
    assert_eq!((exit.code, exit.reason.as_str()), (0, "Completed"));
    assert!(call(&pod).await.is_none(), "nothing listens any more");
}

/// What is written to a connection of its own, and what comes back until the server closes it.
async fn until_closed(address: SocketAddr, sent: Vec<u8>) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&sent).await.unwrap();
    let mut answer = Vec::new();
    // It may end with a reset.
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

/// The beginning of a connection over HTTP/2, and a request's head.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const HEAD: &[u8] = b"\0\0\x09\x01\x05\0\0\0\x01\x82\x86\x84\x41\x04test";

#[tokio::test]
async fn who_asks_nothing_or_nothing_more_is_sent_away() {
    let node = Node::bounded(|backend| backend.clients.idle = Duration::from_secs(1));
    let pod = node.pod("silent").await;
    let container = serve(&node, &pod, "hello-http", &Log::new()).await;
    let silent = [Vec::new(), b"PRI * HT".to_vec(), b"GET / HT".to_vec(), PREFACE.to_vec()];
    let once = [b"GET / HTTP/1.1\r\nHost: test\r\n\r\n".to_vec(), [PREFACE, HEAD].concat()];
    let all = silent.into_iter().chain(once).map(|sent| until_closed(pod.at(8080), sent));
    let answers = soon(join_all(all)).await;
    assert_eq!(container.stats().requests, 2);
    let told = |answer: &Vec<u8>| String::from_utf8_lossy(answer).contains("Hello from pod-1");
    assert_eq!(answers.iter().map(told).collect::<Vec<_>>(), [false, false, false, false, true, true]);
}

#[tokio::test]
async fn who_takes_nothing_of_an_answer_is_sent_away() {
    let node = Node::bounded(|backend| backend.clients.idle = Duration::from_millis(300));
    let pod = node.pod("unread").await;
    let container = serve(&node, &pod, "hello-http", &Log::new()).await;
    // It gives no stream any room.
    let window: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";
    let answer = soon(until_closed(pod.at(8080), [PREFACE, window, HEAD].concat())).await;
    assert_eq!(container.stats().requests, 1);
    assert!(!String::from_utf8_lossy(&answer).contains("Hello"), "{answer:?}");
}

#[tokio::test]
async fn who_waits_for_an_answer_is_not_sent_away() {
    let node = Node::bounded(|backend| backend.clients.idle = Duration::from_millis(300));
    let pod = node.pod("patient").await;
    let container = serve(&node, &pod, "misbehave-http-p3", &Log::new()).await;
    let mut waiting = Vec::new();
    let head: &[u8] = b"\0\0\x0f\x01\x05\0\0\0\x01\x82\x86\x04\x05/wait\x41\x04test";
    for sent in [b"GET /wait HTTP/1.1\r\nHost: test\r\n\r\n".to_vec(), [PREFACE, head].concat()] {
        let mut stream = TcpStream::connect(pod.at(8080)).await.unwrap();
        stream.write_all(&sent).await.unwrap();
        waiting.push(stream);
    }
    soon(asked(&*container, 2)).await;
    for _ in 0..6 {
        soon(until_closed(pod.at(8080), Vec::new())).await;
    }
    let mut sent = Vec::new();
    assert!(waiting[0].read_buf(&mut sent).now_or_never().is_none(), "it is open, and told nothing");
    // Until there is no more for now: the server's first frames, with no GOAWAY among them.
    while let Some(read) = waiting[1].read_buf(&mut sent).now_or_never() {
        assert!(read.unwrap() > 0, "it is open");
    }
    let mut rest = sent.as_slice();
    while let [a, b, c, kind, ..] = rest {
        assert_ne!(*kind, 7, "{sent:?}");
        rest = &rest[9 + u32::from_be_bytes([0, *a, *b, *c]) as usize..];
    }
}

#[tokio::test]
async fn a_full_server_gives_connections_back_that_could_not_even_wait() {
    let node = Node::bounded(|backend| (backend.clients.connections, backend.clients.waiting) = (2, 1));
    let pod = node.pod("full").await;
    let _container = serve(&node, &pod, "hello-http", &Log::new()).await;
    let server = pod.network.connect(Protocol::Tcp, "127.0.0.1:8080".parse().unwrap()).unwrap().local.unwrap();
    let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut taken = Vec::new();
    for _ in 0..8 {
        let client = TcpStream::connect(proxy.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = proxy.accept().await.unwrap();
        if server.serve(stream, peer).is_ok() {
            taken.push(client);
        }
    }
    assert!((1..=3).contains(&taken.len()), "{}", taken.len());
    let mut last = taken.pop().unwrap();
    drop(taken);
    last.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon(last.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.contains("Hello from pod-1"), "{answer}");
}

#[tokio::test]
async fn a_namespace_with_as_many_connections_as_it_may_have_takes_others_when_some_have_ended() {
    let node = Node::bounded(|backend| backend.connections = Descriptors::with(2));
    let pods = [node.pod("one").await, node.pod("two").await];
    let _servers = [
        serve(&node, &pods[0], "hello-http", &Log::new()).await,
        serve(&node, &pods[1], "hello-http", &Log::new()).await,
    ];
    let all = async {
        let mut kept = TcpStream::connect(pods[0].at(8080)).await.unwrap();
        kept.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
        kept.read_exact(&mut [0; 8]).await.unwrap();
        let mut refused = TcpStream::connect(pods[1].at(8080)).await.unwrap();
        assert!(matches!(refused.read(&mut [0]).await, Ok(0) | Err(_)));
        drop(kept);
        loop {
            let mut next = TcpStream::connect(pods[1].at(8080)).await.unwrap();
            let _ = next.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
            if next.read_exact(&mut [0; 8]).await.is_ok() {
                break;
            }
        }
    };
    soon(all).await;
}

#[tokio::test]
async fn stopping_a_server_waits_for_a_loop_only_as_long_as_its_grace() {
    let node = Node::new();
    let pod = node.pod("stop").await;
    let container = serve(&node, &pod, "misbehave-http", &Log::new()).await;
    let task = tokio::spawn(get(pod.at(8080), "/loop"));
    soon(asked(&*container, 1)).await;
    let exit = soon(container.stop(Duration::from_millis(50))).await;
    assert_eq!((exit.code, exit.reason.as_str()), (137, "Error"));
    task.abort();
}

#[tokio::test]
async fn an_idle_server_stops_at_once_and_completes() {
    let node = Node::new();
    let pod = node.pod("idle").await;
    let container = serve(&node, &pod, "hello-http", &Log::new()).await;
    let exit = soon(container.stop(Duration::from_secs(30))).await;
    assert_eq!((exit.code, exit.reason.as_str()), (0, "Completed"));
}

#[tokio::test]
async fn a_port_of_the_pod_can_be_had_once() {
    let node = Node::new();
    let pod = node.pod("twice").await;
    let _first = serve(&node, &pod, "hello-http", &Log::new()).await;
    let error = pod.start(node.config(&node.example("hello-http"), &Log::new())).await.unwrap_err();
    assert!(matches!(error, BackendError::Network(_)), "{error}");
}

#[tokio::test]
async fn a_guest_reaches_its_sidecar_over_the_pod_s_own_localhost() {
    let node = Node::new();
    let (pod, other) = (node.pod("front").await, node.pod("other").await);
    let log = Log::new();
    let mut config = node.config(&node.example("guestbook"), &log);
    config.env.insert("STORE_URL".into(), "http://127.0.0.1:9090/".into());
    let _front = pod.start(config).await.unwrap();
    let mut config = node.config(&node.example("hello-http"), &log);
    config.http_port = 9090;
    config.env.insert("HOSTNAME".into(), "the sidecar".into());
    let sidecar = pod.start(config).await.unwrap();
    assert_eq!(soon(get(pod.at(8080), "/")).await, (200, "Hello from the sidecar\n".into()));
    assert_eq!(sidecar.stats().requests, 1);
    // Another pod's localhost is another one.
    let mut config = node.config(&node.example("guestbook"), &log);
    config.env.insert("STORE_URL".into(), "http://127.0.0.1:9090/".into());
    let _stranger = other.start(config).await.unwrap();
    let (status, body) = soon(get(other.at(8080), "/")).await;
    assert_eq!(status, 502, "{body}");
    assert!(body.contains("ConnectionRefused"), "{body}");
}

#[tokio::test]
async fn the_host_s_own_servers_are_out_of_reach() {
    let node = Node::new();
    let pod = node.pod("curious").await;
    let host = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = host.local_addr().unwrap().port();
    for address in ["127.0.0.1", "127.1.2.3", "localhost", "0.0.0.0"] {
        let mut config = node.config(&node.example("guestbook"), &Log::new());
        config.env.insert("STORE_URL".into(), format!("http://{address}:{port}/"));
        let container = pod.start(config).await.unwrap();
        let (status, body) = soon(get(pod.at(8080), "/")).await;
        assert_eq!(status, 502, "{address}: {body}");
        soon(container.stop(Duration::ZERO)).await;
    }
}

#[tokio::test]
async fn a_request_keeps_no_method_and_no_authority_of_any_length() {
    let node = Node::new();
    let image = node.image(
        r#"(component
            (import "wasi:http/types@0.2.0" (instance $http
                (export "fields" (type $fields (sub resource)))
                (export "outgoing-request" (type $request (sub resource)))
                (type $methods (variant (case "get") (case "head") (case "post") (case "put") (case "delete")
                    (case "connect") (case "options") (case "trace") (case "patch") (case "other" string)))
                (export "method" (type $method (eq $methods)))
                (export "[constructor]fields" (func (result (own $fields))))
                (export "[constructor]outgoing-request" (func (param "headers" (own $fields)) (result (own $request))))
                (export "[method]outgoing-request.set-method"
                    (func (param "self" (borrow $request)) (param "method" $method) (result (result))))
                (export "[method]outgoing-request.set-authority"
                    (func (param "self" (borrow $request)) (param "authority" (option string)) (result (result))))))
            (core module $memory (memory (export "memory") 1))
            (core instance $own (instantiate $memory))
            (core func $fields (canon lower (func $http "[constructor]fields")))
            (core func $request (canon lower (func $http "[constructor]outgoing-request")))
            (core func $method
                (canon lower (func $http "[method]outgoing-request.set-method") (memory $own "memory")))
            (core func $authority
                (canon lower (func $http "[method]outgoing-request.set-authority") (memory $own "memory")))
            (core module $m
                (import "own" "memory" (memory 1))
                (import "" "fields" (func $fields (result i32)))
                (import "" "request" (func $request (param i32) (result i32)))
                (import "" "method" (func $method (param i32 i32 i32 i32) (result i32)))
                (import "" "authority" (func $authority (param i32 i32 i32 i32) (result i32)))
                (func (export "run") (result i32)
                    (local $r i32)
                    (memory.fill (i32.const 0) (i32.const 65) (i32.const 60000))
                    (local.set $r (call $request (call $fields)))
                    (i32.or
                        (i32.or
                            (call $method (local.get $r) (i32.const 9) (i32.const 0) (i32.const 9))
                            (call $authority (local.get $r) (i32.const 1) (i32.const 0) (i32.const 253)))
                        (i32.or
                            (i32.eqz (call $method (local.get $r) (i32.const 9) (i32.const 0) (i32.const 60000)))
                            (i32.eqz
                                (call $authority (local.get $r) (i32.const 1) (i32.const 0) (i32.const 60000)))))))
            (core instance $i (instantiate $m
                (with "own" (instance $own))
                (with "" (instance
                    (export "fields" (func $fields)) (export "request" (func $request))
                    (export "method" (func $method)) (export "authority" (func $authority))))))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance (export "wasi:cli/run@0.2.0") (export "run" (func $run))))"#,
    );
    let exit = command::run(&node, node.config(&image, &Log::new())).await;
    assert_eq!(exit.code, 0, "{}", exit.message);
}

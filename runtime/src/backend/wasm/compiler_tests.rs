//! Turns at the compiler, what is slow, large or heavy, and what nobody waits for.

use std::sync::mpsc;

use futures::FutureExt;
use tokio::task::JoinHandle;

use super::*;

const LIGHT: Weight = Weight::NONE;
const BULKY: Weight = Weight { heaviest: HEAVY.heaviest + 1, ..Weight::NONE };

#[test]
fn namespaces_take_turns_and_a_busy_one_has_none() {
    let mut turns = Turns::default();
    for (namespace, job) in [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)] {
        turns.add(namespace, job);
    }
    let mut one = || {
        let (namespace, job) = turns.next(|_| true)?;
        turns.done(&namespace);
        Some(job)
    };
    assert_eq!(std::iter::from_fn(&mut one).collect::<Vec<_>>(), [1, 4, 5, 2, 6, 3]);
    turns.add("a", 7);
    turns.add("a", 8);
    turns.add("b", 9);
    assert_eq!(turns.next(|_| true).unwrap().1, 7);
    assert!(turns.next(|job| *job > 9).is_none());
    assert_eq!(turns.next(|_| true).unwrap().1, 9);
    assert!(turns.next(|_| true).is_none() && !turns.has_next(|_| true));
    turns.done("a");
    assert_eq!(turns.next(|_| true).unwrap().1, 8);
}

/// A compiler that takes `slow` as long as nobody lets it go on, and is at once done with the rest.
fn compiler() -> (Arc<Compiler>, mpsc::Sender<()>) {
    let (go, gone) = mpsc::channel();
    let gone = Mutex::new(gone);
    let work = move |wasm: &[u8]| {
        match wasm {
            b"bad" => panic!("as a compiler may"),
            slow if slow.starts_with(b"slow") => gone.lock().recv().unwrap(),
            _ => {}
        }
        Ok(wasm.get(..4).unwrap_or(wasm).to_vec())
    };
    (Arc::new(Compiler::start_with(Box::new(work), Duration::from_millis(1)).unwrap()), go)
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it is compiled")
}

/// Namespaces that each compile something slow.
async fn occupy(
    compiler: &Arc<Compiler>,
    namespaces: usize,
    wasm: &Bytes,
    weight: Weight,
) -> Vec<JoinHandle<Compiled>> {
    let mut all = Vec::new();
    for namespace in 0..namespaces {
        let (of_it, wasm) = (Arc::clone(compiler), wasm.clone());
        let namespace = format!("slow-{namespace}");
        let compiles = namespace.clone();
        all.push(tokio::spawn(async move { of_it.compile(&namespace, &namespace, wasm, weight).await }));
        while !compiler.0.state.lock().turns.busy.contains(&compiles) {
            tokio::task::yield_now().await;
        }
    }
    all
}

#[tokio::test]
async fn what_compiles_for_long_holds_up_its_own_namespace_alone() {
    let (compiler, go) = compiler();
    let slow = soon(occupy(&compiler, ASIDE, &Bytes::from_static(b"slow"), LIGHT)).await;
    let mut next = Box::pin(compiler.compile("slow-0", "next", Bytes::from_static(b"next"), LIGHT));
    assert!((&mut next).now_or_never().is_none());
    for _ in 0..3 {
        assert_eq!(
            soon(compiler.compile("ours", "quick", Bytes::from_static(b"quick"), LIGHT)).await.unwrap(),
            &b"quic"[..]
        );
    }
    assert!((&mut next).now_or_never().is_none());
    for _ in &slow {
        go.send(()).unwrap();
    }
    for one in slow {
        assert_eq!(soon(one).await.unwrap().unwrap(), &b"slow"[..]);
    }
    assert_eq!(soon(next).await.unwrap(), &b"next"[..]);
    soon(async {
        while compiler.0.state.lock().aside > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_large_or_heavy_component_waits_for_others_and_a_small_one_does_not() {
    let mut large = b"slow".to_vec();
    large.resize(LARGE + 1, 0);
    for (wasm, weight) in [(Bytes::from(large), LIGHT), (Bytes::from_static(b"slow"), BULKY)] {
        let (compiler, go) = compiler();
        let slow = soon(occupy(&compiler, LARGE_AT_ONCE, &wasm, weight)).await;
        let mut waits = Box::pin(compiler.compile("ours", "large", wasm, weight));
        assert!((&mut waits).now_or_never().is_none());
        let small = compiler.compile("small", "quick", Bytes::from_static(b"quick"), LIGHT);
        assert_eq!(soon(small).await.unwrap(), &b"quic"[..]);
        assert!((&mut waits).now_or_never().is_none());
        for _ in 0..=slow.len() {
            go.send(()).unwrap();
        }
        assert_eq!(soon(waits).await.unwrap(), &b"slow"[..]);
    }
}

#[tokio::test]
async fn what_several_namespaces_want_is_compiled_once_and_in_whichever_turn_comes_first() {
    let (compiler, go) = compiler();
    compiler.occupy("busy");
    let mut waits = Box::pin(compiler.compile("busy", "shared", Bytes::from_static(b"slow"), LIGHT));
    assert!((&mut waits).now_or_never().is_none());
    let mut ours = Box::pin(compiler.compile("ours", "shared", Bytes::from_static(b"slow"), LIGHT));
    assert!((&mut ours).now_or_never().is_none());
    // What waits for another answer is never given one.
    go.send(()).unwrap();
    assert_eq!(soon(waits).await.unwrap(), &b"slow"[..]);
    assert_eq!(soon(ours).await.unwrap(), &b"slow"[..]);
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_kept() {
    let (compiler, _go) = compiler();
    compiler.occupy("a");
    let mut all: Vec<_> = ["one", "one", "two"]
        .map(|digest| Box::pin(compiler.compile("a", digest, Bytes::from_static(b"wasm"), LIGHT)))
        .into();
    for one in &mut all {
        assert!(one.now_or_never().is_none());
    }
    assert_eq!(compiler.waiting(), 2);
    drop(all.pop());
    drop(all.pop());
    assert_eq!(compiler.waiting(), 1);
    drop(all);
    assert_eq!(compiler.waiting(), 0);
    assert!(!compiler.0.state.lock().has_next() && compiler.0.state.lock().turns.waiting.is_empty());
}

#[tokio::test]
async fn what_the_compiler_fails_at_is_refused_and_the_next_is_compiled() {
    let (compiler, _go) = compiler();
    let bad = soon(compiler.compile("a", "bad", Bytes::from_static(b"bad"), LIGHT)).await.unwrap_err();
    assert_eq!(bad.to_string(), "not a component this node can compile: the compiler failed at it");
    assert_eq!(soon(compiler.compile("a", "good", Bytes::from_static(b"good"), LIGHT)).await.unwrap(), &b"good"[..]);
}

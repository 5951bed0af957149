//! Commands: their output, their ends, their limits.

use super::*;

pub(super) async fn run(node: &Node, config: ContainerConfig) -> Exit {
    let pod = node.pod("job").await;
    let container = pod.start(config).await.unwrap();
    soon(container.wait()).await
}

#[tokio::test]
async fn a_command_has_its_environment_and_ends_with_its_code() {
    let node = Node::new();
    let log = Log::new();
    let mut config = node.config(&node.example("worker"), &log);
    for (name, value) in [("GREETING", "ahoy"), ("LINES", "2"), ("PAUSE_MS", "1"), ("EXIT_CODE", "7")] {
        config.env.insert(name.into(), value.into());
    }
    let exit = run(&node, config).await;
    assert_eq!((exit.code, exit.reason.as_str()), (7, "Error"));
    assert_eq!(log.stdout(), "1/2 ahoy\n2/2 ahoy\n");
    assert_eq!(log.stderr(), "done\n");
}

#[tokio::test]
async fn arguments_follow_the_command_s_name() {
    let node = Node::new();
    let log = Log::new();
    let mut config = node.config(&node.example("worker"), &log);
    config.args = vec!["from an argument".into()];
    config.env.insert("LINES".into(), "1".into());
    config.env.insert("PAUSE_MS".into(), "1".into());
    let exit = run(&node, config).await;
    assert_eq!((exit.code, exit.reason.as_str()), (0, "Completed"));
    assert_eq!(log.stdout(), "1/1 from an argument\n");
}

fn misbehaving(node: &Node, log: &Arc<Log>, how: &str) -> ContainerConfig {
    let mut config = node.config(&node.example("misbehave"), log);
    config.args = vec![how.into()];
    config
}

#[tokio::test]
async fn a_trap_is_code_134_and_its_backtrace_is_in_the_log() {
    let node = Node::new();
    let log = Log::new();
    let exit = run(&node, misbehaving(&node, &log, "trap")).await;
    assert_eq!((exit.code, exit.reason.as_str()), (134, "Error"));
    assert!(exit.message.contains("out of bounds"), "{}", exit.message);
    assert!(log.stderr().contains("wasm backtrace"), "{}", log.stderr());
}

#[tokio::test]
async fn a_trap_among_functions_with_long_names_is_told_in_a_few_lines() {
    let (node, log) = (Node::new(), Log::new());
    let name = "n".repeat(1 << 20);
    let image = node.image(&format!(
        r#"(module (memory (export "memory") 1)
            (func ${name} (param i32)
                (if (i32.eqz (local.get 0)) (then unreachable))
                (call ${name} (i32.sub (local.get 0) (i32.const 1))))
            (func (export "_start") (call ${name} (i32.const 40))))"#
    ));
    assert_eq!(run(&node, node.config(&image, &log)).await.code, 134);
    let told = log.stderr();
    assert!(told.len() < 64 << 10, "{}", told.len());
    assert!(
        told.contains("wasm backtrace") && told.ends_with("wasm `unreachable` instruction executed\n"),
        "{told:.99}"
    );
}

#[tokio::test]
async fn allocating_over_the_limit_is_oom_killed() {
    let node = Node::new();
    let mut config = misbehaving(&node, &Log::new(), "allocate");
    config.memory_limit = Some(16 << 20);
    let exit = run(&node, config).await;
    assert_eq!((exit.code, exit.reason.as_str()), (137, "OOMKilled"));
}

#[tokio::test]
async fn a_limit_below_the_first_memory_is_oom_killed_too() {
    let node = Node::new();
    let mut config = misbehaving(&node, &Log::new(), "exit");
    config.memory_limit = Some(1 << 10);
    let exit = run(&node, config).await;
    assert_eq!((exit.code, exit.reason.as_str()), (137, "OOMKilled"));
}

#[tokio::test]
async fn a_loop_is_stopped_at_once_and_its_time_is_counted() {
    let node = Node::new();
    let pod = node.pod("looper").await;
    let container = pod.start(misbehaving(&node, &Log::new(), "loop")).await.unwrap();
    soon(async {
        while container.stats().cpu < Duration::from_millis(30) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let exit = soon(container.stop(Duration::from_secs(30))).await;
    assert_eq!((exit.code, exit.reason.as_str()), (143, "Error"));
    assert_eq!(container.stats().memory_bytes, 0);
}

#[tokio::test]
async fn a_flood_waits_for_the_log() {
    let node = Node::new();
    let log = Log::with_room(10);
    let pod = node.pod("flood").await;
    let container = pod.start(misbehaving(&node, &log, "flood")).await.unwrap();
    soon(async {
        while log.room.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // It waits: its CPU time stands still.
    let before = container.stats().cpu;
    tokio::time::timeout(Duration::from_millis(50), container.wait()).await.unwrap_err();
    assert!(container.stats().cpu.saturating_sub(before) < Duration::from_millis(20));
    assert!(log.stdout().lines().count() <= 10);
    soon(container.stop(Duration::ZERO)).await;
}

#[tokio::test]
async fn a_dropped_container_is_killed() {
    let node = Node::new();
    let pod = node.pod("dropped").await;
    let container = pod.start(misbehaving(&node, &Log::new(), "loop")).await.unwrap();
    let network = Arc::downgrade(&pod.network);
    drop((container, pod));
    soon(async {
        while network.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_preview_1_module_runs() {
    let node = Node::new();
    let image = node.image(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (data (i32.const 8) "\10\00\00\00\03\00\00\00hi\n")
            (func (export "_start")
                (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 0)))
                (call $exit (i32.const 3))))"#,
    );
    let log = Log::new();
    let exit = run(&node, node.config(&image, &log)).await;
    assert_eq!((exit.code, log.stdout().as_str()), (3, "hi\n"));
}

#[tokio::test]
async fn a_missing_import_is_named_when_the_container_is_created() {
    let node = Node::new();
    let image = node.image(
        r#"(component
            (import "wasi:keyvalue/store@0.2.0" (instance (export "open" (func))))
            (core module $m (func (export "run") (result i32) i32.const 0))
            (core instance $i (instantiate $m))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance (export "wasi:cli/run@0.2.0") (export "run" (func $run))))"#,
    );
    let pod = node.pod("lacking").await;
    let error = pod.start(node.config(&image, &Log::new())).await.unwrap_err();
    assert_eq!(error.to_string(), "component imports wasi:keyvalue/store@0.2.0, which this node does not provide");
}

#[tokio::test]
async fn a_guest_has_as_many_handles_as_its_memory_allows() {
    let node = Node::new();
    let image = node.image(
        r#"(component
            (type $own (resource (rep i32)))
            (core func $new (canon resource.new $own))
            (core module $m
                (import "" "new" (func $new (param i32) (result i32)))
                (func (export "run") (result i32)
                    (local $made i32)
                    (loop $more
                        (drop (call $new (i32.const 0)))
                        (local.set $made (i32.add (local.get $made) (i32.const 1)))
                        (br_if $more (i32.lt_u (local.get $made) (i32.const 3000))))
                    i32.const 0))
            (core instance $i (instantiate $m (with "" (instance (export "new" (func $new))))))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance (export "wasi:cli/run@0.2.0") (export "run" (func $run))))"#,
    );
    for (limit, code) in [(None, 0), (Some(4 << 20), 134)] {
        let mut config = node.config(&image, &Log::new());
        config.memory_limit = limit;
        let exit = run(&node, config).await;
        assert_eq!(exit.code, code, "{limit:?}: {}", exit.message);
        assert!(code == 0 || exit.message.contains("handle limit"), "{}", exit.message);
    }
}

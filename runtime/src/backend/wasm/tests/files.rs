//! What guests see of their image's files, and how many they may have open.

use super::super::room::Descriptors;
use super::command::run;
use super::*;

/// A command whose image has the files of a folder.
fn with_files(node: &Node, wat: &str, folder: &Path) -> Arc<Image> {
    let image = node.image(wat);
    let ImageKind::Wasm(wasm) = &image.kind else { panic!("it is a component") };
    let (digest, component) = (wasm.digest.clone(), wasm.component.clone());
    let root = Some(folder.to_owned());
    Arc::new(Image {
        reference: image.reference.clone(),
        id: image.id.clone(),
        kind: ImageKind::Wasm(Arc::new(WasmImage { digest, component, root, prepared: OnceLock::new() })),
        config: ImageConfig::default(),
        size: 0,
    })
}

/// How it ends whose image has one file, `f`.
async fn ends(wat: &str, descriptors: usize) -> i32 {
    let node = Node::bounded(|backend| backend.sockets = Descriptors::with(descriptors));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("f"), "text").unwrap();
    let image = with_files(&node, wat, folder.path());
    run(&node, node.config(&image, &Log::new())).await.code
}

#[tokio::test]
async fn a_guest_has_as_many_files_open_as_there_are_descriptors_for_it_and_again_when_it_closes_one() {
    // Its code is how many it could open, and a hundred more for each step that failed after it closed one.
    let code = ends(
        r#"(module
            (import "wasi_snapshot_preview1" "path_open"
                (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1) (data (i32.const 0) "f")
            (func $failed (result i32)
                (i32.ne (i32.const 0) (call $path_open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0)
                    (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 8))))
            (func (export "_start") (local $opened i32)
                (loop $again
                    (if (i32.eqz (call $failed)) (then
                        (local.set $opened (i32.add (local.get $opened) (i32.const 1)))
                        (br_if $again (i32.lt_u (local.get $opened) (i32.const 50))))))
                (local.get $opened)
                (i32.mul (i32.const 100) (call $close (i32.load (i32.const 8))))
                (i32.mul (i32.const 100) (call $failed))
                (call $exit (i32.add (i32.add)))))"#,
        20,
    )
    .await;
    assert_eq!(code, 10, "a namespace has half");
}

#[tokio::test]
async fn all_instances_of_an_image_have_its_files_by_one_descriptor() {
    let node = Node::new();
    let folder = tempfile::tempdir().unwrap();
    let image = with_files(&node, r#"(module (memory (export "memory") 1) (func (export "_start")))"#, folder.path());
    let open = || {
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        let of_it = |path: std::path::PathBuf| std::fs::read_link(path).is_ok_and(|link| link == folder.path());
        open.filter(|entry| of_it(entry.as_ref().unwrap().path())).count()
    };
    for _ in 0..2 {
        assert_eq!(run(&node, node.config(&image, &Log::new())).await.code, 0);
        assert_eq!(open(), 1);
    }
    drop(image);
    // The last instance is dropped by a task of its own.
    soon(async {
        while open() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_guest_reads_the_folders_of_its_image() {
    // Its code is how many bytes the entries `.`, `..` and `f` take.
    let code = ends(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_readdir" (func $readdir (param i32 i32 i32 i64 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (func (export "_start")
                (if (call $readdir (i32.const 3) (i32.const 16) (i32.const 4096) (i64.const 0) (i32.const 8)) (then unreachable))
                (call $exit (i32.load (i32.const 8)))))"#,
        20,
    )
    .await;
    assert_eq!(code, (24 + 1) + (24 + 2) + (24 + 1));
}

#[tokio::test]
async fn random_bytes_are_given_in_pieces_that_hold_nobody_up() {
    let asks = |bytes: u32| {
        format!(
            r#"(module
                (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
                (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
                (memory (export "memory") 64)
                (func (export "_start") (call $exit (call $random (i32.const 0) (i32.const {bytes})))))"#
        )
    };
    assert_eq!(ends(&asks(1 << 20), 20).await, 0);
    assert_eq!(ends(&asks((1 << 20) + 1), 20).await, 134);
}

//! What was acknowledged is there after any end, and a data directory that cannot be used is refused in words that say
//! what to do.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, clippy::print_stderr, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use support::run::{Output, run};
use support::{Wherry, eventually};

/// Acknowledged writes after which the server is killed.
const ENOUGH: usize = 300;

#[test]
fn every_acknowledged_write_survives_kill_9() {
    let mut server = Wherry::start("boat");
    let mut expected = BTreeSet::new();
    for round in 0..2 {
        expected.extend(killed_in_the_middle(&mut server, round));
        server.up(&["--quiet"]);
        let found = configmaps(&server);
        let lost: Vec<_> = expected.difference(&found).collect();
        assert!(lost.is_empty(), "{} of {} acknowledged writes are lost: {lost:?}", lost.len(), expected.len());
    }
    a_watch_goes_on_across_a_restart(&mut server);
}

/// Creates ConfigMaps, many at once, and kills the server while they come in; returns those that were acknowledged.
fn killed_in_the_middle(server: &mut Wherry, round: u32) -> BTreeSet<String> {
    let api = server.api();
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (api, done) = (&api, &done);
        let writers: Vec<_> = (0..32)
            .map(|writer| {
                scope.spawn(move || {
                    let mut acknowledged = Vec::new();
                    for number in 0.. {
                        let name = format!("r{round}-w{writer}-{number}");
                        let object = json!({"metadata": {"name": name}, "data": {"number": number.to_string()}});
                        let path = "/api/v1/namespaces/default/configmaps";
                        let asked = api.ask("POST", path, "application/json", object.to_string().into_bytes());
                        match api.block_on(async { tokio::time::timeout(Duration::from_secs(5), asked).await }) {
                            Ok(Ok(answer)) if answer.status == 201 => acknowledged.push(name),
                            _ => break,
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    acknowledged
                })
            })
            .collect();
        eventually("enough is written", || match done.load(Ordering::Relaxed) {
            enough if enough >= ENOUGH => Ok(()),
            few => Err(few.to_string()),
        });
        server.kill();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    })
}

fn configmaps(server: &Wherry) -> BTreeSet<String> {
    let list = server.api().get("/api/v1/namespaces/default/configmaps").ok();
    let name = |item: &Value| item["metadata"]["name"].as_str().unwrap().to_owned();
    list["items"].as_array().unwrap().iter().map(name).collect()
}

fn a_watch_goes_on_across_a_restart(server: &mut Wherry) {
    let path = "/api/v1/namespaces/default/configmaps";
    let make = |server: &Wherry, name: &str| server.api().post(path, &json!({"metadata": {"name": name}})).ok();
    let version = make(server, "seen")["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    make(server, "before-the-end");
    let (status, _) = server.interrupt();
    assert!(status.success());
    server.up(&["--quiet"]);
    make(server, "after-the-start");
    let events = server.api().watch(&format!("{path}?watch=1&resourceVersion={version}&timeoutSeconds=1"));
    let names: Vec<&str> =
        events.iter().map(|e| e["object"]["metadata"]["name"].as_str().unwrap_or_default()).collect();
    assert_eq!(names, ["before-the-end", "after-the-start"], "{events:#?}");
}

/// Runs `wherry up` where it must not start.
#[track_caller]
fn refused(server: &Wherry, more: &[&str], words: &[&str]) -> Output {
    let output = run(&mut server.up_command(more), "");
    assert_eq!(output.code, 1, "{output}");
    for word in words {
        assert!(output.stderr.contains(word), "{word:?} is not in:\n{output}");
    }
    assert!(!output.stderr.contains("panicked"), "{output}");
    output
}

#[test]
fn what_keeps_a_server_from_starting_is_said_plainly() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let other = Wherry::prepare("other");
    refused(&other, &["--listen", &address], &[&address, "in use", "--listen"]);
    let config = other.file("data-file", "");
    let mut beneath = other.up_command(&[]);
    let output = run(beneath.arg("--data-dir").arg(config.join("below")).env("WHERRY_DATA_DIR", ""), "");
    assert!(output.code != 0 && !output.stderr.contains("panicked"), "{output}");
    refused(&other, &["-f", "/nonexistent.yaml"], &["/nonexistent.yaml"]);

    let mut server = Wherry::start("boat");
    let data = server.data_dir().display().to_string();
    refused(&server, &[], &[&data, "another `wherry up`", "wherry apply -f"]);
    server.api().post("/api/v1/namespaces/default/configmaps", &json!({"metadata": {"name": "kept"}})).ok();
    let (status, _) = server.interrupt();
    assert_eq!(status.code(), Some(0));
    let named = run(Wherry::prepare("boat").up_command(&[]).args(["--node-name", "UPPER"]), "");
    assert!(named.code != 0 && named.stderr.contains("node"), "{named}");

    let database = database(&server.data_dir());
    let good = fs::read(&database).unwrap();
    let path = database.display().to_string();
    for (what, bytes) in damaged(&good) {
        fs::write(&database, bytes).unwrap();
        let said = refused(&server, &[], &[&path, "damaged", "backup"]);
        assert_eq!(said.stderr.lines().filter(|line| line.starts_with("error:")).count(), 1, "{what}: {said}");
    }
    fs::write(&database, &good).unwrap();
    from_the_future(&database);
    refused(&server, &[], &[&path, "newer version of Wherry", "restore a backup"]);
    fs::write(&database, &good).unwrap();
    server.up(&["--quiet"]);
    assert!(configmaps(&server).contains("kept"), "refusing changed nothing");
}

/// The one database file below a folder.
fn database(folder: &Path) -> PathBuf {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "redb") {
                found.push(path);
            }
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// Ways in which a disk ruins a file.
fn damaged(good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut overwritten = good.to_vec();
    overwritten[..4096].fill(0xaa);
    let mut zeroed = good.to_vec();
    zeroed[512..].fill(0);
    vec![
        ("another file", b"this is a shopping list\n".to_vec()),
        ("cut off", good[..good.len() / 2].to_vec()),
        ("its beginning overwritten", overwritten),
        ("all but its header lost", zeroed),
    ]
}

/// Marks the file as written by a version that does not exist yet.
fn from_the_future(path: &Path) {
    let meta: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("meta");
    let db = redb::Database::open(path).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(meta).unwrap().insert("format", &99_u32.to_le_bytes()[..]).unwrap();
    txn.commit().unwrap();
}

//! Logs written and read back, through real files.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::read::{Wanted, stream};
use super::*;
use crate::backend::{LogSink, Stream};

fn pod() -> Pod {
    serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u1"}})).unwrap()
}

fn logs(dir: &Path, bytes: u64) -> Logs {
    Logs::open_dir(dir, Limits { bytes, files: 5 }).unwrap()
}

fn file(logs: &Logs, attempt: u32) -> PathBuf {
    logs.pod_dir(&pod()).join("a").join(format!("{attempt}.log"))
}

async fn text(path: PathBuf, live: Option<Arc<ContainerLog>>, wanted: Wanted) -> String {
    let mut out = Vec::new();
    let mut blocks = std::pin::pin!(stream(path, live, wanted));
    while let Some(block) = blocks.next().await {
        out.extend_from_slice(&block.unwrap());
    }
    String::from_utf8(out).unwrap()
}

fn tail(lines: u64) -> Wanted {
    Wanted { tail: Some(lines), ..Wanted::default() }
}

#[tokio::test]
async fn a_silent_container_has_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(dir.path(), 1 << 20);
    logs.open(&pod(), "a", 0).close().await;
    assert!(!logs.pod_dir(&pod()).exists());
    assert_eq!(text(file(&logs, 0), None, Wanted::default()).await, "");
}

#[tokio::test]
async fn lines_are_whole_however_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(dir.path(), 1 << 20);
    let log = logs.open(&pod(), "a", 0);
    for (stream, part) in [
        (Stream::Stdout, "one\ntw"),
        (Stream::Stderr, "err"),
        (Stream::Stdout, "o\n"),
        (Stream::Stderr, "or\n"),
        (Stream::Stdout, "\nlast without end"),
    ] {
        log.write(stream, Bytes::from_static(part.as_bytes())).await;
    }
    log.close().await;
    assert_eq!(text(file(&logs, 0), None, Wanted::default()).await, "one\ntwo\nerror\n\nlast without end");
    assert_eq!(text(file(&logs, 0), None, tail(1)).await, "last without end");
}

#[tokio::test]
async fn a_line_of_the_hosts_has_a_line_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(dir.path(), 1 << 20);
    let log = logs.open(&pod(), "a", 0);
    log.line(Stream::Stderr, "first").await;
    log.write(Stream::Stderr, Bytes::from_static(b"not ended")).await;
    log.line(Stream::Stderr, "Error: why\n").await;
    log.close().await;
    assert_eq!(text(file(&logs, 0), None, Wanted::default()).await, "first\nnot ended\nError: why\n");
}

#[tokio::test]
async fn a_line_longer_than_a_record_is_read_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(dir.path(), 1 << 20);
    let log = logs.open(&pod(), "a", 0);
    let wide = "x".repeat(100_000);
    log.write(Stream::Stdout, Bytes::from(format!("before\n{wide}\nafter\n"))).await;
    log.close().await;
    assert_eq!(text(file(&logs, 0), None, tail(2)).await, format!("{wide}\nafter\n"));
    assert_eq!(text(file(&logs, 0), None, Wanted::default()).await, format!("before\n{wide}\nafter\n"));
}

#[tokio::test]
async fn nothing_is_lost_over_rotations_and_old_files_go() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(dir.path(), 40_000);
    let log = logs.open(&pod(), "a", 0);
    let line = |n: u32| format!("line {n:06}\n");
    for n in 0..2000 {
        log.write(Stream::Stdout, Bytes::from(line(n))).await;
    }
    log.close().await;
    let all: String = (0..2000).map(line).collect();
    assert!(file(&logs, 0).with_extension("log.1").exists());
    assert_eq!(text(file(&logs, 0), None, Wanted::default()).await, all);
    let last: String = (1000..2000).map(line).collect();
    assert_eq!(text(file(&logs, 0), None, tail(1000)).await, last, "a tail over several files");
    for n in 2000..20_000 {
        log.write(Stream::Stdout, Bytes::from(line(n))).await;
    }
    log.close().await;
    let files = std::fs::read_dir(logs.pod_dir(&pod()).join("a")).unwrap().count();
    assert_eq!(files, 5);
}

#[tokio::test]
async fn a_follower_sees_every_line_over_rotations_and_ends_with_the_container() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(dir.path(), 200_000);
    let log = logs.open(&pod(), "a", 0);
    let wanted = Wanted { follow: true, ..Wanted::default() };
    let reader = tokio::spawn(text(file(&logs, 0), Some(log.clone()), wanted));
    let mut all = String::new();
    for n in 0..6000 {
        let line = format!("line {n}\n");
        all.push_str(&line);
        log.write(Stream::Stdout, Bytes::from(line)).await;
        if n % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    log.close().await;
    let seen = tokio::time::timeout(Duration::from_secs(30), reader).await.unwrap().unwrap();
    assert_eq!(seen.len(), all.len());
    assert_eq!(seen, all);
}

#[tokio::test]
async fn a_follower_that_goes_away_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(dir.path(), 1 << 20);
    let log = logs.open(&pod(), "a", 0);
    log.write(Stream::Stdout, Bytes::from_static(b"one\n")).await;
    let wanted = Wanted { follow: true, ..Wanted::default() };
    let mut blocks = Box::pin(stream(file(&logs, 0), Some(log.clone()), wanted));
    assert_eq!(blocks.next().await.unwrap().unwrap(), "one\n");
    drop(blocks);
    let alone = async {
        while Arc::strong_count(&log) > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), alone).await.unwrap();
}

#[tokio::test]
async fn time_stamps_and_limits_are_what_was_asked() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(dir.path(), 1 << 20);
    let path = file(&logs, 0);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let records: Vec<_> = (0..10).map(|n| format!("2026-01-01T00:00:0{n}.000000000Z stdout F line {n}\n")).collect();
    std::fs::write(&path, records.concat()).unwrap();
    let since: Timestamp = "2026-01-01T00:00:08Z".parse().unwrap();
    let wanted = Wanted { since: Some(since), ..Wanted::default() };
    assert_eq!(text(path.clone(), None, wanted.clone()).await, "line 8\nline 9\n");
    let stamped = Wanted { timestamps: true, ..wanted };
    assert_eq!(
        text(path.clone(), None, stamped).await,
        "2026-01-01T00:00:08.000000000Z line 8\n2026-01-01T00:00:09.000000000Z line 9\n"
    );
    for (tail, limit, expected) in
        [(None, 10, "line 0\nlin"), (Some(2), 3, "lin"), (Some(0), 100, ""), (Some(99), 7, "line 0\n")]
    {
        let wanted = Wanted { tail, limit_bytes: Some(limit), ..Wanted::default() };
        assert_eq!(text(path.clone(), None, wanted).await, expected);
    }
}

#[tokio::test]
async fn a_torn_line_of_a_killed_process_is_closed_and_the_log_continued() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(dir.path(), 1 << 20);
    let path = file(&logs, 0);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "2026-01-01T00:00:00.000000000Z stdout F one\n2026-01-01T00:00:01.000000000Z stdout F tw")
        .unwrap();
    let log = logs.open(&pod(), "a", 0);
    log.write(Stream::Stdout, Bytes::from_static(b"three\n")).await;
    log.close().await;
    assert_eq!(text(path, None, Wanted::default()).await, "one\ntw\nthree\n");
}

#[tokio::test]
async fn the_instance_before_keeps_its_log_and_older_ones_go() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(dir.path(), 1 << 20);
    for attempt in 0..3 {
        let log = logs.open(&pod(), "a", attempt);
        log.write(Stream::Stdout, Bytes::from(format!("attempt {attempt}\n"))).await;
        log.close().await;
    }
    assert!(!file(&logs, 0).exists());
    assert_eq!(text(file(&logs, 1), None, Wanted::default()).await, "attempt 1\n");
    assert_eq!(text(file(&logs, 2), None, Wanted::default()).await, "attempt 2\n");
}

#[tokio::test]
async fn only_folders_of_pods_that_are_gone_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(dir.path(), 1 << 20);
    for name in ["ns_p_u1", "ns_q_u2", "stranger"] {
        std::fs::create_dir_all(dir.path().join("pods").join(name).join("a")).unwrap();
    }
    logs.remove_others(&HashSet::from(["u1".to_owned()])).await;
    let mut left: Vec<_> =
        std::fs::read_dir(dir.path().join("pods")).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["ns_p_u1", "stranger"]);
    logs.remove_pod(&pod()).await;
    assert!(!logs.pod_dir(&pod()).exists());
}

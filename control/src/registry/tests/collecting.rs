//! What nothing refers to goes, and what somebody may be about to refer to stays.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use super::super::disk::{Collected, GRACE};
use super::*;

#[tokio::test]
async fn what_nothing_refers_to_goes_after_a_while_and_the_rest_stays() {
    let registry = Registry::new();
    registry.push_image("web/app", "v1", b"kept").await;
    let orphan = registry.push_blob("web/app", b"orphan").await;
    let collect = |now| registry.images.disk.collect(now, &HashSet::new(), &|work| work()).unwrap();
    assert_eq!(collect(SystemTime::now()), Collected { freed: 0, later: true });
    let later = SystemTime::now() + Duration::from_hours(2);
    assert_eq!(collect(later), Collected { freed: 6, later: false });
    let path = format!("/v2/web/app/blobs/{orphan}");
    assert_eq!(registry.call("GET", &path, &[], b"").await.status(), 404);
    let path = format!("/v2/web/app/blobs/{}", Digest::of(b"kept"));
    assert_eq!(registry.call("GET", &path, &[], b"").await.status(), 200);
}

impl Registry {
    /// Makes every file as old as what nobody is about to refer to.
    fn age(&self) {
        let old = SystemTime::now() - 2 * GRACE;
        let mut todo = vec![self.dir.path().to_owned()];
        while let Some(dir) = todo.pop() {
            for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    todo.push(entry.path());
                } else {
                    std::fs::File::open(entry.path()).unwrap().set_modified(old).unwrap();
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_deleted_is_free_without_a_restart() {
    let registry = Registry::new();
    let image = registry.push_image("web/app", "v1", b"layer").await;
    let blob = registry.images.disk.blob_path(&Digest::of(b"layer"));
    registry.age();
    let _keeping =
        tokio_util::task::AbortOnDropHandle::new(tokio::spawn(registry.images.clone().keep_after(Duration::ZERO)));
    assert!(blob.exists());
    let deleted = registry.call("DELETE", &format!("/v2/web/app/manifests/{image}"), &[], b"").await;
    assert_eq!(deleted.status(), 202);
    let gone = async {
        while blob.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("nothing refers to it");
}

#[tokio::test]
async fn a_push_that_takes_long_keeps_what_it_has_sent() {
    let registry = Registry::new();
    let digest = registry.push_blob("web/app", b"first").await;
    let begun = registry.call("POST", "/v2/web/app/blobs/uploads/", &[], b"").await;
    registry.age();
    let blob = registry.images.disk.blob_path(&digest);
    assert!(registry.images.collect().unwrap() && blob.exists(), "the second is still being sent");
    registry.call("DELETE", header(&begun, "location"), &[], b"").await;
    assert!(!registry.images.collect().unwrap() && !blob.exists());
}

#[tokio::test]
async fn a_push_that_takes_long_keeps_what_it_has_sent_also_between_two_blobs() {
    let registry = Registry::new();
    let first = registry.push_blob("web/app", b"first").await;
    let elsewhere = registry.push_blob("web/other", b"given up").await;
    registry.age();
    registry.push_blob("web/app", b"second").await;
    let [first, elsewhere] = [first, elsewhere].map(|digest| registry.images.disk.blob_path(&digest));
    assert!(registry.images.collect().unwrap());
    assert_eq!([first.exists(), elsewhere.exists()], [true, false]);
    registry.age();
    assert!(!registry.images.collect().unwrap() && !first.exists());
}

#[tokio::test]
async fn what_a_manifest_refers_to_that_comes_meanwhile_is_not_collected() {
    let registry = Registry::new();
    let image = registry.push_image("web/app", "v1", b"layer").await;
    let disk = &registry.images.disk;
    let repository = Repository::parse("web/app").unwrap();
    let manifest = disk.manifest(&repository, &image).unwrap().unwrap();
    assert!(disk.delete_manifest(&repository, &Reference::Digest(image.clone())).unwrap());
    registry.age();
    // Before the first thing is removed, the manifest is pushed again.
    let collected = disk.collect(SystemTime::now(), &HashSet::new(), &|work| {
        if !disk.has_manifest(&repository, &image) {
            disk.put_manifest(&repository, &manifest, None, None)?;
        }
        work()
    });
    assert_eq!(collected.unwrap(), Collected { freed: 0, later: true });
    let path = format!("/v2/web/app/blobs/{}", Digest::of(b"layer"));
    assert_eq!(registry.call("GET", &path, &[], b"").await.status(), 200);
}

#[tokio::test]
async fn nothing_is_collected_between_the_look_at_a_blob_and_the_answer_that_it_is_there() {
    let registry = Registry::new();
    let digest = registry.push_blob("web/app", b"layer").await;
    let link = registry.dir.path().join("repositories/web/app/_blobs").join(digest.hex());
    std::fs::remove_file(&link).unwrap();
    // Whoever makes it young waits until somebody has its other end.
    rustix::fs::mknodat(rustix::fs::CWD, &link, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let path = format!("/v2/web/app/blobs/{digest}");
    let looked = async {
        while !registry.images.homes.is_busy() {
            tokio::task::yield_now().await;
        }
    };
    let collector_waits = async {
        let waits = tokio::time::timeout(Duration::from_secs(20), looked).await.is_ok();
        let other_end = std::fs::File::options().write(true).open(&link).unwrap();
        (waits, other_end)
    };
    let (head, (waits, _other_end)) = tokio::join!(registry.call("HEAD", &path, &[], b""), collector_waits);
    assert_eq!((head.status().as_u16(), waits), (200, true));
}

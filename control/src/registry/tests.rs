//! The registry, asked as a client asks it.

use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::Value;

use super::*;
use crate::auth::AllowAll;

mod collecting;

/// All namespaces but one are there.
struct AllButOne(&'static str);

impl Namespaces for AllButOne {
    fn life(&self, namespace: &str) -> Life {
        if namespace == self.0 { Life::Absent } else { Life::Alive("1".into()) }
    }
}

fn open(dir: &Path, absent: &'static str) -> Images {
    Images::open(dir, Arc::new(AllowAll), Arc::new(AllButOne(absent))).unwrap()
}

struct Registry {
    images: Images,
    dir: tempfile::TempDir,
}

impl Registry {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { images: open(dir.path(), "absent"), dir }
    }

    async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], data: &[u8]) -> Response<Bytes> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body::full(data.to_vec())).unwrap();
        let (parts, body) = self.images.handle(request, &UserInfo::admin(), &mut Turn::default()).await.into_parts();
        Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
    }

    fn files_of_uploads(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("uploads")).unwrap().count()
    }

    async fn push_blob(&self, repository: &str, data: &[u8]) -> Digest {
        let digest = Digest::of(data);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        assert_eq!(self.call("POST", &path, &[], data).await.status(), 201);
        digest
    }

    async fn push_image(&self, repository: &str, tag: &str, data: &[u8]) -> Digest {
        let config = self.push_blob(repository, b"{}").await;
        let layer = self.push_blob(repository, data).await;
        let manifest = json!({"config": {"digest": config.to_string()}, "layers": [{"digest": layer.to_string()}]});
        let manifest = manifest.to_string();
        let put = self.call("PUT", &format!("/v2/{repository}/manifests/{tag}"), &[], manifest.as_bytes()).await;
        assert_eq!(put.status(), 201);
        Digest::of(manifest.as_bytes())
    }
}

fn header<'a>(response: &'a Response<Bytes>, name: &str) -> &'a str {
    response.headers().get(name).unwrap().to_str().unwrap()
}

fn code(response: &Response<Bytes>) -> String {
    let value: Value = serde_json::from_slice(response.body()).unwrap();
    value["errors"][0]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_image_is_pulled_by_tag_and_by_digest_as_it_was_pushed() {
    let registry = Registry::new();
    let digest = registry.push_image("web/app", "v1", b"layer").await;
    let by_tag = registry.call("GET", "/v2/web/app/manifests/v1", &[], b"").await;
    assert_eq!(header(&by_tag, "docker-content-digest"), digest.to_string());
    let by_digest = registry.call("GET", &format!("/v2/web/app/manifests/{digest}"), &[], b"").await;
    assert_eq!(by_tag.body(), by_digest.body());
    assert_eq!(header(&by_tag, "content-type"), "application/vnd.oci.image.manifest.v1+json");
    let blob = registry.call("GET", &format!("/v2/web/app/blobs/{}", Digest::of(b"layer")), &[], b"").await;
    assert_eq!(&blob.body()[..], b"layer");
    let head = registry.call("HEAD", &format!("/v2/web/app/blobs/{}", Digest::of(b"layer")), &[], b"").await;
    assert_eq!((header(&head, "content-length"), head.body().len()), ("5", 0));
}

#[tokio::test]
async fn who_may_not_push_is_told_which_right_is_missing() {
    #[derive(Debug)]
    struct Nobody;
    #[async_trait::async_trait]
    impl Authorizer for Nobody {
        async fn authorize(&self, _: &UserInfo, _: &Attributes) -> Decision {
            Decision::Deny("no role says so".to_owned())
        }
    }
    let mut registry = Registry::new();
    registry.images.authorizer = Arc::new(Nobody);
    let refused = registry.call("POST", "/v2/web/app/blobs/uploads/", &[], b"").await;
    let error: Value = serde_json::from_slice(refused.body()).unwrap();
    let missing = json!({"verb": "create", "group": "images.wherry.dev", "resource": "images", "namespace": "web",
        "name": "app"});
    let message = "requested access to \"web/app\" is denied: User \"wherry-admin\" cannot create resource \"images\" in API \
        group \"images.wherry.dev\" in the namespace \"web\": no role says so";
    let wanted = json!({"errors": [{"code": "DENIED", "message": message, "detail": missing}]});
    assert_eq!((refused.status().as_u16(), error), (403, wanted));
}

#[tokio::test]
async fn nothing_is_pushed_into_a_namespace_that_is_not_there() {
    let registry = Registry::new();
    for (method, path) in [
        ("POST", "/v2/absent/app/blobs/uploads/"),
        ("PUT", "/v2/absent/app/manifests/v1"),
        ("PATCH", "/v2/absent/app/blobs/uploads/00000000000000000000000000000000"),
    ] {
        let refused = registry.call(method, path, &[], b"").await;
        let text = String::from_utf8_lossy(refused.body()).into_owned();
        assert_eq!((refused.status().as_u16(), code(&refused).as_str()), (404, "NAME_UNKNOWN"), "{path}");
        assert!(text.contains("namespaces \\\"absent\\\" not found"), "{text}");
    }
    let asked = registry.call("GET", "/v2/absent/app/manifests/v1", &[], b"").await;
    assert_eq!(code(&asked), "MANIFEST_UNKNOWN", "what was pushed before can still be asked for");
}

#[tokio::test]
async fn an_upload_in_chunks_continues_where_it_stopped() {
    let registry = Registry::new();
    let begun = registry.call("POST", "/v2/web/app/blobs/uploads/", &[], b"").await;
    assert_eq!(begun.status(), 202);
    let location = header(&begun, "location").to_owned();
    let first = registry.call("PATCH", &location, &[("content-range", "0-2")], b"abc").await;
    assert_eq!((first.status().as_u16(), header(&first, "range")), (202, "0-2"));
    let gap = registry.call("PATCH", &location, &[("content-range", "9-11")], b"xyz").await;
    assert_eq!((gap.status().as_u16(), header(&gap, "range")), (416, "0-2"));
    let asked = registry.call("GET", &location, &[], b"").await;
    assert_eq!((asked.status().as_u16(), header(&asked, "range")), (204, "0-2"));
    registry.call("PATCH", &location, &[("content-range", "3-5")], b"def").await;
    let digest = Digest::of(b"abcdefg");
    let end = format!("{location}?digest={digest}");
    let gap = registry.call("PUT", &end, &[("content-range", "7-7")], b"g").await;
    assert_eq!((gap.status().as_u16(), header(&gap, "range")), (416, "0-5"), "and the upload is still there");
    let done = registry.call("PUT", &end, &[("content-range", "6-6")], b"g").await;
    assert_eq!(done.status(), 201);
    let blob = registry.call("GET", header(&done, "location"), &[], b"").await;
    assert_eq!(&blob.body()[..], b"abcdefg");
    assert_eq!(code(&registry.call("GET", &location, &[], b"").await), "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn uploads_that_one_user_leaves_open_are_nobody_elses_limit() {
    let registry = Registry::new();
    let begin = async |user: &UserInfo| {
        let request = Request::post("/v2/web/app/blobs/uploads/").body(body::empty()).unwrap();
        registry.images.handle(request, user, &mut Turn::default()).await
    };
    let (greedy, other) = (UserInfo::authenticated("greedy", &[]), UserInfo::authenticated("other", &[]));
    let mut last = None;
    while last.is_none() {
        let answer = begin(&greedy).await;
        match answer.status().as_u16() {
            202 => {}
            429 => last = Some(answer),
            code => panic!("{code}"),
        }
    }
    let text = last.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&text).contains("64 uploads of this user are open"), "{text:?}");
    assert_eq!(begin(&other).await.status(), 202);
    // What was refused leaves no file.
    assert_eq!(registry.files_of_uploads(), 65);
    // A namespace's service accounts are one user, however many there are.
    let account = |number| UserInfo::authenticated(format!("system:serviceaccount:web:a-{number}"), &[]);
    for number in 0..64 {
        assert_eq!(begin(&account(number)).await.status(), 202);
    }
    assert_eq!(begin(&account(64)).await.status(), 429);
}

#[tokio::test]
async fn a_blob_in_one_request_leaves_no_upload_behind_however_that_ends() {
    let registry = Registry::new();
    let path = format!("/v2/web/app/blobs/uploads/?digest={}", Digest::of(b"whole"));
    let push = async |body: Body| {
        let request = Request::post(&path).body(body).unwrap();
        registry.images.handle(request, &UserInfo::admin(), &mut Turn::default()).await.status()
    };
    for _ in 0..100 {
        assert_eq!(registry.call("POST", "/v2/web/app/blobs/uploads/?digest=none", &[], b"whole").await.status(), 400);
        let broken = futures::stream::iter([Ok(Bytes::from_static(b"wh")), Err("gone".into())]);
        assert_eq!(push(body::stream(broken)).await, 400);
        let mut left = Box::pin(push(body::stream(futures::stream::pending())));
        while registry.images.uploads.repositories().is_empty() {
            assert!(futures::poll!(left.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(push(body::full("whole")).await, 201);
    let gone = async {
        while registry.files_of_uploads() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.expect("nobody would remove them");
}

#[tokio::test]
async fn a_content_that_has_another_digest_is_refused_and_dropped() {
    let registry = Registry::new();
    let path = format!("/v2/web/app/blobs/uploads/?digest={}", Digest::of(b"wanted"));
    let answer = registry.call("POST", &path, &[], b"sent").await;
    assert_eq!((answer.status().as_u16(), code(&answer).as_str()), (400, "DIGEST_INVALID"));
    assert_eq!(registry.files_of_uploads(), 0);
    let path = format!("/v2/web/app/blobs/{}", Digest::of(b"sent"));
    assert_eq!(code(&registry.call("GET", &path, &[], b"").await), "BLOB_UNKNOWN");
}

#[tokio::test]
async fn a_manifest_whose_blobs_are_missing_is_refused() {
    let registry = Registry::new();
    let manifest = json!({"config": {"digest": Digest::of(b"never sent").to_string()}, "layers": []}).to_string();
    let answer = registry.call("PUT", "/v2/web/app/manifests/v1", &[], manifest.as_bytes()).await;
    assert_eq!((answer.status().as_u16(), code(&answer).as_str()), (404, "MANIFEST_BLOB_UNKNOWN"));
}

#[tokio::test]
async fn knowing_a_digest_does_not_open_another_namespaces_blob() {
    let registry = Registry::new();
    let digest = registry.push_blob("one/app", b"secret").await;
    let path = format!("/v2/two/app/blobs/{digest}");
    assert_eq!(registry.call("GET", &path, &[], b"").await.status(), 404);
    let mount = format!("/v2/two/app/blobs/uploads/?mount={digest}&from=one/app");
    assert_eq!(registry.call("POST", &mount, &[], b"").await.status(), 201);
    assert_eq!(registry.call("GET", &path, &[], b"").await.status(), 200);
}

#[tokio::test]
async fn a_range_of_a_blob_is_sent_alone() {
    let registry = Registry::new();
    let digest = registry.push_blob("web/app", b"0123456789").await;
    let path = format!("/v2/web/app/blobs/{digest}");
    for (range, status, text, content_range) in [
        ("bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("bytes=7-", 206, "789", "bytes 7-9/10"),
        ("bytes=-3", 206, "789", "bytes 7-9/10"),
        ("bytes=8-99", 206, "89", "bytes 8-9/10"),
        ("lines=1-2", 200, "0123456789", ""),
    ] {
        let answer = registry.call("GET", &path, &[("range", range)], b"").await;
        assert_eq!((answer.status().as_u16(), &answer.body()[..]), (status, text.as_bytes()), "{range}");
        assert_eq!(answer.headers().get("content-range").map_or("", |v| v.to_str().unwrap()), content_range);
    }
    assert_eq!(registry.call("GET", &path, &[("range", "bytes=10-")], b"").await.status(), 416);
}

#[tokio::test]
async fn tags_come_in_pages_and_go_with_their_manifest() {
    let registry = Registry::new();
    let mut digest = None;
    for tag in ["b", "a", "c"] {
        digest = Some(registry.push_image("web/app", tag, b"same").await);
    }
    let first = registry.call("GET", "/v2/web/app/tags/list?n=2", &[], b"").await;
    let value: Value = serde_json::from_slice(first.body()).unwrap();
    assert_eq!(value["tags"], json!(["a", "b"]));
    assert_eq!(header(&first, "link"), "</v2/web/app/tags/list?n=2&last=b>; rel=\"next\"");
    assert_eq!(registry.call("DELETE", "/v2/web/app/manifests/a", &[], b"").await.status(), 202);
    let path = format!("/v2/web/app/manifests/{}", digest.unwrap());
    assert_eq!(registry.call("GET", &path, &[], b"").await.status(), 200);
    assert_eq!(registry.call("DELETE", &path, &[], b"").await.status(), 202);
    let rest = registry.call("GET", "/v2/web/app/tags/list", &[], b"").await;
    assert_eq!(serde_json::from_slice::<Value>(rest.body()).unwrap()["tags"], json!([]));
    assert_eq!(code(&registry.call("GET", "/v2/web/none/tags/list", &[], b"").await), "NAME_UNKNOWN");
}

#[tokio::test]
async fn an_attachment_is_listed_under_its_subject() {
    let registry = Registry::new();
    let subject = registry.push_image("web/app", "v1", b"layer").await;
    let config = registry.push_blob("web/app", b"{}").await;
    let signature = json!({
        "config": {"digest": config.to_string()}, "layers": [], "artifactType": "application/x.signature",
        "subject": {"digest": subject.to_string()},
    })
    .to_string();
    let path = format!("/v2/web/app/manifests/{}", Digest::of(signature.as_bytes()));
    let put = registry.call("PUT", &path, &[], signature.as_bytes()).await;
    assert_eq!(header(&put, "oci-subject"), subject.to_string());
    let list = registry.call("GET", &format!("/v2/web/app/referrers/{subject}"), &[], b"").await;
    let value: Value = serde_json::from_slice(list.body()).unwrap();
    assert_eq!(value["manifests"][0]["artifactType"], "application/x.signature");
}

impl Registry {
    /// Attaches a manifest to another. The answer is its digest.
    async fn attach(&self, subject: &Digest, kind: &str, note: &str) -> Digest {
        let config = self.push_blob("web/app", b"{}").await;
        let manifest = json!({"config": {"digest": config.to_string()}, "layers": [], "artifactType": kind,
            "subject": {"digest": subject.to_string()}, "annotations": {"note": note}})
        .to_string();
        let digest = Digest::of(manifest.as_bytes());
        let path = format!("/v2/web/app/manifests/{digest}");
        assert_eq!(self.call("PUT", &path, &[], manifest.as_bytes()).await.status(), 201);
        digest
    }

    /// The digests on a page of referrers, and where the next one is.
    async fn referrers(&self, path: &str) -> (Vec<String>, Option<String>) {
        let answer = self.call("GET", path, &[], b"").await;
        assert_eq!(answer.status(), 200);
        let value: Value = serde_json::from_slice(answer.body()).unwrap();
        let found = value["manifests"].as_array().unwrap().iter().map(|m| m["digest"].as_str().unwrap().to_owned());
        let link = answer.headers().get("link").map(|link| link.to_str().unwrap());
        let next = link.map(|link| link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned());
        (found.collect(), next)
    }

    /// All of them, and how many pages they took.
    async fn all_referrers(&self, path: &str) -> (Vec<String>, usize) {
        let (mut all, mut pages, mut next) = (Vec::new(), 0, Some(path.to_owned()));
        while let Some(path) = next {
            let (found, following) = self.referrers(&path).await;
            all.extend(found);
            (pages, next) = (pages + 1, following);
        }
        (all, pages)
    }
}

#[tokio::test]
async fn referrers_come_in_pages_that_are_bounded_by_what_their_annotations_hold() {
    let registry = Registry::new();
    let subject = registry.push_image("web/app", "v1", b"layer").await;
    let path = format!("/v2/web/app/referrers/{subject}");
    assert_eq!(registry.referrers(&path).await, (Vec::new(), None));
    let mut attached = Vec::new();
    for (kind, note) in [("a", "1"), ("a", "2"), ("b", "3"), ("b", "4"), ("b", "5")] {
        attached.push(registry.attach(&subject, kind, note).await.to_string());
    }
    let of_b: std::collections::BTreeSet<String> = attached[2..].iter().cloned().collect();
    attached.sort();
    assert_eq!(registry.all_referrers(&path).await, (attached.clone(), 1));
    assert_eq!(registry.all_referrers(&format!("{path}?n=2")).await, (attached.clone(), 3));
    let (found, _) = registry.all_referrers(&format!("{path}?n=1&artifactType=b")).await;
    assert_eq!(found, of_b.into_iter().collect::<Vec<_>>());
    assert_eq!(registry.call("GET", &format!("{path}?last=x"), &[], b"").await.status(), 400);
    let gone = format!("/v2/web/app/manifests/{}", attached.remove(0));
    assert_eq!(registry.call("DELETE", &gone, &[], b"").await.status(), 202);
    assert_eq!(registry.all_referrers(&path).await.0, attached);
    // Three annotations of a megabyte are not one answer.
    let note = "x".repeat(1 << 20);
    for kind in ["c", "d", "e"] {
        attached.push(registry.attach(&subject, kind, &note).await.to_string());
    }
    attached.sort();
    let (found, pages) = registry.all_referrers(&path).await;
    assert_eq!(found, attached);
    assert!(pages >= 3, "{pages}");
}

#[tokio::test]
async fn attachments_of_before_there_was_a_list_of_them_are_listed_after_a_restart() {
    let registry = Registry::new();
    let subject = registry.push_image("web/app", "v1", b"layer").await;
    let attached = registry.attach(&subject, "a", "1").await.to_string();
    std::fs::remove_dir_all(registry.dir.path().join("repositories/web/app/_referrers")).unwrap();
    let again = Registry { images: open(registry.dir.path(), "absent"), dir: registry.dir };
    assert_eq!(again.all_referrers(&format!("/v2/web/app/referrers/{subject}")).await.0, [attached]);
}

#[tokio::test]
async fn a_namespace_that_goes_takes_its_images_and_what_is_on_its_way() {
    let registry = Registry::new();
    registry.push_image("web/app", "v1", b"mine").await;
    registry.push_image("other/app", "v1", b"theirs").await;
    let begun = registry.call("POST", "/v2/web/app/blobs/uploads/", &[], b"").await;
    let location = header(&begun, "location").to_owned();
    let closed = registry.images.close("web").await.unwrap();
    let config = json!({"config": {"digest": Digest::of(b"{}").to_string()}}).to_string();
    for (method, path) in [
        ("PUT", format!("{location}?digest={}", Digest::of(b""))),
        ("POST", format!("/v2/web/app/blobs/uploads/?digest={}", Digest::of(b""))),
        ("POST", format!("/v2/web/app/blobs/uploads/?mount={}&from=other/app", Digest::of(b"theirs"))),
    ] {
        let refused = registry.call(method, &path, &[], b"").await.status().as_u16();
        assert!(matches!(refused, 403 | 404), "{method} {path}: {refused}");
    }
    assert!(registry.call("PUT", "/v2/web/app/manifests/v2", &[], config.as_bytes()).await.status().is_client_error());
    drop(closed);
    for (repository, status) in [("web", 404), ("other", 200)] {
        let found = registry.call("GET", &format!("/v2/{repository}/app/manifests/v1"), &[], b"").await;
        assert_eq!(found.status(), status, "{repository}");
    }
    assert_eq!(std::fs::read_dir(registry.dir.path().join("uploads")).unwrap().count(), 0, "nothing is left behind");
    registry.push_image("web/app", "v1", b"new").await;
    let catalog = registry.call("GET", "/v2/_catalog", &[], b"").await;
    let value: Value = serde_json::from_slice(catalog.body()).unwrap();
    assert_eq!(value["repositories"], json!(["other/app", "web/app"]));
}

#[tokio::test]
async fn images_of_a_namespace_that_is_gone_do_not_survive_a_restart() {
    let registry = Registry::new();
    registry.push_image("web/app", "v1", b"layer").await;
    registry.push_image("kept/app", "v1", b"layer").await;
    let again = Registry { images: open(registry.dir.path(), "web"), dir: registry.dir };
    assert_eq!(again.call("GET", "/v2/web/app/manifests/v1", &[], b"").await.status(), 404);
    assert_eq!(again.call("GET", "/v2/kept/app/manifests/v1", &[], b"").await.status(), 200);
}

#[tokio::test]
async fn nothing_is_pushed_into_the_last_room_of_the_disk() {
    let mut registry = Registry::new();
    let image = registry.push_image("web/app", "v1", b"layer").await;
    registry.images.disk.reserve = u64::MAX;
    for (method, path) in
        [("POST", "/v2/web/app/blobs/uploads/".to_owned()), ("PUT", "/v2/web/app/manifests/v2".to_owned())]
    {
        let refused = registry.call(method, &path, &[], b"{}").await;
        let text = String::from_utf8_lossy(refused.body()).into_owned();
        assert!(refused.status() == 507 && text.contains("almost full"), "{path}: {text}");
    }
    let path = format!("/v2/web/app/manifests/{image}");
    assert_eq!(registry.call("GET", &path, &[], b"").await.status(), 200);
    assert_eq!(registry.call("DELETE", &path, &[], b"").await.status(), 202, "that makes room");
}

#[tokio::test]
async fn images_survive_a_restart_and_are_in_the_catalog() {
    let registry = Registry::new();
    registry.push_image("web/app", "v1", b"layer").await;
    registry.push_image("web/deep/er", "v1", b"layer").await;
    let again = Registry { images: open(registry.dir.path(), "absent"), dir: registry.dir };
    assert_eq!(again.call("GET", "/v2/web/app/manifests/v1", &[], b"").await.status(), 200);
    let catalog = again.call("GET", "/v2/_catalog", &[], b"").await;
    let value: Value = serde_json::from_slice(catalog.body()).unwrap();
    assert_eq!(value["repositories"], json!(["web/app", "web/deep/er"]));
}

/// Lets its user do as he likes in one namespace.
#[derive(Debug)]
struct OnlyIn(&'static str);

#[async_trait::async_trait]
impl Authorizer for OnlyIn {
    async fn authorize(&self, _: &UserInfo, attributes: &Attributes) -> Decision {
        if attributes.namespace == self.0 { Decision::Allow } else { Decision::Deny(String::new()) }
    }
}

#[tokio::test]
async fn the_catalog_of_a_namespace_is_for_who_may_list_there() {
    let mut registry = Registry::new();
    for repository in ["web/app", "web/worker", "other/app"] {
        registry.push_image(repository, "v1", b"layer").await;
    }
    registry.images =
        Images::open(registry.dir.path(), Arc::new(OnlyIn("web")), Arc::new(AllButOne("absent"))).unwrap();
    let first = registry.call("GET", "/v2/_catalog?namespace=web&n=1", &[], b"").await;
    assert_eq!(header(&first, "link"), "</v2/_catalog?namespace=web&n=1&last=web%2Fapp>; rel=\"next\"");
    let all = registry.call("GET", "/v2/_catalog?namespace=web", &[], b"").await;
    let value: Value = serde_json::from_slice(all.body()).unwrap();
    assert_eq!(value["repositories"], json!(["web/app", "web/worker"]));
    for refused in ["/v2/_catalog", "/v2/_catalog?namespace=", "/v2/_catalog?namespace=other"] {
        assert_eq!(code(&registry.call("GET", refused, &[], b"").await), "DENIED", "{refused}");
    }
}

#[tokio::test]
async fn a_stranger_is_asked_who_he_is() {
    let registry = Registry::new();
    let request = Request::builder().uri("/v2/").body(body::empty()).unwrap();
    let answer = registry.images.handle(request, &UserInfo::anonymous(), &mut Turn::default()).await;
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["www-authenticate"], "Basic realm=\"wherry\"");
}

//! The image registry as a part of the server: whose turn it is, and what becomes of images when their namespace goes.

use std::cell::RefCell;

use super::*;
use crate::registry::{Digest, Images};

const NAMESPACES: &str = "/api/v1/namespaces";

async fn with_images(dir: &std::path::Path) -> Api {
    let known = RefCell::new(None);
    let authorizer = |cache: &Cache, _: &Registry| -> Arc<dyn Authorizer> {
        known.replace(Some(cache.clone()));
        Arc::new(AllowAll)
    };
    let open = |config: &mut Config| {
        let cache = known.take().unwrap();
        config.images = Some(Images::open(dir, Arc::new(AllowAll), Arc::new(cache)).unwrap());
    };
    Api::configured(authorizer, open).await
}

impl Api {
    async fn push(&self, namespace: &str) -> u16 {
        let digest = Digest::of(b"{}");
        let blob = format!("/v2/{namespace}/app/blobs/uploads/?digest={digest}");
        let pushed = self.send(Request::post(blob), "{}").await.code;
        if pushed != 201 {
            return pushed;
        }
        let manifest = json!({"config": {"digest": digest.to_string()}, "layers": []}).to_string();
        self.send(Request::put(format!("/v2/{namespace}/app/manifests/v1")), manifest).await.code
    }

    async fn pull(&self, namespace: &str) -> u16 {
        self.send(Request::get(format!("/v2/{namespace}/app/manifests/v1")), "").await.code
    }
}

#[tokio::test]
async fn a_namespaces_images_go_before_it_does_and_a_new_one_of_its_name_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let api = with_images(dir.path()).await;
    let web = json!({"metadata": {"name": "web"}});
    api.post(NAMESPACES, &web).await.expect(201);
    assert_eq!((api.push("web").await, api.push("default").await), (201, 201));
    let path = format!("{NAMESPACES}/web");
    api.delete(&format!("{path}?dryRun=All")).await.expect(200);
    let mut ending = api.delete(&path).await.expect(200);
    assert_eq!((api.pull("web").await, api.push("web").await), (200, 403), "it is ending");
    ending["spec"]["finalizers"] = json!([]);
    api.put(&format!("{path}/finalize"), &ending).await.expect(200);
    api.get(&path).await.expect(404);
    assert_eq!((api.pull("web").await, api.push("web").await), (404, 404));
    api.post(NAMESPACES, &web).await.expect(201);
    assert_eq!(api.pull("web").await, 404, "the old one's images are not the new one's");
    assert_eq!((api.push("web").await, api.pull("web").await, api.pull("default").await), (201, 200, 200));
}

#[tokio::test]
async fn all_but_transfers_of_blobs_belong_to_a_priority_level() {
    let dir = tempfile::tempdir().unwrap();
    let api = with_images(dir.path()).await;
    api.server.bootstrap_flow().await.unwrap();
    let digest = Digest::of(b"{}");
    api.push("default").await;
    for (path, turn) in [
        (format!("/v2/default/app/referrers/{digest}"), true),
        ("/v2/default/app/manifests/v1".to_owned(), true),
        ("/v2/_catalog".to_owned(), true),
        (format!("/v2/default/app/blobs/{digest}"), false),
    ] {
        let answer = api.send_as(UserInfo::authenticated("jane", &[]), Request::get(&path), "").await;
        assert_eq!(answer.code, 200, "{path}");
        assert_eq!(answer.headers.contains_key("x-kubernetes-pf-flowschema-uid"), turn, "{path}");
    }
}

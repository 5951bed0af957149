//! A real store and cache for the tests of this folder.

use std::sync::Arc;

use serde_json::{Value, json};
use wherry_api::object;
use wherry_api::registry::Registry;

use crate::cache::Cache;
use crate::store::redb::RedbStore;
use crate::store::{Encoded, Key, Op, Store, Txn};

pub(crate) struct Fixture {
    pub store: Arc<dyn Store>,
    pub cache: Cache,
    pub registry: Registry,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let store: Arc<dyn Store> = Arc::new(RedbStore::in_memory().unwrap());
        let registry = Registry::builtin();
        let cache = Cache::start(Arc::clone(&store), &registry).await.unwrap();
        Self { store, cache, registry }
    }

    async fn commit(&self, op: Op) {
        let committed = self.store.commit(Txn { ops: vec![op], ..Txn::default() }).await.unwrap();
        self.cache.reached(committed.revision).await;
    }

    fn key(&self, kind: &str, namespace: &str, name: &str) -> Key {
        let resource = self.registry.by_kind("v1", kind).unwrap();
        Key::new(&resource.group_resource(), namespace, name)
    }

    fn key_of(&self, object: &Value) -> Key {
        let resource = self.registry.by_kind(object::api_version(object), object::kind(object)).unwrap();
        let namespace = if resource.namespaced() { object::namespace(object) } else { "" };
        Key::new(&resource.group_resource(), namespace, object::name(object))
    }

    /// Stores a finished object of any kind.
    pub(crate) async fn put_object(&self, object: &Value) {
        let (bytes, splice) = object::encode(object);
        self.commit(Op::Put { key: self.key_of(object), value: Encoded { bytes, splice } }).await;
    }

    pub(crate) async fn remove_object(&self, object: &Value) {
        self.commit(Op::Delete { key: self.key_of(object) }).await;
    }

    /// Stores an object of the core group; its uid is `NAME-uid`.
    pub(crate) async fn put(&self, kind: &str, namespace: &str, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "v1", "kind": kind, "spec": spec,
            "metadata": {"namespace": namespace, "name": name, "uid": format!("{name}-uid")},
        });
        let (bytes, splice) = object::encode(&object);
        self.commit(Op::Put { key: self.key(kind, namespace, name), value: Encoded { bytes, splice } }).await;
    }

    pub(crate) async fn delete(&self, kind: &str, namespace: &str, name: &str) {
        self.commit(Op::Delete { key: self.key(kind, namespace, name) }).await;
    }
}

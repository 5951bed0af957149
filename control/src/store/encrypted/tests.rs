//! The contract suite over an encrypted engine, and what the engine is shown.

use super::*;
use crate::store::contract::{self, Factory};
use crate::store::redb::{Options, RedbStore};
use crate::store::{ChangeKind, Precondition};

fn encryption(providers: &str) -> Encryption {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [things]\n  \
         providers:\n{providers}"
    );
    Encryption::parse(&text, Path::new("file")).unwrap()
}

const ONE: &str = "  - aesgcm: {keys: [{name: one, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]}\n";
const OTHER_ONE: &str = "  - aesgcm: {keys: [{name: one, secret: eHEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]}\n";
const TWO: &str = "  - aesgcm: {keys: [{name: two, secret: c2l4dGVlbiBieXRlcy4uLg==}]}\n";
const PLAIN: &str = "  - identity: {}\n";

fn wrapped(engine: RedbStore) -> Arc<dyn Store> {
    Arc::new(EncryptedStore { engine: Arc::new(engine), encryption: Arc::new(encryption(ONE)) })
}

struct Sealed(tempfile::TempDir);

impl Factory for Sealed {
    fn fresh(&self) -> Arc<dyn Store> {
        wrapped(RedbStore::open(self.0.path()).unwrap())
    }

    fn short_history(&self) -> Arc<dyn Store> {
        let short = Options { memory_history_bytes: 8 << 10, disk_history_bytes: 32 << 10, ..Options::default() };
        wrapped(RedbStore::open_with(self.0.path(), short).unwrap())
    }

    fn reopen(&self) -> Option<Arc<dyn Store>> {
        Some(self.fresh())
    }

    fn after_crash(&self) -> Option<Arc<dyn Store>> {
        None
    }
}

contract::suite!(Sealed(tempfile::tempdir().unwrap()));

async fn reopened(engine: &Arc<dyn Store>, providers: &str) -> Result<EncryptedStore, StoreError> {
    EncryptedStore::open(Arc::clone(engine), encryption(providers)).await
}

#[tokio::test]
async fn the_engine_never_sees_a_plain_value_and_the_reader_never_a_sealed_one() {
    let engine: Arc<dyn Store> = Arc::new(RedbStore::in_memory().unwrap());
    let store = reopened(&engine, ONE).await.unwrap();
    let committed = store.commit(contract::put("a", "hush-hush")).await.unwrap();
    let plain = contract::object("hush-hush").with_revision(committed.revision);
    assert_eq!(committed.values, std::slice::from_ref(&plain));
    let key = contract::key("a");
    assert_eq!(store.get(&key).await.unwrap().unwrap().value, plain);
    let raw = engine.get(&key).await.unwrap().unwrap().value;
    assert!(raw.starts_with(b"k8s:enc:aesgcm:v1:one:"));
    assert!(!raw.windows(4).any(|window| window == b"hush"));

    let mut txn = contract::put("a", "second");
    txn.preconditions.push((key.clone(), Precondition::Absent));
    let Err(StoreError::Precondition { actual: Some(record), .. }) = store.commit(txn).await else { panic!("absent?") };
    assert_eq!(record.value, plain);
    store.commit(contract::delete("a")).await.unwrap();
    let history = store.history("", 0, store.revision()).await.unwrap();
    assert_eq!(history.iter().map(|c| c.kind).collect::<Vec<_>>(), [ChangeKind::Created, ChangeKind::Deleted]);
    assert!(history.iter().all(|change| change.value == plain));
}

#[tokio::test]
async fn the_first_key_writes_all_read_and_a_write_turns_the_old_form_into_the_new() {
    let engine: Arc<dyn Store> = Arc::new(RedbStore::in_memory().unwrap());
    let key = contract::key("a");
    reopened(&engine, PLAIN).await.unwrap().commit(contract::put("a", "x")).await.unwrap();
    for (providers, prefix) in [
        (format!("{ONE}{PLAIN}"), "k8s:enc:aesgcm:v1:one:"),
        (format!("{TWO}{ONE}"), "k8s:enc:aesgcm:v1:two:"),
        (format!("{PLAIN}{TWO}"), "{"),
    ] {
        let store = reopened(&engine, &providers).await.unwrap();
        assert!(store.stale(&key).await, "{providers}");
        store.commit(contract::put("a", "x")).await.unwrap();
        assert!(!store.stale(&key).await, "{providers}");
        assert!(engine.get(&key).await.unwrap().unwrap().value.starts_with(prefix.as_bytes()), "{providers}");
    }
}

#[tokio::test]
async fn what_cannot_be_opened_is_an_error_at_start_that_names_object_and_key() {
    let engine: Arc<dyn Store> = Arc::new(RedbStore::in_memory().unwrap());
    reopened(&engine, ONE).await.unwrap().commit(contract::put("a", "x")).await.unwrap();
    for (providers, wanted) in
        [(TWO, r#"key "one", which"#), (PLAIN, r#"key "one", which"#), (OTHER_ONE, "put the old key back")]
    {
        let error = reopened(&engine, providers).await.unwrap_err();
        let text = format!("{error}: {}", std::error::Error::source(&error).unwrap());
        assert!(text.contains("things default/a") && text.contains(wanted), "{text}");
    }
    assert!(EncryptedStore::open(Arc::clone(&engine), Encryption::default()).await.is_err());
    reopened(&engine, &format!("{TWO}{ONE}")).await.unwrap();
}

#[tokio::test]
async fn one_objects_value_cannot_stand_in_for_anothers() {
    let engine: Arc<dyn Store> = Arc::new(RedbStore::in_memory().unwrap());
    let store = reopened(&engine, ONE).await.unwrap();
    store.commit(contract::put("a", "x")).await.unwrap();
    let stolen = engine.get(&contract::key("a")).await.unwrap().unwrap().value.to_vec();
    let op = Op::Put { key: contract::key("b"), value: Encoded { splice: stolen.len(), bytes: stolen } };
    engine.commit(Txn { ops: vec![op], ..Txn::default() }).await.unwrap();
    assert!(matches!(store.get(&contract::key("b")).await, Err(StoreError::Sealed { .. })));
}

#[test]
fn resources_are_named_as_kubernetes_names_them() {
    let text = |resources: &str| {
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: \
             [{resources}]\n  providers:\n{ONE}"
        )
    };
    for (resources, key, sealed) in [
        ("secrets", "core/secrets/a/b", true),
        ("secrets", "x.io/secrets/a/b", false),
        ("deployments.apps", "apps/deployments/a/b", true),
        ("'*.apps'", "apps/deployments/a/b", true),
        ("'*.apps'", "core/pods/a/b", false),
        ("'*.'", "core/pods/a/b", true),
        ("'*.*'", "x.io/things/a/b", true),
    ] {
        let encryption = Encryption::parse(&text(resources), Path::new("f")).unwrap();
        let sealed_now = encryption.seal(&Key::from_stored(key), &contract::object("x")).unwrap().is_some();
        assert_eq!(sealed_now, sealed, "{resources} {key}");
    }
}

#[test]
fn a_bad_configuration_says_where_it_is_bad() {
    let text = |provider: &str| {
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  \
             providers:\n  - {provider}\n"
        )
    };
    for (provider, wanted) in [
        ("kms: {name: x}", "kms is not supported"),
        ("aescbc: {keys: []}", "use aesgcm"),
        ("aesgcm: {keys: []}", "needs a key"),
        ("aesgcm: {keys: [{name: a, secret: '!'}]}", "not base64"),
        ("aesgcm: {keys: [{name: a, secret: YQ==}]}", "has 1 bytes"),
        ("aesgcm: {keys: [{name: 'a:b', secret: YQ==}]}", "no colon"),
    ] {
        let error = Encryption::parse(&text(provider), Path::new("f")).unwrap_err().to_string();
        assert!(error.contains("resources[0].providers[0]") && error.contains(wanted), "{error}");
    }
    assert!(Encryption::parse("kind: Pod", Path::new("f")).is_err());
}

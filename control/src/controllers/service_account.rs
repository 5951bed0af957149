//! Gives every namespace what its pods start with: the `default` service account, and the cluster's CA certificate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{ObjectMeta, Patch};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::write;
use crate::controllers::{Context, FromContext};
use crate::reconcile::driver::itself;
use crate::reconcile::shared::ROOT_CA;
use crate::reconcile::{Controller, Error, Key, Queue, Shared, Step, code_of, namespace_is_terminating};

const DEFAULT: &str = "default";
const FILE: &str = "ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints \
                           such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
                           distributions of Kubernetes clusters.";

#[derive(Debug)]
pub struct ServiceAccounts {
    shared: Arc<Shared>,
    root_ca: String,
}

impl FromContext for ServiceAccounts {
    fn new(context: &Context) -> Self {
        Self { shared: context.shared.clone(), root_ca: context.config.root_ca.clone() }
    }
}

impl Controller for ServiceAccounts {
    /// The namespace.
    type Key = Key;
    const NAME: &'static str = "serviceaccount";

    fn watch(self: &Arc<Self>, queue: &Queue<Key>) {
        self.shared.namespaces.subscribe(itself(queue));
        let to = queue.clone();
        self.shared.service_accounts.subscribe(move |change| {
            let gone = change.old.filter(|old| change.new.is_none() && old.name_any() == DEFAULT);
            if let Some(namespace) = gone.and_then(|account| account.metadata.namespace.as_deref()) {
                to.add(Key::new("", namespace));
            }
        });
        let to = queue.clone();
        self.shared.root_cas.subscribe(move |change| {
            if let Some(namespace) = change.old.and_then(|map| map.metadata.namespace.as_deref()) {
                to.add(Key::new("", namespace));
            }
        });
    }

    fn keys(&self) -> Vec<Key> {
        self.shared.namespaces.keys()
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(namespace) = self.shared.namespaces.get(key).filter(|n| is_active(n)) else { return Ok(None) };
        let name = namespace.name_any();
        if self.shared.service_accounts.get(&Key::new(&name, DEFAULT)).is_none() {
            self.create_account(&name).await?;
        }
        match self.shared.root_cas.get(&Key::new(&name, ROOT_CA)) {
            None => self.create_root_ca(&name).await?,
            Some(map) if map.data.as_ref().and_then(|d| d.get(FILE)) != Some(&self.root_ca) => {
                let api: Api<ConfigMap> = Api::namespaced(self.shared.client.clone(), &name);
                let patch = Patch::Merge(json!({"data": {FILE: self.root_ca}}));
                let answer = api.patch(ROOT_CA, &write::patching(), &patch).await;
                self.shared.root_cas.observe(answer.step("update the root certificate")?);
            }
            Some(_) => {}
        }
        Ok(None)
    }
}

fn is_active(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
}

impl ServiceAccounts {
    async fn create_account(&self, namespace: &str) -> Result<(), Error> {
        let account = ServiceAccount { metadata: meta(namespace, DEFAULT), ..ServiceAccount::default() };
        let api: Api<ServiceAccount> = Api::namespaced(self.shared.client.clone(), namespace);
        if let Some(created) = created(api.create(&write::post(), &account).await)? {
            self.shared.service_accounts.observe(created);
        }
        Ok(())
    }

    async fn create_root_ca(&self, namespace: &str) -> Result<(), Error> {
        let mut metadata = meta(namespace, ROOT_CA);
        metadata.annotations = Some([("kubernetes.io/description".to_owned(), DESCRIPTION.to_owned())].into());
        let data = BTreeMap::from([(FILE.to_owned(), self.root_ca.clone())]);
        let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
        let api: Api<ConfigMap> = Api::namespaced(self.shared.client.clone(), namespace);
        if let Some(created) = created(api.create(&write::post(), &map).await)? {
            self.shared.root_cas.observe(created);
        }
        Ok(())
    }
}

fn meta(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta { namespace: Some(namespace.to_owned()), name: Some(name.to_owned()), ..ObjectMeta::default() }
}

/// What is there already, or no longer wanted, is fine; the watch tells about it.
fn created<T>(answer: kube::Result<T>) -> Result<Option<T>, Error> {
    match answer {
        Ok(created) => Ok(Some(created)),
        Err(error) if code_of(&error) == Some(409) || namespace_is_terminating(&error) => Ok(None),
        Err(error) => Err(error).step("give a namespace its default objects"),
    }
}

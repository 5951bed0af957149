//! Makes an APIService for every group version that this server serves, and removes those of definitions that are gone.
//!
//! Built-in ones are looked after once per start, as in Kubernetes: whoever puts another server in their place is left
//! alone. Those of CustomResourceDefinitions are kept as they should be.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec};
use kube::Api;
use kube::api::ObjectMeta;
use parking_lot::Mutex;
use serde_json::json;
use wherry_api::kinds::apiregistration::priorities::{self, CUSTOM};
use wherry_api::registry::Registry;

use super::plan::{self, Action, Known, LABEL, Manage};
use crate::controllers::write;
use crate::controllers::{Context, FromContext};
use crate::reconcile::driver::itself;
use crate::reconcile::{Controller, Error, Key, Queue, Shared, Step};

#[derive(Debug)]
pub struct Registration {
    shared: Arc<Shared>,
    built_in: BTreeSet<Key>,
    names: Mutex<Names>,
}

/// Bound: the built-in names and those that were there at the start.
#[derive(Debug, Default)]
struct Names {
    at_start: HashSet<Key>,
    settled: HashSet<Key>,
}

impl FromContext for Registration {
    fn new(context: &Context) -> Self {
        let registry = Registry::builtin();
        let ranked = registry.iter().filter(|kind| priorities::built_in(&kind.group, &kind.version).is_some());
        let built_in = ranked.map(|kind| name_of(&kind.group, &kind.version)).collect();
        Self { shared: context.shared.clone(), built_in, names: Mutex::default() }
    }
}

impl Registration {
    fn wanted(&self, key: &Key) -> Option<(Manage, APIServiceSpec)> {
        let (group, version) = priorities::of_name(&key.name)?;
        if let Some(priority) = priorities::built_in(group, version).filter(|_| self.built_in.contains(key)) {
            return Some((Manage::OnStart, plan::local(group, version, priority)));
        }
        let serves = |definition: &Arc<CustomResourceDefinition>| {
            definition.spec.versions.iter().any(|served| served.served && served.name == version)
        };
        let defined = self.shared.definitions.grouped_by(group).iter().any(serves);
        defined.then(|| (Manage::Always, plan::local(group, version, CUSTOM)))
    }

    fn known(&self, key: &Key) -> Known {
        let names = self.names.lock();
        Known { at_start: names.at_start.contains(key), settled: names.settled.contains(key) }
    }

    fn settle(&self, key: &Key) {
        let mut names = self.names.lock();
        if self.built_in.contains(key) || names.at_start.contains(key) {
            names.settled.insert(key.clone());
        }
    }
}

fn name_of(group: &str, version: &str) -> Key {
    Key::new("", &format!("{version}.{group}"))
}

fn names_of(definition: &CustomResourceDefinition) -> impl Iterator<Item = Key> {
    definition.spec.versions.iter().map(|version| name_of(&definition.spec.group, &version.name))
}

impl Controller for Registration {
    type Key = Key;
    const NAME: &'static str = "apiservice-registration";

    fn watch(self: &Arc<Self>, queue: &Queue<Key>) {
        self.names.lock().at_start = self.shared.api_services.keys().into_iter().collect();
        self.shared.api_services.subscribe(itself(queue));
        let to = queue.clone();
        self.shared.definitions.subscribe(move |change| {
            change.sides().flat_map(|definition| names_of(definition)).for_each(|name| to.add(name));
        });
    }

    fn keys(&self) -> Vec<Key> {
        let definitions = self.shared.definitions.list();
        let custom = definitions.iter().flat_map(|definition| names_of(definition));
        self.built_in.iter().cloned().chain(self.shared.api_services.keys()).chain(custom).collect()
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let (wanted, present) = (self.wanted(key), self.shared.api_services.get(key));
        let action = plan::decide(wanted.as_ref(), present.as_deref(), self.known(key));
        let (api, store) = (Api::<APIService>::all(self.shared.client.clone()), &self.shared.api_services);
        match (action, wanted, present) {
            (Action::Create, Some((manage, spec)), _) => {
                let labels = [(LABEL.to_owned(), manage.value().to_owned())].into();
                let name = Some(key.name.to_string());
                let metadata = ObjectMeta { name, labels: Some(labels), ..ObjectMeta::default() };
                let object = APIService { metadata, spec: Some(spec), status: None };
                store.observe(api.create(&write::post(), &object).await.step("create an APIService")?);
            }
            (Action::Mend, Some((_, spec)), Some(present)) => {
                let mut spec = serde_json::to_value(spec).map_err(Error::Encode)?;
                for other in ["service", "caBundle", "insecureSkipTLSVerify"] {
                    wherry_api::object::set_at(&mut spec, other, json!(null));
                }
                write::merge(&api, store, &*present, json!({ "spec": spec })).await?;
            }
            (Action::Delete, _, Some(present)) => {
                write::delete(&api, store, &*present, "delete an APIService").await?;
            }
            _ => {}
        }
        self.settle(key);
        Ok(None)
    }
}

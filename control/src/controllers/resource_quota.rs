//! Counts what a namespace uses, and writes it into its quotas.
//!
//! Admission charges what comes; this gives back what goes, and counts what was there before a quota was. What is counted is
//! read from the server after the quota was, and written only if the quota is still the same: a charge made meanwhile is
//! never lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota, ResourceQuotaStatus, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, ResourceExt};
use serde_json::Value;
use wherry_api::quantity::Quantity;
use wherry_api::registry::Registry;

use super::{pods, write};
use crate::controllers::{Context, FromContext};
use crate::quota::{self, Usage};
use crate::reconcile::driver::itself;
use crate::reconcile::{Change, Controller, Error, Key, Queue, Shared, Step, code_of};

/// Departures within this time are counted together.
const TOGETHER: Duration = Duration::from_millis(100);
/// What quotas measure, beside counting: the kinds to be read whole.
const MEASURED: [&str; 3] = ["pods", "services", "persistentvolumeclaims"];
/// Objects read at a time.
const PAGE: u32 = 500;

#[derive(Debug)]
pub struct ResourceQuotas {
    shared: Arc<Shared>,
    registry: Registry,
}

impl FromContext for ResourceQuotas {
    fn new(context: &Context) -> Self {
        Self { shared: context.shared.clone(), registry: Registry::builtin() }
    }
}

impl Controller for ResourceQuotas {
    type Key = Key;
    const NAME: &'static str = "resourcequota";
    const RESYNC: Duration = Duration::from_mins(5);

    fn watch(self: &Arc<Self>, queue: &Queue<Key>) {
        self.shared.resource_quotas.subscribe(itself(queue));
        let (to, controller) = (queue.clone(), self.clone());
        self.shared.departures.subscribe(move |namespace| controller.recount(namespace, &to));
        let (to, controller) = (queue.clone(), self.clone());
        self.shared.pods.subscribe(move |change| {
            if let Some(namespace) = ended(change) {
                controller.recount(namespace, &to);
            }
        });
        let (to, controller) = (queue.clone(), self.clone());
        self.shared.services.subscribe(move |change| {
            if let Some(namespace) = closed(change) {
                controller.recount(namespace, &to);
            }
        });
    }

    fn keys(&self) -> Vec<Key> {
        self.shared.resource_quotas.keys()
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let api: Api<ResourceQuota> = Api::namespaced(self.shared.client.clone(), &key.namespace);
        // Not from the cache: what is counted must not be older than what it is compared with.
        let Some(found) = api.get_opt(&key.name).await.step("read a quota")? else { return Ok(None) };
        if found.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let status = self.count(&found).await?;
        let shown = found.status.clone().unwrap_or_default();
        if shown != status {
            write::status(&api, &self.shared.resource_quotas, &found, &shown, &status).await?;
        }
        Ok(None)
    }
}

/// The namespace of a pod that no longer uses what it did.
fn ended<'a>(change: &Change<'a, Pod>) -> Option<&'a str> {
    let (old, new) = (change.old?, change.new?);
    let changed = pods::is_ended(new) && !pods::is_ended(old);
    new.metadata.namespace.as_deref().filter(|_| changed)
}

/// The namespace of a Service whose ports or type have changed.
fn closed<'a>(change: &Change<'a, Service>) -> Option<&'a str> {
    let (old, new) = (change.old?, change.new?);
    new.metadata.namespace.as_deref().filter(|_| old.spec != new.spec)
}

impl ResourceQuotas {
    fn recount(&self, namespace: &str, queue: &Queue<Key>) {
        for quota in self.shared.resource_quotas.namespace(namespace, |_| true) {
            queue.add_after(Key::of(&*quota), TOGETHER);
        }
    }

    async fn count(&self, found: &ResourceQuota) -> Result<ResourceQuotaStatus, Error> {
        let namespace = found.namespace().unwrap_or_default();
        let spec = serde_json::to_value(&found.spec).map_err(Error::Encode)?;
        let hard = found.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
        let mut used: Usage = hard.keys().map(|name| (name.clone(), Quantity::ZERO)).collect();
        let scoped = ["scopes", "scopeSelector"].iter().any(|field| spec.get(field).is_some_and(|v| !v.is_null()));
        for (group, plural) in kinds(hard.keys().map(String::as_str)) {
            if group.is_empty() && MEASURED.contains(&plural) {
                self.measure(&namespace, plural, &spec, &mut used).await?;
            } else if !scoped {
                let count = self.number(&namespace, group, plural).await?;
                let each = Usage::from([(quota::count_name(group, plural), count), (plural.to_owned(), count)]);
                for (name, amount) in &mut used {
                    *amount = each.get(name).copied().unwrap_or(*amount);
                }
            }
        }
        let used = used.into_iter().map(|(name, amount)| (name, Amount(amount.to_string()))).collect();
        Ok(ResourceQuotaStatus { hard: Some(hard), used: Some(used) })
    }

    /// Adds what all objects of a kind use that the quota is about.
    async fn measure(&self, namespace: &str, plural: &str, spec: &Value, used: &mut Usage) -> Result<(), Error> {
        let Some(api) = self.api(namespace, "", plural).await else { return Ok(()) };
        let now = Timestamp::now();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = api.list(&params).await.step("count the objects of a quota")?;
            for object in page.items {
                let object = serde_json::to_value(object).map_err(Error::Encode)?;
                if quota::selects(spec, "", plural, &object) {
                    let mut own = quota::usage("", plural, &object, now);
                    own.retain(|name, _| used.contains_key(name));
                    quota::add(used, &own);
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(()),
            }
        }
    }

    /// How many objects of a kind there are; none of a kind that is not served.
    async fn number(&self, namespace: &str, group: &str, plural: &str) -> Result<Quantity, Error> {
        let Some(api) = self.api(namespace, group, plural).await else { return Ok(Quantity::ZERO) };
        let first = match api.list_metadata(&ListParams::default().limit(1)).await {
            Err(error) if code_of(&error) == Some(404) => return Ok(Quantity::ZERO),
            answer => answer.step("count the objects of a quota")?,
        };
        let rest = first.metadata.remaining_item_count.unwrap_or_default();
        let here = i64::try_from(first.items.len()).unwrap_or(i64::MAX);
        Ok(Quantity::from_units(rest.saturating_add(here)))
    }

    /// Objects of a kind; a custom one is looked for in discovery.
    async fn api(&self, namespace: &str, group: &str, plural: &str) -> Option<Api<DynamicObject>> {
        let client = &self.shared.client;
        let resource = match self.registry.by_group_resource(group, plural).filter(|kind| kind.stored()) {
            Some(kind) => ApiResource {
                group: kind.group.to_string(),
                version: kind.version.to_string(),
                api_version: kind.api_version(),
                kind: kind.kind.to_string(),
                plural: kind.plural.to_string(),
            },
            None => {
                let found = kube::discovery::group(client, group).await.ok()?;
                found.recommended_resources().into_iter().map(|(kind, _)| kind).find(|kind| kind.plural == plural)?
            }
        };
        Some(Api::namespaced_with(client.clone(), namespace, &resource))
    }
}

/// The kinds that must be looked at for these resources.
fn kinds<'a>(resources: impl Iterator<Item = &'a str>) -> BTreeSet<(&'a str, &'a str)> {
    resources
        .map(|resource| match quota::counted(resource) {
            Some(kind) => kind,
            None if resource.starts_with("services.") => ("", "services"),
            None if resource.ends_with("requests.storage") || resource.ends_with("/persistentvolumeclaims") => {
                ("", "persistentvolumeclaims")
            }
            None => ("", "pods"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_leads_to_the_kind_that_uses_it() {
        let all = ["pods", "limits.cpu", "requests.example.com/gpu", "services.nodeports", "count/secrets", "secrets"];
        assert_eq!(kinds(all.into_iter()), BTreeSet::from([("", "pods"), ("", "services"), ("", "secrets")]));
        let storage = ["gold.storageclass.storage.k8s.io/requests.storage", "count/jobs.batch"];
        assert_eq!(kinds(storage.into_iter()), BTreeSet::from([("", "persistentvolumeclaims"), ("batch", "jobs")]));
    }
}

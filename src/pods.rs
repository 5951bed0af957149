//! The node's pods from the caches that the control plane of the same process has anyway: one typed copy of each, shared.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use parking_lot::Mutex;
use tokio::sync::Notify;
use wherry_control::reconcile::{Change, Store};
use wherry_runtime::pod::manager::PodSource;

/// What changed since the node looked, by uid: the latest change of each pod, so never more than there are pods.
#[derive(Default)]
struct Pending {
    changes: Mutex<HashMap<String, Event<Arc<Pod>>>>,
    some: Notify,
}

impl Pending {
    fn note(&self, change: &Change<'_, Pod>, node: &str) {
        let bound = |pod: &&Arc<Pod>| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
        let (old, new) = (change.old.filter(bound), change.new.filter(bound));
        let mut changes = self.changes.lock();
        let same = old.zip(new).is_some_and(|(old, new)| old.metadata.uid == new.metadata.uid);
        if let Some(old) = old.filter(|_| !same) {
            changes.insert(old.uid().unwrap_or_default(), Event::Delete(old.clone()));
        }
        if let Some(new) = new {
            changes.insert(new.uid().unwrap_or_default(), Event::Apply(new.clone()));
        }
        drop(changes);
        self.some.notify_one();
    }

    fn take(&self) -> Vec<Event<Arc<Pod>>> {
        self.changes.lock().drain().map(|(_, event)| event).collect()
    }

    async fn next(&self) -> Vec<Event<Arc<Pod>>> {
        loop {
            let changes = self.take();
            if !changes.is_empty() {
                return changes;
            }
            self.some.notified().await;
        }
    }
}

/// The pods that are bound to `node`: what there is once the cache is filled, then changes.
pub fn of_node(pods: &Store<Pod>, node: &str) -> PodSource {
    let pending = Arc::new(Pending::default());
    let (noting, name) = (pending.clone(), node.to_owned());
    pods.subscribe(move |change| noting.note(change, &name));
    let (store, listed) = (pods.clone(), pending.clone());
    let first = stream::once(async move {
        store.synced().await;
        let present = listed.take().into_iter().filter_map(|event| match event {
            Event::Apply(pod) => Some(Event::InitApply(pod)),
            _ => None,
        });
        let list: Vec<_> = std::iter::once(Event::Init).chain(present).chain([Event::InitDone]).collect();
        stream::iter(list)
    });
    let later = stream::unfold(pending, |pending| async move { Some((stream::iter(pending.next().await), pending)) });
    first.flatten().chain(later.flatten()).boxed()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, node: &str) -> Arc<Pod> {
        let pod = json!({"metadata": {"name": "web", "uid": uid}, "spec": {"nodeName": node, "containers": []}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn seen(pending: &Pending) -> Vec<String> {
        let text = |event: Event<Arc<Pod>>| match event {
            Event::Apply(pod) => format!("apply {}", ResourceExt::uid(&*pod).unwrap()),
            Event::Delete(pod) => format!("delete {}", ResourceExt::uid(&*pod).unwrap()),
            _ => "list".to_owned(),
        };
        let mut all: Vec<_> = pending.take().into_iter().map(text).collect();
        all.sort();
        all
    }

    #[test]
    fn only_this_nodes_pods_are_told_and_a_namesake_is_another_pod() {
        let pending = Pending::default();
        let (first, second, other) = (pod("1", "here"), pod("2", "here"), pod("3", "there"));
        pending.note(&Change { old: None, new: Some(&first) }, "here");
        pending.note(&Change { old: None, new: Some(&other) }, "here");
        assert_eq!(seen(&pending), ["apply 1"]);
        pending.note(&Change { old: Some(&first), new: Some(&second) }, "here");
        assert_eq!(seen(&pending), ["apply 2", "delete 1"]);
        pending.note(&Change { old: Some(&second), new: Some(&second) }, "here");
        pending.note(&Change { old: Some(&second), new: None }, "here");
        assert_eq!(seen(&pending), ["delete 2"]);
    }
}

//! Who owns whom, across all kinds: metadata only, a few hundred bytes per object. No I/O.
//!
//! Says which objects are worth looking at after a change; whether one is really to go is decided from live reads.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kube::api::{ApiResource, ObjectMeta};

use crate::reconcile::Key;

/// Set by a foreground deletion: the owner goes after those of its dependents that block it.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Set by an orphaning deletion: the dependents lose their owner and stay.
pub const ORPHAN: &str = "orphan";

pub type Uid = Arc<str>;

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// Should this object still exist?
    Check(Uid),
    /// Release its dependents.
    Orphan(Uid),
    /// Tell that it names an owner that is in another namespace.
    Report { dependent: Uid, owner: Uid },
}

/// A reference to an owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    pub uid: Uid,
    pub api_version: Box<str>,
    pub kind: Box<str>,
    pub name: Box<str>,
    pub blocks: bool,
}

/// One object.
#[derive(Clone, Debug)]
pub struct Node {
    pub resource: Arc<ApiResource>,
    pub key: Key,
    pub owners: Box<[Owner]>,
    pub deleting: bool,
    /// Has [`FOREGROUND`].
    pub foreground: bool,
    /// Has [`ORPHAN`].
    pub orphan: bool,
}

impl Node {
    /// Being deleted, and waiting for dependents.
    pub fn waits(&self) -> bool {
        self.deleting && self.foreground
    }

    /// Whether an object of this namespace (empty: of none) may name this one as its owner.
    pub fn reaches(&self, namespace: &str) -> bool {
        self.key.namespace.is_empty() || *self.key.namespace == *namespace
    }

    /// Whether the reference of an object of this namespace is to this object.
    pub fn is(&self, owner: &Owner, namespace: &str) -> bool {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        self.reaches(namespace)
            && *self.key.name == *owner.name
            && self.resource.kind == *owner.kind
            && self.resource.group == group
    }

    pub fn owned_by(&self, uid: &str) -> Option<&Owner> {
        self.owners.iter().find(|owner| &*owner.uid == uid)
    }
}

/// Bounded by the objects of the cluster.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<Uid, Node>,
    dependents: HashMap<Uid, HashSet<Uid>>,
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The objects that name `uid` as an owner.
    pub fn dependents(&self, uid: &str) -> Vec<(Uid, Node)> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| Some((uid.clone(), self.nodes.get(uid)?.clone()))).collect()
    }

    /// The dependents whose deletion their owner waits for.
    pub fn blocking(&self, uid: &str) -> Vec<(Uid, Node)> {
        let mut all = self.dependents(uid);
        all.retain(|(_, node)| node.owned_by(uid).is_some_and(|owner| owner.blocks));
        all
    }

    /// The objects of one kind.
    pub fn of_resource(&self, resource: &ApiResource) -> Vec<Uid> {
        self.nodes.iter().filter(|(_, node)| *node.resource == *resource).map(|(uid, _)| uid.clone()).collect()
    }

    /// Takes over an object's metadata, and says what to look at.
    pub fn put(&mut self, resource: &Arc<ApiResource>, meta: &ObjectMeta) -> Vec<Task> {
        let Some(uid) = meta.uid.as_deref() else { return Vec::new() };
        let (uid, node) = (Uid::from(uid), read(resource, meta));
        let mut tasks = Vec::new();
        let before = self.nodes.get(&uid).map(|node| node.owners.clone()).unwrap_or_default();
        if before != node.owners {
            self.relink(&uid, &before, &node.owners);
            // An owner that waits may not have to wait for this one any more.
            let freed = before.iter().filter(|o| o.blocks && node.owned_by(&o.uid).is_none_or(|now| !now.blocks));
            tasks.extend(
                freed.filter(|o| self.get(&o.uid).is_some_and(Node::waits)).map(|o| Task::Check(o.uid.clone())),
            );
        }
        let restless = |owner: &Owner| self.get(&owner.uid).is_none_or(Node::waits);
        let new = node.owners.iter().filter(|owner| !before.contains(owner));
        let strangers: Vec<&Owner> = new.filter(|owner| self.is_other(owner, &node)).collect();
        if node.owners.iter().any(restless) || node.waits() || !strangers.is_empty() {
            tasks.push(Task::Check(uid.clone()));
        }
        tasks.extend(strangers.into_iter().filter_map(|owner| self.report(&uid, &node, &owner.uid)));
        if node.deleting && node.orphan {
            tasks.push(Task::Orphan(uid.clone()));
        }
        let waits = node.waits();
        let is_new = self.nodes.insert(uid.clone(), node).is_none();
        if is_new {
            // Those that were there before it, and mean another by its uid.
            for (dependent, node) in self.dependents(&uid) {
                if node.owned_by(&uid).is_some_and(|owner| self.is_other(owner, &node)) {
                    tasks.push(Task::Check(dependent.clone()));
                    tasks.extend(self.report(&dependent, &node, &uid));
                }
            }
        }
        if waits {
            tasks.extend(self.blocking(&uid).into_iter().map(|(uid, _)| Task::Check(uid)));
        }
        tasks
    }

    /// Takes note that an object is gone, and says what to look at.
    pub fn remove(&mut self, uid: &str) -> Vec<Task> {
        let Some((uid, node)) = self.nodes.remove_entry(uid) else { return Vec::new() };
        self.relink(&uid, &node.owners, &[]);
        let mut tasks: Vec<Task> = self.dependents(&uid).into_iter().map(|(uid, _)| Task::Check(uid)).collect();
        let waiting = node.owners.iter().filter(|owner| self.get(&owner.uid).is_some_and(Node::waits));
        tasks.extend(waiting.map(|owner| Task::Check(owner.uid.clone())));
        tasks
    }

    /// Whether an owner is known, and another object than its reference says.
    fn is_other(&self, owner: &Owner, dependent: &Node) -> bool {
        self.get(&owner.uid).is_some_and(|known| !known.is(owner, &dependent.key.namespace))
    }

    fn report(&self, uid: &Uid, dependent: &Node, owner: &Uid) -> Option<Task> {
        let elsewhere = self.get(owner).is_some_and(|known| !known.reaches(&dependent.key.namespace));
        elsewhere.then(|| Task::Report { dependent: uid.clone(), owner: owner.clone() })
    }

    fn relink(&mut self, uid: &Uid, before: &[Owner], after: &[Owner]) {
        for owner in before {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        for owner in after {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
    }
}

fn read(resource: &Arc<ApiResource>, meta: &ObjectMeta) -> Node {
    let has = |name: &str| meta.finalizers.as_ref().is_some_and(|list| list.iter().any(|f| f == name));
    Node {
        resource: resource.clone(),
        key: Key::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default()),
        owners: owners(meta),
        deleting: meta.deletion_timestamp.is_some(),
        foreground: has(FOREGROUND),
        orphan: has(ORPHAN),
    }
}

/// An object's owner references.
pub fn owners(meta: &ObjectMeta) -> Box<[Owner]> {
    let references = meta.owner_references.iter().flatten().map(|reference| Owner {
        uid: reference.uid.as_str().into(),
        api_version: reference.api_version.as_str().into(),
        kind: reference.kind.as_str().into(),
        name: reference.name.as_str().into(),
        blocks: reference.block_owner_deletion.unwrap_or_default(),
    });
    references.collect()
}

/// How an owner stands, as read live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It exists and stays.
    Solid,
    /// It is gone, or another object has its name.
    Gone,
    /// It is being deleted and waits for its dependents.
    Waiting,
}

/// What becomes of a dependent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Stays,
    /// Some owner stays: only the references to these uids go.
    Unlink(Vec<Uid>),
    Foreground,
    Background,
    Orphan,
}

/// Decides from the owners' standings. `node`: the dependent; `parent`: whether it has dependents of its own.
pub fn fate(node: &Node, parent: bool, standings: &[(Uid, Standing)]) -> Fate {
    let lost: Vec<Uid> = standings.iter().filter(|(_, s)| *s != Standing::Solid).map(|(uid, _)| uid.clone()).collect();
    if lost.is_empty() {
        return Fate::Stays;
    }
    if lost.len() < standings.len() {
        return Fate::Unlink(lost);
    }
    let waiting = standings.iter().any(|(_, s)| *s == Standing::Waiting);
    if waiting && parent {
        Fate::Foreground
    } else if node.orphan {
        Fate::Orphan
    } else if node.foreground {
        Fate::Foreground
    } else {
        Fate::Background
    }
}

#[cfg(test)]
mod tests {
    use kube::api::GroupVersionKind;
    use serde_json::{Value, json};

    use super::Standing::{Gone, Solid, Waiting};
    use super::*;

    fn resource() -> Arc<ApiResource> {
        Arc::new(ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "ConfigMap")))
    }

    fn meta(uid: &str, owners: &[(&str, bool)], more: Value) -> ObjectMeta {
        let owners: Vec<Value> = owners
            .iter()
            .map(|(uid, blocks)| {
                json!({"apiVersion": "v1", "kind": "ConfigMap", "name": uid, "uid": uid, "blockOwnerDeletion": blocks})
            })
            .collect();
        let mut meta = json!({"name": uid, "namespace": "n", "uid": uid, "ownerReferences": owners});
        if let (Some(meta), Value::Object(more)) = (meta.as_object_mut(), more) {
            meta.extend(more);
        }
        serde_json::from_value(meta).expect("metadata")
    }

    fn check(uid: &str) -> Task {
        Task::Check(uid.into())
    }

    fn waiting() -> Value {
        json!({"deletionTimestamp": "2030-01-01T00:00:00Z", "finalizers": [FOREGROUND]})
    }

    #[test]
    fn dependents_of_an_absent_owner_are_looked_at_before_and_after() {
        let mut graph = Graph::default();
        assert_eq!(graph.put(&resource(), &meta("child", &[("owner", false)], json!({}))), [check("child")]);
        assert!(graph.put(&resource(), &meta("owner", &[], json!({}))).is_empty());
        assert!(graph.put(&resource(), &meta("child", &[("owner", false)], json!({}))).is_empty());
        assert_eq!(graph.remove("owner"), [check("child")]);
    }

    #[test]
    fn a_foreground_owner_is_looked_at_when_its_last_blocker_goes() {
        let mut graph = Graph::default();
        graph.put(&resource(), &meta("owner", &[], json!({})));
        graph.put(&resource(), &meta("child", &[("owner", true)], json!({})));
        assert_eq!(graph.put(&resource(), &meta("owner", &[], waiting())), [check("owner"), check("child")]);
        assert_eq!(graph.blocking("owner").len(), 1);
        assert_eq!(graph.remove("child"), [check("owner")]);
        assert!(graph.blocking("owner").is_empty());
    }

    #[test]
    fn a_blocker_that_is_released_frees_its_owner() {
        let mut graph = Graph::default();
        graph.put(&resource(), &meta("child", &[("owner", true)], json!({})));
        graph.put(&resource(), &meta("owner", &[], waiting()));
        assert_eq!(graph.put(&resource(), &meta("child", &[], json!({}))), [check("owner")]);
    }

    #[test]
    fn who_names_an_owner_in_another_namespace_is_looked_at_and_told_of() {
        let elsewhere = || json!({"namespace": "other"});
        let report = |dependent: &str| Task::Report { dependent: dependent.into(), owner: "owner".into() };
        for (place, told) in [(elsewhere(), true), (json!({"namespace": null}), true), (json!({}), false)] {
            let child = meta("child", &[("owner", false)], place);
            let wanted = if told { vec![check("child"), report("child")] } else { Vec::new() };
            let mut graph = Graph::default();
            graph.put(&resource(), &meta("owner", &[], json!({})));
            assert_eq!(graph.put(&resource(), &child), wanted, "the owner came first");
            assert!(graph.put(&resource(), &child).is_empty(), "once");
            let mut graph = Graph::default();
            assert_eq!(graph.put(&resource(), &child), [check("child")]);
            assert_eq!(graph.put(&resource(), &meta("owner", &[], json!({}))), wanted, "the child came first");
        }
        let mut graph = Graph::default();
        graph.put(&resource(), &meta("owner", &[], json!({"namespace": null})));
        let child = meta("child", &[("owner", false)], elsewhere());
        assert!(graph.put(&resource(), &child).is_empty(), "who has no namespace may own anything");
    }

    #[test]
    fn a_reference_that_means_another_object_is_looked_at() {
        let mut graph = Graph::default();
        graph.put(&resource(), &meta("owner", &[], json!({"name": "renamed"})));
        let child = meta("child", &[("owner", false)], json!({}));
        assert_eq!(graph.put(&resource(), &child), [check("child")]);
        let node = graph.get("owner").unwrap();
        let owner = |change: fn(&mut Owner)| {
            let mut owner = read(&resource(), &child).owners.first().unwrap().clone();
            owner.name = "renamed".into();
            change(&mut owner);
            owner
        };
        assert!(node.is(&owner(|_| ()), "n"));
        assert!(node.is(&owner(|owner| owner.api_version = "v2".into()), "n"), "a version is no other kind");
        assert!(!node.is(&owner(|owner| owner.api_version = "apps/v1".into()), "n"));
        assert!(!node.is(&owner(|owner| owner.kind = "Secret".into()), "n"));
        assert!(!node.is(&owner(|_| ()), "m"));
    }

    #[test]
    fn the_fate_follows_from_the_owners() {
        let node = read(&resource(), &meta("child", &[("a", true), ("b", false)], json!({})));
        let standings = |a, b| vec![("a".into(), a), ("b".into(), b)];
        assert_eq!(fate(&node, false, &standings(Solid, Solid)), Fate::Stays);
        assert_eq!(fate(&node, false, &standings(Gone, Solid)), Fate::Unlink(vec!["a".into()]));
        assert_eq!(fate(&node, false, &standings(Gone, Gone)), Fate::Background);
        assert_eq!(fate(&node, true, &standings(Gone, Waiting)), Fate::Foreground);
        assert_eq!(fate(&node, false, &standings(Gone, Waiting)), Fate::Background);
    }
}

//! Paths of a group and version: for each kind its collections, its objects and their subresources.

use serde_json::{Map, Value, json};

use super::operations::{Subject, Verb, operation};
use super::{components, gvk, parameters, root};
use crate::kinds::exchanged;
use crate::resource::{Descriptor, Subresource};

/// All paths of a document.
pub(super) fn all(kinds: &[&Descriptor]) -> Map<String, Value> {
    let mut paths = Map::new();
    for kind in kinds {
        Kind::new(kind).add(&mut paths);
    }
    paths
}

/// A kind with the names that its operations share.
struct Kind<'a> {
    resource: &'a Descriptor,
    tag: String,
    tag_id: String,
    gvk: Value,
    /// `Namespaced` or nothing.
    scope: &'static str,
}

impl<'a> Kind<'a> {
    fn new(resource: &'a Descriptor) -> Self {
        let group = resource.group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
        Self {
            resource,
            tag: format!("{group}_{}", resource.version),
            tag_id: format!("{}{}", capital(group), capital(&resource.version)),
            gvk: gvk(&resource.group, &resource.version, &resource.kind),
            scope: if resource.namespaced() { "Namespaced" } else { "" },
        }
    }

    fn add(&self, paths: &mut Map<String, Value>) {
        let (resource, kind) = (self.resource, &self.resource.kind);
        let root = format!("/{}", root(&resource.group, &resource.version));
        let inside = if resource.namespaced() { "/namespaces/{namespace}" } else { "" };
        let collection = format!("{root}{inside}/{}", resource.plural);
        let id = format!("{}{kind}", self.scope);
        let own =
            |id: &str, verbs: &[Verb]| self.item(id, &self.gvk, Some(&resource.definition), verbs, resource.verbs);

        let verbs = own(&id, &[Verb::List, Verb::Create, Verb::DeleteCollection]);
        insert(paths, &collection, verbs, &self.path_parameters(false));
        let verbs = own(&id, &[Verb::Read, Verb::Replace, Verb::Patch, Verb::Delete]);
        insert(paths, &format!("{collection}/{{name}}"), verbs, &self.path_parameters(true));
        if resource.namespaced() {
            let verbs = own(&format!("{kind}ForAllNamespaces"), &[Verb::List]);
            insert(paths, &format!("{root}/{}", resource.plural), verbs, &[parameters::pretty()]);
        }
        for subresource in &resource.subresources {
            let path = format!("{collection}/{{name}}/{}", subresource.name());
            insert(paths, &path, self.subresource(subresource), &self.path_parameters(true));
        }
    }

    fn path_parameters(&self, named: bool) -> Vec<Value> {
        let name = named.then(|| parameters::name(&self.resource.kind));
        let namespace = self.resource.namespaced().then(parameters::namespace);
        name.into_iter().chain(namespace).chain([parameters::pretty()]).collect()
    }

    /// The operations of those `verbs` that are `allowed`.
    fn item(
        &self,
        id: &str,
        gvk: &Value,
        definition: Option<&str>,
        verbs: &[Verb],
        allowed: &[&str],
    ) -> Map<String, Value> {
        let subject = Subject {
            tag: &self.tag,
            tag_id: &self.tag_id,
            id,
            what: &format!("objects of kind {}", self.resource.kind),
            gvk,
            definition,
            patches: self.resource.patches(),
        };
        let allowed = verbs.iter().filter(|verb| allowed.contains(&verb.discovered()));
        allowed.map(|verb| (verb.method().to_owned(), operation(*verb, &subject))).collect()
    }

    fn subresource(&self, subresource: &Subresource) -> Map<String, Value> {
        let id = format!("{}{}{}", self.scope, self.resource.kind, capital(subresource.name()));
        let whole = &[Verb::Read, Verb::Replace, Verb::Patch];
        match (subresource, components::definition(self.resource, subresource)) {
            (Subresource::Status | Subresource::Scale(_) | Subresource::Part(_), Some((gvk, definition))) => {
                self.item(&id, &gvk, Some(&definition), whole, &["get", "update", "patch"])
            }
            (Subresource::Named(named), Some((gvk, definition))) => {
                // A log is text, though discovery gives it its parent's kind.
                let definition = (named.name != "log").then_some(definition);
                let verbs = &[Verb::Read, Verb::Create, Verb::Replace, Verb::Patch, Verb::Delete];
                self.item(&id, &gvk, definition.as_deref(), verbs, named.verbs)
            }
            (_, None) => {
                let (group, version, kind) = exchanged::named(self.resource, subresource);
                self.item(&id, &gvk(group, version, kind), None, &[Verb::Connect], &["get"])
            }
        }
    }
}

fn insert(paths: &mut Map<String, Value>, path: &str, mut item: Map<String, Value>, parameters: &[Value]) {
    if !item.is_empty() {
        item.insert("parameters".into(), json!(parameters));
        paths.insert(path.to_owned(), Value::Object(item));
    }
}

/// The text with a capital first letter.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

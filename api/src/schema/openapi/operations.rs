//! One operation: what a verb on a path takes and answers.

use serde_json::{Map, Value, json};

use super::components::META;
use super::parameters;
use crate::patch::PatchType;
use crate::schema::build::REFERENCE;

/// The verbs of OpenAPI operations, each with its HTTP method, Kubernetes' action and the beginning of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    List,
    Create,
    DeleteCollection,
    Read,
    Replace,
    Patch,
    Delete,
    Connect,
}

impl Verb {
    /// In discovery's words.
    pub(super) fn discovered(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Create => "create",
            Self::DeleteCollection => "deletecollection",
            Self::Read | Self::Connect => "get",
            Self::Replace => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }

    pub(super) fn method(self) -> &'static str {
        match self {
            Self::List | Self::Read | Self::Connect => "get",
            Self::Create => "post",
            Self::DeleteCollection | Self::Delete => "delete",
            Self::Replace => "put",
            Self::Patch => "patch",
        }
    }

    fn action(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Create => "post",
            Self::DeleteCollection => "deletecollection",
            Self::Read => "get",
            Self::Replace => "put",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::Connect => "connect",
        }
    }

    fn id(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Create => "create",
            Self::DeleteCollection | Self::Delete => "delete",
            Self::Read => "read",
            Self::Replace => "replace",
            Self::Patch => "patch",
            Self::Connect => "connectGet",
        }
    }

    fn parameters(self) -> Vec<Value> {
        let mut all = match self {
            Self::List => parameters::list(),
            Self::Create | Self::Replace | Self::Patch => parameters::write(),
            Self::DeleteCollection => [parameters::list(), parameters::delete()].concat(),
            Self::Delete => parameters::delete(),
            Self::Read | Self::Connect => Vec::new(),
        };
        if self == Self::Patch {
            all.push(parameters::force());
        }
        all
    }

    fn codes(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Create => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
            Self::Replace | Self::Patch => &[("200", "OK"), ("201", "Created")],
            Self::Delete => &[("200", "OK"), ("202", "Accepted")],
            _ => &[("200", "OK")],
        }
    }
}

/// What an operation is about.
pub(super) struct Subject<'a> {
    /// `apps_v1`.
    pub(super) tag: &'a str,
    /// `AppsV1`.
    pub(super) tag_id: &'a str,
    /// `NamespacedDeploymentStatus`: what the id says after verb and tag.
    pub(super) id: &'a str,
    /// For the description.
    pub(super) what: &'a str,
    pub(super) gvk: &'a Value,
    /// The definition that is exchanged; `None`: text.
    pub(super) definition: Option<&'a str>,
    pub(super) patches: &'static [PatchType],
}

fn reference(definition: &str) -> Value {
    json!({"$ref": format!("{REFERENCE}{definition}")})
}

/// The operation of `verb` on `subject`.
pub(super) fn operation(verb: Verb, subject: &Subject<'_>) -> Value {
    let collection = if verb == Verb::DeleteCollection { "Collection" } else { "" };
    let mut operation = json!({
        "tags": [subject.tag],
        "description": format!("{} {}", verb.action(), subject.what),
        "operationId": format!("{}{}{collection}{}", verb.id(), subject.tag_id, subject.id),
        "parameters": verb.parameters(),
        "responses": responses(verb, subject),
        "x-kubernetes-action": verb.action(),
        "x-kubernetes-group-version-kind": subject.gvk,
    });
    if let (Some(body), Value::Object(map)) = (request(verb, subject), &mut operation) {
        map.insert("requestBody".into(), body);
    }
    operation
}

fn request(verb: Verb, subject: &Subject<'_>) -> Option<Value> {
    let any = |schema: Value, required: bool| json!({"content": {"*/*": {"schema": schema}}, "required": required});
    match verb {
        Verb::Create | Verb::Replace => subject.definition.map(|definition| any(reference(definition), true)),
        Verb::Delete | Verb::DeleteCollection => Some(any(reference(&format!("{META}DeleteOptions")), false)),
        Verb::Patch => {
            let schema = json!({"description": "A patch, in the form that its content type says.", "type": "object"});
            let content: Map<String, Value> =
                subject.patches.iter().map(|kind| (kind.media_type().to_owned(), json!({"schema": schema}))).collect();
            Some(json!({"content": content, "required": true}))
        }
        Verb::List | Verb::Read | Verb::Connect => None,
    }
}

fn responses(verb: Verb, subject: &Subject<'_>) -> Value {
    let answered = match (verb, subject.definition) {
        (Verb::Delete | Verb::DeleteCollection, _) => Some(format!("{META}Status")),
        (Verb::List, Some(definition)) => Some(format!("{definition}List")),
        (_, definition) => definition.map(str::to_owned),
    };
    let content = match answered {
        Some(definition) => {
            let schema = json!({"schema": reference(&definition)});
            let mut content = json!({"application/json": schema, "application/yaml": schema});
            if let (Verb::List, Value::Object(map)) = (verb, &mut content) {
                map.insert("application/json;stream=watch".into(), schema);
            }
            content
        }
        None => json!({"*/*": {"schema": {"type": "string"}}}),
    };
    let mut all = Map::new();
    for (code, description) in verb.codes() {
        all.insert((*code).to_owned(), json!({"description": description, "content": content}));
    }
    all.insert("401".into(), json!({"description": "Unauthorized"}));
    Value::Object(all)
}

//! Type checking of ValidatingAdmissionPolicies: what their expressions would trip over, given the kinds that they are about,
//! is written into their status for their authors to read.
//!
//! Checked are rules that name kinds in full, those that there are; a wildcard or a part of an object could be anything. A warning
//! refuses nothing.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{
    ExpressionWarning, TypeChecking, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyStatus,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use serde_json::Value;
use wherry_api::cel::types::Object;
use wherry_api::cel::{self, Decl, Program, Type};
use wherry_api::custom::Definition;
use wherry_api::registry::Registry;
use wherry_api::resource::Descriptor;
use wherry_api::schema;

use super::write;
use crate::controllers::{Context, FromContext};
use crate::reconcile::driver::itself;
use crate::reconcile::{Controller, Error, Key, Queue, Shared};

/// Kinds that a policy is checked with, as in Kubernetes.
const MOST: usize = 10;

/// Kubernetes' `validatingadmissionpolicy-status-controller`.
#[derive(Debug)]
pub(super) struct PolicyTypes {
    shared: Arc<Shared>,
    registry: Registry,
}

impl FromContext for PolicyTypes {
    fn new(context: &Context) -> Self {
        Self { shared: context.shared.clone(), registry: Registry::builtin() }
    }
}

impl Controller for PolicyTypes {
    type Key = Key;
    const NAME: &'static str = "validatingadmissionpolicy-status";

    fn watch(self: &Arc<Self>, queue: &Queue<Key>) {
        self.shared.validating_policies.subscribe(itself(queue));
    }

    fn keys(&self) -> Vec<Key> {
        self.shared.validating_policies.keys()
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let store = &self.shared.validating_policies;
        let Some(policy) = store.get(key) else { return Ok(None) };
        let old = policy.status.clone().unwrap_or_default();
        if policy.metadata.deletion_timestamp.is_some() || old.observed_generation == policy.metadata.generation {
            return Ok(None);
        }
        let spec = serde_json::to_value(&policy.spec).map_err(Error::Encode)?;
        let found = warnings(&spec, &Kinds { registry: &self.registry, definitions: self.shared.definitions.list() });
        let new = ValidatingAdmissionPolicyStatus {
            observed_generation: policy.metadata.generation,
            type_checking: Some(TypeChecking { expression_warnings: (!found.is_empty()).then_some(found) }),
            ..old.clone()
        };
        let api: Api<ValidatingAdmissionPolicy> = Api::all(self.shared.client.clone());
        write::status(&api, store, &*policy, &old, &new).await?;
        Ok(None)
    }
}

fn list<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Where the kinds that policies name are described.
struct Kinds<'a> {
    registry: &'a Registry,
    definitions: Vec<Arc<CustomResourceDefinition>>,
}

/// A kind that a policy is about.
struct Subject {
    /// `apps/v1, Kind=Deployment`.
    name: String,
    decl: Decl,
}

impl Kinds<'_> {
    fn by_plural(&self, group: &str, version: &str, plural: &str) -> Option<Subject> {
        self.registry.by_plural(group, version, plural).map(|kind| built_in(kind)).or_else(|| {
            let is = |crd: &&Arc<CustomResourceDefinition>| crd.spec.group == group && crd.spec.names.plural == plural;
            self.custom(self.definitions.iter().find(is)?, version)
        })
    }

    fn by_kind(&self, api_version: &str, kind: &str) -> Option<Subject> {
        self.registry.by_kind(api_version, kind).map(|kind| built_in(kind)).or_else(|| {
            let (group, version) = api_version.split_once('/')?;
            let is = |crd: &&Arc<CustomResourceDefinition>| crd.spec.group == group && crd.spec.names.kind == kind;
            self.custom(self.definitions.iter().find(is)?, version)
        })
    }

    fn custom(&self, crd: &CustomResourceDefinition, version: &str) -> Option<Subject> {
        let definition = Definition::parse(&serde_json::to_value(crd).ok()?);
        let version = definition.version(version).filter(|version| version.served)?;
        // All kinds have the same.
        let metadata = self.by_kind("v1", "Namespace").and_then(|kind| match kind.decl.ty {
            Type::Object(object) => object.field("metadata").map(|field| field.decl),
            _ => None,
        });
        let decl = cel::of_resource(version.schema.structural(), metadata.unwrap_or(Type::Dyn.into()));
        Some(Subject { name: format!("{}, Kind={}", definition.api_version(&version.name), definition.kind), decl })
    }
}

fn built_in(kind: &Descriptor) -> Subject {
    let decl = Type::Object(Object::Shape(schema::of(kind))).into();
    Subject { name: format!("{}, Kind={}", kind.api_version(), kind.kind), decl }
}

/// What is wrong with which expression, for the kinds that the policy is about.
fn warnings(spec: &Value, kinds: &Kinds<'_>) -> Vec<ExpressionWarning> {
    let scopes: Vec<_> = subjects(spec, kinds).into_iter().map(|kind| (scope(spec, &kind, kinds), kind.name)).collect();
    let mut found = Vec::new();
    for (index, validation) in list(spec, "/validations").iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let source = text(validation, &format!("/{field}"));
            let complaints: Vec<String> = scopes
                .iter()
                .filter(|_| !source.trim().is_empty())
                .filter_map(|(scope, kind)| {
                    let error = Program::compile(source, scope).err()?.to_string();
                    let why = error.strip_prefix("compilation failed: ").unwrap_or(&error).to_owned();
                    Some(format!("{kind}: {why}\n"))
                })
                .collect();
            if !complaints.is_empty() {
                let field_ref = format!("spec.validations[{index}].{field}");
                found.push(ExpressionWarning { field_ref, warning: complaints.join("\n") });
            }
        }
    }
    found
}

/// The kinds that rules name in full.
fn subjects(spec: &Value, kinds: &Kinds<'_>) -> Vec<Subject> {
    let mut found: Vec<Subject> = Vec::new();
    let names = |rule: &Value, field: &str| -> Vec<String> {
        let all: Vec<String> = list(rule, field).iter().filter_map(Value::as_str).map(str::to_owned).collect();
        if all.iter().any(|name| name == "*") { Vec::new() } else { all }
    };
    for rule in list(spec, "/matchConstraints/resourceRules") {
        for group in names(rule, "/apiGroups") {
            for version in names(rule, "/apiVersions") {
                for resource in names(rule, "/resources").iter().filter(|name| !name.contains(['/', '*'])) {
                    if found.len() >= MOST {
                        return found;
                    }
                    let kind = kinds.by_plural(&group, &version, resource);
                    found.extend(kind.filter(|kind| found.iter().all(|known| known.name != kind.name)));
                }
            }
        }
    }
    found
}

/// The variables of an expression about objects of this kind.
fn scope(spec: &Value, kind: &Subject, kinds: &Kinds<'_>) -> Vec<(String, Decl)> {
    let named = |api_version: &str, kind: &str| kinds.by_kind(api_version, kind).map(|kind| kind.decl);
    let any = || Decl::from(Type::Dyn);
    let param = spec.get("paramKind").filter(|kind| !kind.is_null());
    let mut known = vec![
        ("object".to_owned(), kind.decl.clone()),
        ("oldObject".to_owned(), kind.decl.clone()),
        ("namespaceObject".to_owned(), named("v1", "Namespace").unwrap_or_else(any)),
        ("request".to_owned(), any()),
        ("authorizer".to_owned(), any()),
        ("authorizer.requestResource".to_owned(), any()),
    ];
    if let Some(param) = param {
        let decl = named(text(param, "/apiVersion"), text(param, "/kind"));
        known.push(("params".to_owned(), decl.unwrap_or_else(any)));
    }
    for variable in list(spec, "/variables") {
        // A variable that is wrong itself is told where it is used.
        let decl = Program::compile(text(variable, "/expression"), &known).map_or_else(|_| any(), |p| p.decl().clone());
        known.push((cel::admission::variable(text(variable, "/name")), decl));
    }
    known
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judge(rule: &Value, more: &Value) -> Vec<(String, String)> {
        judge_with(&[], rule, more)
    }

    fn judge_with(definitions: &[Value], rule: &Value, more: &Value) -> Vec<(String, String)> {
        let mut spec = json!({"matchConstraints": {"resourceRules": [rule]}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let definitions = definitions.iter().map(|crd| serde_json::from_value(crd.clone()).unwrap()).map(Arc::new);
        let found = warnings(&spec, &Kinds { registry: &Registry::builtin(), definitions: definitions.collect() });
        found.into_iter().map(|warning| (warning.field_ref, warning.warning)).collect()
    }

    #[test]
    fn an_expression_about_a_field_that_a_kind_has_not_is_told() {
        let rule = json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments", "replicasets"]});
        let validations = json!([
            {"expression": "object.spec.replicas > 1 && object.metadata.name.startsWith('a')"},
            {"expression": "object.spec.paused", "messageExpression": "'no ' + object.spec.nothing"},
            {"expression": "variables.count > 1 && variables.count == 'x'"},
        ]);
        let variables = json!([{"name": "count", "expression": "object.spec.replicas"}]);
        let found = judge(&rule, &json!({"validations": validations, "variables": variables}));
        let places: Vec<_> = found.iter().map(|(place, _)| place.as_str()).collect();
        assert_eq!(
            places,
            [
                "spec.validations[1].expression",
                "spec.validations[1].messageExpression",
                "spec.validations[2].expression"
            ]
        );
        let only = &found[0].1;
        assert!(only.starts_with("apps/v1, Kind=ReplicaSet: ERROR: <input>:1:"), "a Deployment can be paused: {only}");
        assert!(only.contains("undefined field 'paused'"), "{only}");
        assert_eq!(found[1].1.matches("undefined field 'nothing'").count(), 2, "{}", found[1].1);
    }

    #[test]
    fn an_expression_about_a_custom_kind_is_judged_by_its_schema() {
        let spec = json!({"type": "object", "properties": {"replicas": {"type": "integer"}}});
        let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}});
        let crd = json!({"metadata": {"name": "crontabs.own.example"}, "spec": {"group": "own.example", "scope": "Namespaced",
            "names": {"plural": "crontabs", "kind": "CronTab"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}});
        let rule = json!({"apiGroups": ["own.example"], "apiVersions": ["v1"], "resources": ["crontabs"]});
        let validations = json!([
            {"expression": "object.spec.replicas > 1 && object.metadata.labels.all(l, l != 'x')"},
            {"expression": "object.spec.replicas > '1'"},
        ]);
        let found = judge_with(&[crd], &rule, &json!({"validations": validations}));
        let [(place, why)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(place, "spec.validations[1].expression");
        assert!(why.starts_with("own.example/v1, Kind=CronTab: ERROR: <input>:1:22: "), "{why}");
        assert!(why.contains("found no matching overload for '_>_' applied to '(int, string)'"), "{why}");
    }

    #[test]
    fn what_could_be_anything_is_not_judged() {
        let wrong = json!({"validations": [{"expression": "object.nothing"}]});
        for (group, resource) in
            [("*", "deployments"), ("apps", "*"), ("apps", "deployments/scale"), ("own.example", "things")]
        {
            let rule = json!({"apiGroups": [group], "apiVersions": ["v1"], "resources": [resource]});
            assert!(judge(&rule, &wrong).is_empty(), "{group}/{resource}");
        }
    }
}

//! The objects that every cluster has, as in Kubernetes: the mandatory ones hold however they are written, the suggested
//! ones are kept up to date unless their annotation says otherwise.

use std::sync::LazyLock;

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use serde_json::{Map, Value, json};
use wherry_api::kinds::flowcontrol::mandatory;
use wherry_api::object;

use super::config::Objects;

/// Says whether a suggested object follows its default.
pub(crate) const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
const API_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";
pub(crate) const SCHEMA: &str = "FlowSchema";
pub(crate) const LEVEL: &str = "PriorityLevelConfiguration";
const ACCOUNTS: &str = "kube-system";

/// Levels that are suggested: shares, percent that is lent, queues, hand. Fifty wait in a queue.
const LEVELS: [(&str, i32, i32, i32, i32); 6] = [
    ("system", 30, 33, 64, 6),
    ("node-high", 40, 25, 64, 6),
    ("leader-election", 10, 0, 16, 4),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
    ("global-default", 20, 50, 128, 6),
];

const EVERYBODY: [&str; 2] = ["system:unauthenticated", "system:authenticated"];

/// All of them: levels first.
pub(crate) fn all() -> Vec<Value> {
    let fixed = |kind: &'static str, spec: fn(&str) -> Option<Value>| {
        mandatory::NAMES.into_iter().filter_map(move |name| Some(object(kind, name, spec(name)?)))
    };
    let levels = fixed(LEVEL, mandatory::level).chain(LEVELS.map(level));
    levels.chain(fixed(SCHEMA, mandatory::schema)).chain(schemas()).collect()
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    let annotations = json!({AUTOUPDATE: "true"});
    json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name, "annotations": annotations}, "spec": spec})
}

fn level((name, shares, lendable, queues, hand): (&str, i32, i32, i32, i32)) -> Value {
    let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
    let response = json!({"type": "Queue", "queuing": queuing});
    let limited = json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
    object(LEVEL, name, json!({"type": "Limited", "limited": limited}))
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect()
}

fn accounts(names: &[&str]) -> Vec<Value> {
    let account =
        |name: &&str| json!({"kind": "ServiceAccount", "serviceAccount": {"name": name, "namespace": ACCOUNTS}});
    names.iter().map(account).collect()
}

/// Some verbs on some resources, in every namespace.
fn resources(verbs: &[&str], group: &str, resources: &[&str], cluster: bool) -> Value {
    let mut rule = Map::from_iter([("verbs".to_owned(), json!(verbs)), ("apiGroups".to_owned(), json!([group]))]);
    rule.insert("resources".into(), json!(resources));
    rule.insert("namespaces".into(), json!(["*"]));
    if cluster {
        rule.insert("clusterScope".into(), json!(true));
    }
    Value::Object(rule)
}

fn anything(subjects: Vec<Value>) -> Value {
    let paths = json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]);
    json!([{"subjects": subjects, "resourceRules": [resources(&["*"], "*", &["*"], true)], "nonResourceRules": paths}])
}

fn schemas() -> Vec<Value> {
    const WRITE: [&str; 3] = ["get", "create", "update"];
    let leases = |subjects: Vec<Value>| {
        let rule = resources(&WRITE, "coordination.k8s.io", &["leases"], false);
        json!([{"subjects": subjects, "resourceRules": [rule]}])
    };
    let (manager, scheduler) = ("system:kube-controller-manager", "system:kube-scheduler");
    let schema = |name: &str, level: &str, precedence: i32, method: &str, rules: Value| {
        let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
            "rules": rules});
        if !method.is_empty() {
            object::set_at(&mut spec, "distinguisherMethod", json!({"type": method}));
        }
        object(SCHEMA, name, spec)
    };
    let probes = json!([{"subjects": groups(&EVERYBODY),
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]}]);
    let electors = [users(&[manager, scheduler]), accounts(&["*"])].concat();
    let mirrors = [users(&[manager]), accounts(&["endpoint-controller", "endpointslicemirroring-controller"])].concat();
    let endpoints = json!([{"subjects": mirrors, "resourceRules": [resources(&WRITE, "", &["endpoints"], false)]}]);
    let nodes = json!([{"subjects": groups(&["system:nodes"]), "resourceRules": [
        resources(&["*"], "", &["nodes", "nodes/status"], true),
        resources(&["*"], "coordination.k8s.io", &["leases"], false),
    ]}]);
    vec![
        schema("probes", "exempt", 2, "", probes),
        schema("system-leader-election", "leader-election", 100, "ByUser", leases(electors)),
        schema("endpoint-controller", "workload-high", 150, "ByUser", endpoints),
        schema("workload-leader-election", "leader-election", 200, "ByUser", leases(accounts(&["*"]))),
        schema("system-node-high", "node-high", 400, "ByUser", nodes),
        schema("system-nodes", "system", 500, "ByUser", anything(groups(&["system:nodes"]))),
        schema("kube-controller-manager", "workload-high", 800, "ByNamespace", anything(users(&[manager]))),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", anything(users(&[scheduler]))),
        schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", anything(accounts(&["*"]))),
        schema("service-accounts", "workload-low", 9000, "ByUser", anything(groups(&["system:serviceaccounts"]))),
        schema("global-default", "global-default", 9900, "ByUser", anything(groups(&EVERYBODY))),
    ]
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

type Mandatory = (Objects<FlowSchema>, Objects<PriorityLevelConfiguration>);

/// The mandatory objects.
pub(super) fn mandatory() -> &'static Mandatory {
    static OBJECTS: LazyLock<Mandatory> = LazyLock::new(|| {
        let named = |kind: &'static str| {
            let wanted = all().into_iter().filter(move |object| object::kind(object) == kind);
            wanted.filter(|object| mandatory::NAMES.contains(&object::name(object)))
        };
        let schema = |object: Value| Some((object::name(&object).to_owned(), serde_json::from_value(object).ok()?));
        let level = |object: Value| Some((object::name(&object).to_owned(), serde_json::from_value(object).ok()?));
        (named(SCHEMA).filter_map(schema).collect(), named(LEVEL).filter_map(level).collect())
    });
    &OBJECTS
}

/// What a stored object is to become to follow its default; `None`: it may stay.
pub(crate) fn settled(stored: &Value, wanted: &Value) -> Option<Value> {
    let mandatory = mandatory::NAMES.contains(&object::name(wanted));
    let asked = object::annotation(stored, AUTOUPDATE).unwrap_or_default();
    // Who never changed it since it came, and did not say otherwise, lets it follow.
    let follows = mandatory || asked == "true" || (asked.is_empty() && object::generation(stored) <= 1);
    if !follows {
        return None;
    }
    let mut spec = wanted.get("spec").cloned().unwrap_or_default();
    // How much of its shares the exempt level lends is the administrator's.
    if text(wanted, "/spec/type") == "Exempt"
        && let Some(own) = stored.pointer("/spec/exempt")
    {
        object::set_at(&mut spec, "exempt", own.clone());
    }
    if stored.get("spec") == Some(&spec) && asked == "true" {
        return None;
    }
    let mut new = stored.clone();
    object::set_at(&mut new, "spec", spec);
    object::set_annotation(&mut new, AUTOUPDATE, "true");
    Some(new)
}

/// The conditions of a schema.
pub(crate) fn conditions(schema: &Value) -> impl Iterator<Item = &Value> {
    schema.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten()
}

/// The condition that says whether a schema's level is missing; `None`: it is told already.
pub(crate) fn dangling(schema: &Value, levels: impl Fn(&str) -> bool) -> Option<Value> {
    let level = text(schema, "/spec/priorityLevelConfiguration/name");
    let about = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = if levels(level) {
        ("False", "Found", format!("{about} and it exists"))
    } else {
        ("True", "NotFound", format!("{about} but there is no such object"))
    };
    let told = conditions(schema).find(|condition| text(condition, "/type") == "Dangling");
    let same = told.is_some_and(|c| (text(c, "/status"), text(c, "/message")) == (status, message.as_str()));
    (!same).then(|| {
        let now = object::format_time(jiff::Timestamp::now());
        json!({"type": "Dangling", "status": status, "reason": reason, "message": message, "lastTransitionTime": now})
    })
}

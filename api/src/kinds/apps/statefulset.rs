//! StatefulSet: pods with names, an order and claims of their own.

use std::collections::HashMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::{Value, json};

use super::template;
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::core::persistentvolumeclaim as claim;
use crate::kinds::tree::{carry, fill, int, list, list_mut, object, set, some, split_status, text};
use crate::meta::{self, names, push_all};
use crate::resource::{Descriptor, Idle};
use crate::strategy::{NameRule, Part, Strategy};

/// What an update may change of the spec.
const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];
/// Where the claims are that each pod gets.
const CLAIMS: &str = "/spec/volumeClaimTemplates";
const IMMUTABLE: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                         'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                         'minReadySeconds' are forbidden";

pub fn descriptor() -> Descriptor {
    let mut columns = vec![
        cells::name(),
        column("Ready", "string", "Number of the pod with ready state", |o, _| {
            let count = |pointer| int(o, pointer).unwrap_or_default();
            json!(format!("{}/{}", count("/status/readyReplicas"), count("/spec/replicas")))
        }),
        cells::age(),
    ];
    columns.extend(cells::containers());
    Descriptor::of::<StatefulSet>()
        .idle(Idle::Yet)
        .short(&["sts"])
        .categories(&["all"])
        .status()
        .scale(".spec.replicas", ".status.replicas", Some(".spec.selector"))
        .columns(columns)
        .strategy(StatefulSetStrategy)
}

#[derive(Debug)]
struct StatefulSetStrategy;

impl Strategy for StatefulSetStrategy {
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"replicas": 0, "availableReplicas": 0}));
    }

    fn default(&self, set: &mut Value) {
        let Some(spec) = object(set, "spec") else { return };
        fill(spec, "podManagementPolicy", "OrderedReady");
        if let Some(strategy) = object(spec, "updateStrategy") {
            default_strategy(strategy);
        }
        if let Some(policy) = object(spec, "persistentVolumeClaimRetentionPolicy") {
            fill(policy, "whenDeleted", "Retain");
            fill(policy, "whenScaled", "Retain");
        }
        fill(spec, "replicas", 1);
        fill(spec, "revisionHistoryLimit", 10);
        template::default(spec);
        for template in list_mut(spec, "volumeClaimTemplates").filter(|template| template.is_object()) {
            fill(template, "apiVersion", "v1");
            fill(template, "kind", "PersistentVolumeClaim");
            claim::default(template);
        }
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        validate_policies(object, errors);
        for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
            template::non_negative(object, &Path::new("spec"), field, errors);
        }
        if let Some(start) = int(object, "/spec/ordinals/start").filter(|start| *start < 0) {
            let path = Path::new("spec").child("ordinals").child("start");
            errors.invalid(&path, &json!(start), "must be greater than or equal to 0");
        }
        if !template::validate_own_selector(object, "empty selector is invalid for statefulset", errors) {
            let selector = some(object, "/spec/selector").unwrap_or(&Value::Null);
            errors.invalid(&Path::new("spec").child("selector"), selector, "");
        } else if some(object, "/spec/selector").is_some() {
            template::validate_selected(object, errors);
        }
        let path = Path::new("spec");
        let service = text(object, "/spec/serviceName");
        if !service.is_empty() {
            push_all(errors, &path.child("serviceName"), service, names::dns1123_label(service));
        }
        let pod = with_claims(object);
        template::validate_template(&pod, &path.child("template"), errors);
        template::validate_endless(&pod, "StatefulSet", &path.child("template"), errors);
        for (index, template) in list(object, CLAIMS).iter().enumerate() {
            let path = path.child("volumeClaimTemplates").index(index).child("spec");
            claim::validate_spec(template.get("spec").unwrap_or(&Value::Null), &path, errors);
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Status {
            return validate_status(new, old, errors);
        }
        errors.judge_change(new, old, |set, errors| self.validate(set, errors));
        let (Some(spec), Some(old_spec)) = (new.get("spec"), old.get("spec")) else { return };
        let mut as_if = spec.clone();
        for field in MUTABLE {
            carry(&mut as_if, old_spec, field);
        }
        if !meta::same(Some(&as_if), Some(old_spec)) {
            errors.forbidden(&Path::new("spec"), IMMUTABLE);
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        template::warnings(object)
    }

    fn update_warnings(&self, new: &Value, old: &Value) -> Vec<String> {
        if template::is_new(new, old) { self.warnings(new) } else { Vec::new() }
    }

    /// Pods are called after it.
    fn name_rule(&self) -> NameRule {
        NameRule::DnsLabel
    }
}

/// The template with the volumes that each pod gets of its own, in place of those of the same names.
fn with_claims(object: &Value) -> Value {
    let mut template = object.pointer("/spec/template").cloned().unwrap_or_default();
    let claims = list(object, CLAIMS);
    if claims.is_empty() {
        return template;
    }
    if let Some(spec) = self::object(&mut template, "spec") {
        let mut volumes = list(spec, "/volumes").to_vec();
        let mut places = HashMap::new();
        for (place, volume) in volumes.iter().enumerate() {
            places.entry(text(volume, "/name").to_owned()).or_insert(place);
        }
        for name in claims.iter().map(|claim| text(claim, "/metadata/name")) {
            let volume = json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
            let place = *places.entry(name.to_owned()).or_insert(volumes.len());
            match volumes.get_mut(place) {
                Some(known) => *known = volume,
                None => volumes.push(volume),
            }
        }
        set(spec, "volumes", volumes);
    }
    template
}

/// Who names the strategy and nothing of it leaves it at that.
fn default_strategy(strategy: &mut Value) {
    if text(strategy, "/type").is_empty() {
        set(strategy, "type", "RollingUpdate");
        object(strategy, "rollingUpdate");
    }
    if text(strategy, "/type") == "RollingUpdate"
        && let Some(rolling) = strategy.get_mut("rollingUpdate").filter(|rolling| rolling.is_object())
    {
        fill(rolling, "partition", 0);
        fill(rolling, "maxUnavailable", 1);
    }
}

fn validate_policies(object: &Value, errors: &mut ErrorList) {
    let spec = Path::new("spec");
    let path = spec.child("podManagementPolicy");
    match text(object, "/spec/podManagementPolicy") {
        "" => errors.required(&path, ""),
        "OrderedReady" | "Parallel" => {}
        other => errors.invalid(&path, &json!(other), "must be 'OrderedReady' or 'Parallel'"),
    }
    let path = spec.child("updateStrategy");
    let rolling = some(object, "/spec/updateStrategy/rollingUpdate");
    match (text(object, "/spec/updateStrategy/type"), rolling) {
        ("", _) => errors.required(&path, ""),
        ("OnDelete", Some(rolling)) => {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            errors.invalid(&path.child("rollingUpdate"), rolling, why);
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        ("RollingUpdate", Some(rolling)) => validate_rolling(rolling, &path.child("rollingUpdate"), errors),
        _ => {
            let strategy = some(object, "/spec/updateStrategy").unwrap_or(&Value::Null);
            errors.invalid(&path, strategy, "must be 'RollingUpdate' or 'OnDelete'");
        }
    }
    let path = spec.child("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        let policy = text(object, &format!("/{}/{field}", path.to_string().replace('.', "/")));
        if !policy.is_empty() && !["Retain", "Delete"].contains(&policy) {
            errors.not_supported(&path.child(field), policy, &["Retain", "Delete"]);
        }
    }
}

fn validate_rolling(rolling: &Value, path: &Path, errors: &mut ErrorList) {
    if let Some(partition) = int(rolling, "/partition").filter(|partition| *partition < 0) {
        errors.invalid(&path.child("partition"), &json!(partition), "must be greater than or equal to 0");
    }
    if some(rolling, "/maxUnavailable").is_some() {
        if template::int_or_percent(rolling, "maxUnavailable", path, errors) == Some(0) {
            errors.invalid(&path.child("maxUnavailable"), &json!(0), "cannot be 0");
        }
        template::at_most_all(rolling, "maxUnavailable", path, errors);
    }
}

fn validate_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    let parts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    template::validate_counts(new, "replicas", &parts, errors);
    template::validate_available(new, "cannot be greater than status.readyReplicas", errors);
    template::validate_collisions(new, old, errors);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> Value {
        let mut set = json!({"spec": {"serviceName": "web", "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}}]}});
        StatefulSetStrategy.default(&mut set);
        set
    }

    fn complaints(new: &Value, old: &Value) -> Vec<String> {
        let mut errors = ErrorList::default();
        StatefulSetStrategy.validate_update(new, old, Part::Main, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn order_rolling_updates_and_kept_claims_are_the_default() {
        let set = web();
        let spec = &set["spec"];
        assert_eq!(spec["podManagementPolicy"], "OrderedReady");
        let rolling = json!({"partition": 0, "maxUnavailable": 1});
        assert_eq!(spec["updateStrategy"], json!({"type": "RollingUpdate", "rollingUpdate": rolling}));
        let mut named = json!({"spec": {"updateStrategy": {"type": "RollingUpdate"}}});
        StatefulSetStrategy.default(&mut named);
        assert_eq!(named["spec"]["updateStrategy"], json!({"type": "RollingUpdate"}));
        assert_eq!(
            spec["persistentVolumeClaimRetentionPolicy"],
            json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
        );
        let claim = &spec["volumeClaimTemplates"][0];
        assert_eq!(
            (&claim["kind"], &claim["spec"]["volumeMode"], &claim["status"]["phase"]),
            (&json!("PersistentVolumeClaim"), &json!("Filesystem"), &json!("Pending"))
        );
        assert_eq!(complaints(&set, &set), Vec::<String>::new());
    }

    #[test]
    fn claims_and_service_stay_as_they_were_made() {
        let old = web();
        let mut new = old.clone();
        new["spec"]["replicas"] = json!(7);
        new["spec"]["ordinals"] = json!({"start": 2});
        assert_eq!(complaints(&new, &old), Vec::<String>::new());
        new["spec"]["serviceName"] = json!("other");
        assert_eq!(complaints(&new, &old), [format!("spec: Forbidden: {IMMUTABLE}")]);
    }

    #[test]
    fn its_pods_and_their_claims_are_judged_before_they_are_made() {
        let said = |change: &dyn Fn(&mut Value)| {
            let mut set = web();
            change(&mut set["spec"]);
            let mut errors = ErrorList::default();
            StatefulSetStrategy.validate(&set, &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let mount = |name: &str| json!([{"name": name, "mountPath": "/data"}]);
        let container = "/template/spec/containers/0";
        let with = |spec: &mut Value, field: &str, value: Value| spec.pointer_mut(container).unwrap()[field] = value;
        assert_eq!(said(&|spec| with(spec, "volumeMounts", mount("data"))), Vec::<String>::new());
        assert_eq!(
            said(&|spec| with(spec, "volumeMounts", mount("other"))),
            ["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"other\""]
        );
        let broken = json!([{"name": "data", "nfs": {}}]);
        assert_eq!(
            said(&|spec| spec["template"]["spec"]["volumes"] = broken.clone()),
            Vec::<String>::new(),
            "it is replaced"
        );
        assert_eq!(
            said(&|spec| spec["volumeClaimTemplates"][0]["spec"] = json!({"accessModes": ["ReadWriteOnce"]})),
            ["spec.volumeClaimTemplates[0].spec.resources[storage]: Required value"]
        );
        let service = said(&|spec| spec["serviceName"] = json!("a.b"));
        assert!(
            service.len() == 1 && service[0].starts_with("spec.serviceName: Invalid value: \"a.b\": "),
            "{service:?}"
        );
        let annotated = said(&|spec| {
            spec["template"]["metadata"]["annotations"] = json!({"controller.kubernetes.io/pod-deletion-cost": "much"});
        });
        assert_eq!(
            annotated,
            [
                "spec.template.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"much\": must be a \
              32bit integer"
            ]
        );
        assert_eq!(StatefulSetStrategy.name_rule(), NameRule::DnsLabel);
    }

    #[test]
    fn a_policy_is_one_of_two() {
        let mut set = web();
        set["spec"]["podManagementPolicy"] = json!("Random");
        set["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"] = json!("Keep");
        let mut errors = ErrorList::default();
        StatefulSetStrategy.validate(&set, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "spec.podManagementPolicy: Invalid value: \"Random\": must be 'OrderedReady' or 'Parallel'",
                "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"Keep\": supported values: \
                 \"Retain\", \"Delete\""
            ]
        );
    }
}

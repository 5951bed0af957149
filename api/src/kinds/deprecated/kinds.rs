//! What single kinds warn of.

use serde_json::Value;

use super::{fractional, node_label, node_term, storage_annotation, volume};
use crate::field::Path;
use crate::kinds::core::addresses::{warn_of_ip, warn_of_ips, warn_of_range};
use crate::kinds::tree::{list, map, some, text};

const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";

fn annotated(object: &Value, key: &str) -> bool {
    object.pointer("/metadata/annotations").is_some_and(|annotations| annotations.get(key).is_some())
}

pub(crate) fn of_service(service: &Value) -> Vec<String> {
    let mut all = Vec::new();
    if annotated(service, HINTS) {
        all.push(format!("annotation {HINTS} is deprecated, please use service.kubernetes.io/topology-mode instead"));
    }
    let kind = text(service, "/spec/type");
    let headless = kind == "ClusterIP" && text(service, "/spec/clusterIP") == "None";
    let external = !list(service, "/spec/externalIPs").is_empty();
    let mut say = |when: bool, what: &str| {
        if when {
            all.push(what.to_owned());
        }
    };
    if headless {
        let ip = text(service, "/spec/loadBalancerIP");
        say(!ip.is_empty(), "spec.loadBalancerIP is ignored for headless services");
        say(external, "spec.externalIPs is ignored for headless services");
        let affinity = !matches!(text(service, "/spec/sessionAffinity"), "" | "None");
        say(affinity, "spec.SessionAffinity is ignored for headless services");
    }
    let named = kind == "ExternalName";
    say(
        external && !headless && !named,
        "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
    );
    say(external && named, "spec.externalIPs is ignored when spec.type is \"ExternalName\"");
    let name = !text(service, "/spec/externalName").is_empty();
    say(name && !named, "spec.externalName is ignored when spec.type is not \"ExternalName\"");
    let near = text(service, "/spec/trafficDistribution") == "PreferClose";
    say(near, "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"");
    addresses_of(service, &mut all);
    all
}

fn addresses_of(service: &Value, all: &mut Vec<String>) {
    let spec = Path::new("spec");
    for field in ["clusterIPs", "externalIPs"] {
        all.extend(warn_of_ips(list(service, &format!("/spec/{field}")), &spec.child(field)));
    }
    all.extend(warn_of_ip(text(service, "/spec/loadBalancerIP"), &spec.child("loadBalancerIP")));
    let (ranges, path) = (list(service, "/spec/loadBalancerSourceRanges"), spec.child("loadBalancerSourceRanges"));
    let ranges = ranges.iter().filter_map(Value::as_str).enumerate();
    all.extend(ranges.filter_map(|(index, range)| warn_of_range(range.trim(), &path.index(index))));
}

pub(crate) fn of_volume(persistent: &Value) -> Vec<String> {
    let (mut all, spec) = (Vec::new(), Path::new("spec"));
    storage_annotation(persistent, &mut all);
    if text(persistent, "/spec/persistentVolumeReclaimPolicy") == "Recycle" {
        let path = spec.child("persistentVolumeReclaimPolicy");
        all.push(format!(
            "{path}: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic \
             provisioning."
        ));
    }
    let path = spec.child("nodeAffinity").child("required").child("nodeSelectorTerms");
    for (index, term) in list(persistent, "/spec/nodeAffinity/required/nodeSelectorTerms").iter().enumerate() {
        node_term(term, &path.index(index), false, &mut all);
    }
    let of_spec = persistent.get("spec").unwrap_or(&Value::Null);
    volume(of_spec, &spec, &mut all);
    let capacity = of_spec.get("capacity").unwrap_or(&Value::Null);
    fractional(capacity, "storage", &spec.child("capacity"), &mut all);
    all
}

pub(crate) fn of_volume_claim(claim: &Value) -> Vec<String> {
    let (mut all, path) = (Vec::new(), Path::new("spec").child("resources"));
    storage_annotation(claim, &mut all);
    for field in ["requests", "limits"] {
        let amounts = claim.pointer(&format!("/spec/resources/{field}")).unwrap_or(&Value::Null);
        fractional(amounts, "storage", &path.child(field), &mut all);
    }
    all
}

pub(crate) fn of_storage_class(class: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for (index, topology) in list(class, "/allowedTopologies").iter().enumerate() {
        let path = Path::new("allowedTopologies").index(index).child("matchLabelExpressions");
        for (index, expression) in list(topology, "/matchLabelExpressions").iter().enumerate() {
            let said = node_label(text(expression, "/key"));
            all.extend(said.map(|said| format!("{}: {said}", path.index(index))));
        }
    }
    all
}

pub(crate) fn of_storage_capacity(capacity: &Value) -> Vec<String> {
    let (mut all, path) = (Vec::new(), Path::new("nodeTopology"));
    node_term(capacity.get("nodeTopology").unwrap_or(&Value::Null), &path, false, &mut all);
    let labels = map(capacity, "/nodeTopology/matchLabels").filter_map(|(key, _)| Some((key, node_label(key)?)));
    all.extend(labels.map(|(key, said)| format!("{}: {said}", path.child("matchLabels").child(key))));
    all
}

pub(crate) fn of_runtime_class(class: &Value) -> Vec<String> {
    let labels = map(class, "/scheduling/nodeSelector").filter_map(|(key, _)| node_label(key));
    labels.map(|said| format!("scheduling.nodeSelector: {said}")).collect()
}

pub(crate) fn of_node(node: &Value) -> Vec<String> {
    let mut all = Vec::new();
    if some(node, "/spec/configSource").is_some() {
        all.push("spec.configSource: the feature is removed".to_owned());
    }
    if !text(node, "/spec/externalID").is_empty() {
        all.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
    }
    let ranges = list(node, "/spec/podCIDRs").iter().enumerate();
    all.extend(ranges.filter_map(|(index, range)| {
        warn_of_range(range.as_str()?, &Path::new("spec").child("podCIDRs").index(index))
    }));
    all
}

pub(crate) fn of_service_account(account: &Value) -> Vec<String> {
    let place = Path::new("metadata").child("annotations").key(MOUNTABLE);
    let said = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
    annotated(account, MOUNTABLE).then(|| format!("{place}: {said}")).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::STORAGE_CLASS;
    use super::*;

    fn of(kind: &str, object: Value) -> Vec<String> {
        let kinds = crate::kinds::all();
        let resource = kinds.iter().find(|resource| resource.kind == kind).unwrap();
        resource.strategy.warnings(&object)
    }

    #[test]
    fn every_kind_warns_of_what_is_on_its_way_out() {
        let annotated = |annotation: &str| json!({"name": "x", "annotations": {annotation: "y"}});
        for (kind, object, wanted) in [
            (
                "PersistentVolume",
                json!({"metadata": annotated(STORAGE_CLASS), "spec": {"persistentVolumeReclaimPolicy": "Recycle",
                    "capacity": {"storage": "1500m"}, "rbd": {},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                        {"key": "beta.kubernetes.io/os", "operator": "Exists"}]}]}}}}),
                vec![
                    "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead",
                    "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
                    "spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key: beta.kubernetes.io/os is deprecated since v1.14; use \"kubernetes.io/os\" instead",
                    "spec.rbd: deprecated in v1.28, non-functional in v1.31+",
                    "spec.capacity[storage]: fractional byte value \"1500m\" is invalid, must be an integer",
                ],
            ),
            (
                "PersistentVolumeClaim",
                json!({"metadata": annotated(STORAGE_CLASS), "spec": {"resources": {"requests": {"storage": "1m"}}}}),
                vec![
                    "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead",
                    "spec.resources.requests[storage]: fractional byte value \"1m\" is invalid, must be an integer",
                ],
            ),
            (
                "StorageClass",
                json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "beta.kubernetes.io/arch"}]}]}),
                vec![
                    "allowedTopologies[0].matchLabelExpressions[0]: deprecated since v1.14; use \"kubernetes.io/arch\" instead",
                ],
            ),
            (
                "CSIStorageCapacity",
                json!({"nodeTopology": {"matchLabels": {"beta.kubernetes.io/os": "linux"}}}),
                vec![
                    "nodeTopology.matchLabels.beta.kubernetes.io/os: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                ],
            ),
            (
                "RuntimeClass",
                json!({"scheduling": {"nodeSelector": {"node-role.kubernetes.io/master": ""}}}),
                vec!["scheduling.nodeSelector: use \"node-role.kubernetes.io/control-plane\" instead"],
            ),
            (
                "Node",
                json!({"spec": {"externalID": "x", "configSource": {}}}),
                vec![
                    "spec.configSource: the feature is removed",
                    "spec.externalID: this field is deprecated, and is unused by Kubernetes",
                ],
            ),
            (
                "ServiceAccount",
                json!({"metadata": annotated("kubernetes.io/enforce-mountable-secrets")}),
                vec![
                    "metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets",
                ],
            ),
            (
                "Service",
                json!({"metadata": annotated("service.kubernetes.io/topology-aware-hints"),
                    "spec": {"type": "ClusterIP", "externalIPs": ["1.2.3.4"], "externalName": "x", "trafficDistribution": "PreferClose"}}),
                vec![
                    "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead",
                    "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
                    "spec.externalName is ignored when spec.type is not \"ExternalName\"",
                    "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
                ],
            ),
            (
                "Service",
                json!({"spec": {"type": "ClusterIP", "clusterIP": "None", "sessionAffinity": "ClientIP", "loadBalancerIP": "1.1.1.1"}}),
                vec![
                    "spec.loadBalancerIP is ignored for headless services",
                    "spec.SessionAffinity is ignored for headless services",
                ],
            ),
        ] {
            assert_eq!(of(kind, object), wanted, "{kind}");
        }
    }
}

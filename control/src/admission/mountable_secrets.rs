//! A service account that says so (`kubernetes.io/enforce-mountable-secrets`) lets its pods use only the Secrets that it lists.
//!
//! What must stay true: every way in which a pod may name a Secret is looked at.

use serde_json::Value;
use wherry_api::object;

const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
/// Lists of containers, and what messages call one of them.
const CONTAINERS: [(&str, &str); 3] =
    [("initContainers", "init container"), ("containers", "container"), ("ephemeralContainers", "ephemeral container")];

/// Whether the account limits its pods; Go's booleans.
pub(super) fn limits(account: &Value) -> bool {
    matches!(object::annotation(account, ENFORCE), Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
}

fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// Error: which Secret a pod may not use.
pub(super) fn check(account: &Value, pod: &Value) -> Result<(), String> {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let owner = object::name(account);
    let named = |field: &str| -> Vec<&str> { list(account, field).iter().filter_map(|s| text(s, "/name")).collect() };
    let secrets = named("secrets");
    let refuse = |place: String, secret: &str| {
        Err(format!(
            "{place} secret.secretName={secret:?} is not allowed because service account {owner} does not reference that secret"
        ))
    };
    for volume in list(spec, "volumes") {
        if let Some(secret) = text(volume, "/secret/secretName").filter(|secret| !secrets.contains(secret)) {
            return refuse("volume with".to_owned(), secret);
        }
    }
    for (field, kind) in CONTAINERS {
        for container in list(spec, field) {
            let name = text(container, "/name").unwrap_or_default();
            for variable in list(container, "env") {
                let secret = text(variable, "/valueFrom/secretKeyRef/name");
                if let Some(secret) = secret.filter(|secret| !secrets.contains(secret)) {
                    let variable = text(variable, "/name").unwrap_or_default();
                    return refuse(format!("{kind} {name} with envVar {variable} referencing"), secret);
                }
            }
            for source in list(container, "envFrom") {
                if let Some(secret) = text(source, "/secretRef/name").filter(|secret| !secrets.contains(secret)) {
                    return refuse(format!("{kind} {name} with envFrom referencing"), secret);
                }
            }
        }
    }
    let pull = named("imagePullSecrets");
    for (at, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        if let Some(secret) = text(secret, "/name").filter(|secret| !pull.contains(secret)) {
            return Err(format!(
                "imagePullSecrets[{at}].name={secret:?} is not allowed because service account {owner} does not reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_the_account_lists_may_be_used() {
        let account = json!({"metadata": {"name": "robot", "annotations": {ENFORCE: "true"}},
            "secrets": [{"name": "mine"}], "imagePullSecrets": [{"name": "pull"}]});
        assert!(limits(&account) && !limits(&json!({"metadata": {"annotations": {ENFORCE: "no"}}})));
        let container = |more: Value| json!({"spec": {"containers": [{"name": "c", "env": more["env"], "envFrom": more["envFrom"]}]}});
        let key =
            |name: &str| json!({"env": [{"name": "V", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}]});
        for (pod, wanted) in [
            (json!({"spec": {"volumes": [{"secret": {"secretName": "mine"}}]}}), ""),
            (
                json!({"spec": {"volumes": [{"secret": {"secretName": "other"}}]}}),
                "volume with secret.secretName=\"other\" is not allowed because service account robot does not reference that secret",
            ),
            (container(key("mine")), ""),
            (container(key("other")), "container c with envVar V referencing secret.secretName=\"other\""),
            (
                container(json!({"envFrom": [{"secretRef": {"name": "other"}}]})),
                "container c with envFrom referencing secret.secretName=\"other\"",
            ),
            (json!({"spec": {"imagePullSecrets": [{"name": "pull"}]}}), ""),
            (
                json!({"spec": {"imagePullSecrets": [{"name": "mine"}]}}),
                "imagePullSecrets[0].name=\"mine\" is not allowed because service account robot does not reference that imagePullSecret",
            ),
        ] {
            let said = check(&account, &pod).err().unwrap_or_default();
            assert!(said.starts_with(wanted) && said.is_empty() == wanted.is_empty(), "{pod}: {said}");
        }
    }
}

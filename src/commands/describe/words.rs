//! Shapes that many kinds have in common, each on one line as `kubectl` writes them: selectors, ports, tolerations, mounts.
//!
//! What must stay true: something of which a line would not say everything is left as it is.

use serde_json::Value;
use wherry_api::kinds::core::podspec::access;
use wherry_api::object;

use crate::selector;

type Words = fn(&Value) -> Option<String>;

/// Lists by their names, and how their items are written.
const LISTS: [(&str, &[&str], Words); 9] = [
    ("addresses", &["address", "type"], address),
    ("hostIPs", &["ip"], |item| some(item, "ip")),
    ("imagePullSecrets", &["name"], |item| some(item, "name")),
    ("podIPs", &["ip"], |item| some(item, "ip")),
    ("ports", &["containerPort", "hostPort", "name", "nodePort", "port", "protocol", "targetPort"], port),
    ("taints", &["effect", "key", "timeAdded", "value"], taint),
    ("tolerations", &["effect", "key", "operator", "tolerationSeconds", "value"], toleration),
    ("volumeMounts", &["mountPath", "name", "readOnly", "subPath"], mount),
    ("volumes", &["name", "projected"], api_access),
];

/// Puts lines in the place of what can be said so, at any depth.
pub fn shorten(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| shorten_field(name, value)),
        Value::Array(items) => items.iter_mut().for_each(shorten),
        _ => {}
    }
}

fn shorten_field(name: &str, value: &mut Value) {
    let shape = LISTS.iter().find(|(list, ..)| *list == name);
    if let (Some((_, known, words)), Value::Array(items)) = (shape, &mut *value) {
        for item in items {
            match Some(&*item).filter(|item| has_only(item, known)).and_then(words) {
                Some(text) => *item = text.into(),
                None => shorten(item),
            }
        }
        return;
    }
    let selects =
        name.ends_with("elector") && (has_only(value, &["matchLabels", "matchExpressions"]) || is_texts(value));
    match Some(&*value).filter(|_| selects).and_then(selector::text) {
        Some(text) => *value = text.into(),
        None => shorten(value),
    }
}

fn has_only(value: &Value, known: &[&str]) -> bool {
    value.as_object().is_some_and(|fields| fields.keys().all(|field| known.contains(&field.as_str())))
}

fn is_texts(value: &Value) -> bool {
    value.as_object().is_some_and(|fields| fields.values().all(Value::is_string))
}

fn some(value: &Value, field: &str) -> Option<String> {
    Some(object::text_at(value, field)).filter(|text| !text.is_empty())
}

/// The field with something before it, or nothing.
fn after(before: &str, value: &Value, field: &str) -> String {
    some(value, field).map(|text| format!("{before}{text}")).unwrap_or_default()
}

/// `InternalIP 192.0.2.1`
fn address(address: &Value) -> Option<String> {
    Some(format!("{} {}", some(address, "type")?, some(address, "address")?))
}

/// `http 8080/TCP`, of a container, or `http 80/TCP to http, node port 30080`, of a Service.
fn port(port: &Value) -> Option<String> {
    let number = some(port, "containerPort").or_else(|| some(port, "port"))?;
    let rest = [("/", "protocol"), (" to ", "targetPort"), (", node port ", "nodePort"), (", host port ", "hostPort")];
    let rest = rest.map(|(before, field)| after(before, port, field)).concat();
    Some(format!("{} {number}{rest}", object::text_at(port, "name")).trim_start().to_owned())
}

/// `key=value:NoSchedule`
fn taint(taint: &Value) -> Option<String> {
    let rest = [("=", "value"), (":", "effect"), (" since ", "timeAdded")];
    Some(some(taint, "key")? + &rest.map(|(before, field)| after(before, taint, field)).concat())
}

/// `key=value:NoSchedule for 300 s`; without a value, whatever it is.
fn toleration(toleration: &Value) -> Option<String> {
    let operator = some(toleration, "operator");
    let key = match operator.as_deref() {
        Some("Exists") => some(toleration, "key").unwrap_or_else(|| "any taint".to_owned()),
        _ => some(toleration, "key")?,
    };
    let operator = operator.filter(|operator| !matches!(operator.as_str(), "Equal" | "Exists"));
    let operator = operator.map_or_else(|| "=".to_owned(), |operator| format!(" {operator} "));
    let rest = [(operator.as_str(), "value"), (":", "effect"), (" for ", "tolerationSeconds")];
    let seconds = if some(toleration, "tolerationSeconds").is_some() { " s" } else { "" };
    Some(key + &rest.map(|(before, field)| after(before, toleration, field)).concat() + seconds)
}

/// `/data from volume (ro)`
fn mount(mount: &Value) -> Option<String> {
    let read_only = if mount.get("readOnly") == Some(&Value::Bool(true)) { " (ro)" } else { "" };
    let (path, name) = (some(mount, "mountPath")?, some(mount, "name")?);
    Some(format!("{path} from {name}{}{read_only}", after(", path ", mount, "subPath")))
}

/// The volume that nearly every pod is given.
fn api_access(volume: &Value) -> Option<String> {
    let seconds = volume.pointer("/projected/sources/0/serviceAccountToken/expirationSeconds");
    let (name, seconds) = (some(volume, "name")?, seconds.filter(|_| access::is_access(volume))?);
    Some(format!("{name}: the service account's token ({seconds} s), the cluster's CA and the namespace"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_many_kinds_have_is_said_in_a_line() {
        for (field, given, line) in [
            ("ports", json!([{"name": "http", "containerPort": 8080, "protocol": "TCP"}]), json!(["http 8080/TCP"])),
            ("ports", json!([{"port": 9, "protocol": "UDP"}]), json!(["9/UDP"])),
            (
                "ports",
                json!([{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web", "nodePort": 30080}]),
                json!(["http 80/TCP to web, node port 30080"]),
            ),
            ("addresses", json!([{"type": "Hostname", "address": "boat"}]), json!(["Hostname boat"])),
            ("podIPs", json!([{"ip": "127.0.0.2"}]), json!(["127.0.0.2"])),
            ("taints", json!([{"key": "k", "value": "v", "effect": "NoSchedule"}]), json!(["k=v:NoSchedule"])),
            (
                "tolerations",
                json!([{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                    {"operator": "Exists"}, {"key": "k", "operator": "Gt", "value": "5"}]),
                json!(["k:NoExecute for 300 s", "any taint", "k Gt 5"]),
            ),
            (
                "volumeMounts",
                json!([{"name": "v", "mountPath": "/m", "subPath": "s"}, {"name": "w", "mountPath": "/n", "readOnly": true}]),
                json!(["/m from v, path s", "/n from w (ro)"]),
            ),
            ("selector", json!({"app": "web"}), json!("app=web")),
            ("podSelector", json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]}), json!("a")),
        ] {
            let mut value = json!({"deep": [{field: given}]});
            shorten(&mut value);
            assert_eq!(value["deep"][0][field], line, "{field}");
        }
    }

    #[test]
    fn the_volume_that_pods_are_given_is_told_in_a_line_if_it_is_just_that() {
        let given = access::new_volume("kube-api-access-x");
        let told = |volume: &Value| {
            let mut pod = json!({"volumes": [volume]});
            shorten(&mut pod);
            pod["volumes"][0].clone()
        };
        let words = "kube-api-access-x: the service account's token (3607 s), the cluster's CA and the namespace";
        assert_eq!(told(&given), words);
        let mut more = given.clone();
        more["projected"]["sources"].as_array_mut().unwrap().push(json!({"secret": {"name": "s"}}));
        let mut other = given;
        other["projected"]["sources"][0]["serviceAccountToken"]["audience"] = json!("vault");
        assert!(told(&more).is_object() && told(&other).is_object());
    }

    #[test]
    fn what_a_line_would_not_say_whole_stays() {
        for (field, given) in [
            ("ports", json!([{"port": 80, "colour": "red"}])),
            ("ports", json!([{"name": "a"}])),
            ("taints", json!([{"effect": "x"}])),
            ("volumes", json!([{"name": "v", "emptyDir": {}}])),
            ("podSelector", json!({})),
            ("selector", json!({"matchNames": ["a"]})),
            ("tolerations", json!("text")),
        ] {
            let mut value = json!({field: given});
            shorten(&mut value);
            assert_eq!(value[field], given, "{field}");
        }
    }
}

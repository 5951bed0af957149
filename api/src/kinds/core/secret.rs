//! Secret: bytes by key. `stringData` is a way to write them; it is never stored.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::data;
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::tree::{self, fill, map, remove, set, text};
use crate::meta;
use crate::resource::Descriptor;
use crate::strategy::{Part, Strategy};

pub fn descriptor() -> Descriptor {
    Descriptor::of::<Secret>()
        .columns(vec![
            cells::name(),
            column("Type", "string", "Used to facilitate programmatic handling of secret data.", |o, _| {
                json!(text(o, "/type"))
            }),
            column("Data", "string", "Data contains the secret data.", |o, _| json!(map(o, "/data").count())),
            cells::age(),
        ])
        .selectable(&["type"])
        .no_generation()
        .strategy(SecretStrategy)
}

#[derive(Debug)]
struct SecretStrategy;

impl Strategy for SecretStrategy {
    fn default(&self, object: &mut Value) {
        fill(object, "type", "Opaque");
        let Some(plain) = remove(object, "stringData") else { return };
        let encoded: Vec<(String, String)> =
            map(&plain, "").map(|(k, v)| (k.clone(), STANDARD.encode(v.as_str().unwrap_or_default()))).collect();
        if encoded.is_empty() {
            return;
        }
        if let Some(data) = tree::object(object, "data") {
            for (key, value) in encoded {
                set(data, &key, value);
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        let path = Path::new("data");
        let mut size = 0;
        for (key, value) in map(object, "/data") {
            data::validate_key(key, &path, errors);
            size += data::decoded_len(value);
        }
        if size > data::MAX_TOTAL {
            errors.too_long(&path, data::MAX_TOTAL);
        }
        validate_type(object, &path, errors);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, _part: Part) {
        if text(new, "/type").is_empty() {
            tree::carry(new, old, "type");
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part, errors: &mut ErrorList) {
        meta::immutable(new.get("type"), old.get("type"), &Path::new("type"), errors);
        data::validate_immutable(new, old, &["data"], errors);
        self.validate(new, errors);
    }
}

/// The keys that a type demands.
fn validate_type(secret: &Value, data: &Path, errors: &mut ErrorList) {
    let has = |key: &str| secret.get("data").is_some_and(|d| d.get(key).is_some());
    let require = |key: &str, errors: &mut ErrorList| {
        if !has(key) {
            errors.required(&data.key(key), "");
        }
    };
    let account = text(secret, "/metadata/annotations/kubernetes.io~1service-account.name");
    match text(secret, "/type") {
        "kubernetes.io/service-account-token" if account.is_empty() => {
            let path = Path::new("metadata").child("annotations").key("kubernetes.io/service-account.name");
            errors.required(&path, "");
        }
        "kubernetes.io/dockercfg" => json_value(secret, ".dockercfg", data, errors),
        "kubernetes.io/dockerconfigjson" => json_value(secret, ".dockerconfigjson", data, errors),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            require("username", errors);
            require("password", errors);
        }
        "kubernetes.io/ssh-auth" if text(secret, "/data/ssh-privatekey").is_empty() => {
            errors.required(&data.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            require("tls.crt", errors);
            require("tls.key", errors);
        }
        _ => {}
    }
}

fn json_value(secret: &Value, key: &str, data: &Path, errors: &mut ErrorList) {
    let path = data.key(key);
    let Some(encoded) = secret.get("data").and_then(|d| d.get(key)).and_then(Value::as_str) else {
        return errors.required(&path, "");
    };
    let bytes = STANDARD.decode(encoded).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes) {
        errors.invalid(&path, &json!("<secret contents redacted>"), &error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(object: &Value) -> Vec<String> {
        let mut errors = ErrorList::default();
        SecretStrategy.validate(object, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn plain_strings_become_data_and_win() {
        let mut secret = json!({"data": {"a": "b2xk", "b": "Yg=="}, "stringData": {"a": "new"}});
        SecretStrategy.default(&mut secret);
        assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "bmV3", "b": "Yg=="}}));
    }

    #[test]
    fn a_type_demands_its_keys() {
        assert_eq!(
            complaints(&json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}})),
            ["data[tls.key]: Required value"]
        );
        assert_eq!(complaints(&json!({"type": "kubernetes.io/basic-auth"})).len(), 2);
        let pull = json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "e30="}});
        assert!(complaints(&pull).is_empty());
        let broken = json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "e3t7"}});
        assert!(
            complaints(&broken)[0]
                .starts_with("data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": ")
        );
    }

    #[test]
    fn the_type_never_changes() {
        let old = json!({"type": "Opaque"});
        let mut errors = ErrorList::default();
        SecretStrategy.validate_update(&json!({"type": "mine"}), &old, Part::Main, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["type: Invalid value: \"mine\": field is immutable"]
        );
    }
}

//! ConfigMap.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::data;
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::tree::map;
use crate::resource::Descriptor;
use crate::strategy::{Part, Strategy};

pub fn descriptor() -> Descriptor {
    Descriptor::of::<ConfigMap>()
        .short(&["cm"])
        .columns(vec![
            cells::name(),
            column("Data", "string", "Data contains the configuration data.", |o, _| {
                json!(map(o, "/data").count() + map(o, "/binaryData").count())
            }),
            cells::age(),
        ])
        .no_generation()
        .strategy(ConfigMapStrategy)
}

#[derive(Debug)]
struct ConfigMapStrategy;

impl Strategy for ConfigMapStrategy {
    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        let mut size = 0;
        for (key, value) in map(object, "/data") {
            data::validate_key(key, &Path::new("data"), errors);
            if object.pointer("/binaryData").is_some_and(|b| b.get(key).is_some()) {
                errors.invalid(&Path::new("data").key(key), &json!(key), "duplicate of key present in binaryData");
            }
            size += value.as_str().map_or(0, str::len);
        }
        for (key, value) in map(object, "/binaryData") {
            data::validate_key(key, &Path::new("binaryData"), errors);
            size += data::decoded_len(value);
        }
        if size > data::MAX_TOTAL {
            errors.too_long(&Path::new("[]"), data::MAX_TOTAL);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part, errors: &mut ErrorList) {
        data::validate_immutable(new, old, &["data", "binaryData"], errors);
        self.validate(new, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(object: &Value) -> Vec<String> {
        let mut errors = ErrorList::default();
        ConfigMapStrategy.validate(object, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_key_is_a_file_name_in_one_of_the_maps() {
        assert!(complaints(&json!({"data": {"a.txt": "x"}, "binaryData": {"b": "AAAA"}})).is_empty());
        let both = complaints(&json!({"data": {"a": "x"}, "binaryData": {"a": "AAAA"}}));
        assert_eq!(both, ["data[a]: Invalid value: \"a\": duplicate of key present in binaryData"]);
        assert_eq!(complaints(&json!({"data": {"a/b": "x"}})).len(), 1);
    }

    #[test]
    fn a_mebibyte_is_the_most() {
        let too_much = complaints(&json!({"data": {"a": "x".repeat(data::MAX_TOTAL), "b": "y"}}));
        assert_eq!(too_much, ["[]: Too long: may not be more than 1048576 bytes"]);
    }

    #[test]
    fn what_is_immutable_stays() {
        let old = json!({"immutable": true, "data": {"a": "x"}});
        let mut errors = ErrorList::default();
        ConfigMapStrategy.validate_update(&json!({"data": {"a": "y"}}), &old, Part::Main, &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set"
            ]
        );
    }
}

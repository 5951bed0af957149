//! StorageClass: how volumes of a kind are made. What it makes never changes.

use std::collections::HashSet;

use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::names;
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::check::{no_duplicates, one_of, required_one_of, strings};
use crate::kinds::deprecated;
use crate::kinds::tree::{fill, is_true, list, text};
use crate::meta::{self, push_all, same};
use crate::object::annotation;
use crate::resource::{Cell, Column, Descriptor};
use crate::strategy::{Part, Strategy};

/// Annotations that mark the default class, the older one included.
const DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

pub fn descriptor() -> Descriptor {
    Descriptor::of::<StorageClass>()
        .short(&["sc"])
        .columns(vec![
            marked_name(),
            column("Provisioner", "string", "Provisioner indicates the type of the provisioner.", |o, _| {
                json!(text(o, "/provisioner"))
            }),
            column("ReclaimPolicy", "string", "What becomes of a volume that is released.", |o, _| {
                json!(text(o, "/reclaimPolicy"))
            }),
            column("VolumeBindingMode", "string", "When volumes are provisioned and bound.", |o, _| {
                json!(text(o, "/volumeBindingMode"))
            }),
            column("AllowVolumeExpansion", "string", "Whether volumes may grow.", |o, _| {
                json!(is_true(o, "/allowVolumeExpansion"))
            }),
            cells::age(),
        ])
        .no_generation()
        .strategy(StorageClassStrategy)
}

/// The name, with a mark on the class that is used where none is named.
fn marked_name() -> Column {
    let mut name = cells::name();
    name.cell = Cell::Of(|o, _| {
        let default = DEFAULT.iter().any(|note| annotation(o, note) == Some("true"));
        let name = text(o, "/metadata/name");
        json!(if default { format!("{name} (default)") } else { name.to_owned() })
    });
    name
}

#[derive(Debug)]
struct StorageClassStrategy;

impl Strategy for StorageClassStrategy {
    fn warnings(&self, object: &Value) -> Vec<String> {
        deprecated::of_storage_class(object)
    }

    fn default(&self, class: &mut Value) {
        fill(class, "reclaimPolicy", "Delete");
        fill(class, "volumeBindingMode", "Immediate");
    }

    fn validate(&self, class: &Value, errors: &mut ErrorList) {
        names::provisioner(text(class, "/provisioner"), &Path::new("provisioner"), errors);
        names::parameters(class, &Path::new("parameters"), errors);
        one_of(class, "reclaimPolicy", &Path::default(), &["Delete", "Retain"], errors);
        let modes = &["Immediate", "WaitForFirstConsumer"];
        required_one_of(class, "volumeBindingMode", &Path::default(), modes, errors);
        topologies(list(class, "/allowedTopologies"), &Path::new("allowedTopologies"), errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part, errors: &mut ErrorList) {
        for field in ["parameters", "provisioner", "reclaimPolicy"] {
            if !same(new.get(field), old.get(field)) {
                errors.forbidden(&Path::new(field), &format!("updates to {field} are forbidden."));
            }
        }
        let mode = Path::new("volumeBindingMode");
        meta::immutable(new.get("volumeBindingMode"), old.get("volumeBindingMode"), &mode, errors);
        topologies(list(new, "/allowedTopologies"), &Path::new("allowedTopologies"), errors);
    }
}

fn topologies(terms: &[Value], path: &Path, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for (index, term) in terms.iter().enumerate() {
        if !seen.insert(term) {
            errors.duplicate(&path.index(index).child("matchLabelExpressions"), &json!(""));
        }
        let expressions = list(term, "/matchLabelExpressions");
        for (at, expression) in expressions.iter().enumerate() {
            let path = path.index(index).child("matchLabelExpressions").index(at);
            let key = text(expression, "/key");
            let values = strings(expression, "/values");
            if values.is_empty() {
                errors.required(&path.child("values"), "");
            }
            no_duplicates(&values, &path.child("values"), errors);
            push_all(errors, &path.child("key"), key, meta::names::qualified_name(key));
            if expressions.iter().take(at).any(|earlier| text(earlier, "/key") == key) {
                errors.duplicate(&path.child("key"), &json!(key));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    #[test]
    fn what_a_class_makes_never_changes() {
        let old = json!({"provisioner": "a/b", "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"});
        let mut new = old.clone();
        new["allowVolumeExpansion"] = json!(true);
        assert!(complaints(|e| StorageClassStrategy.validate_update(&new, &old, Part::Main, e)).is_empty());
        new["provisioner"] = json!("c/d");
        new["parameters"] = json!({"a": "b"});
        new["volumeBindingMode"] = json!("WaitForFirstConsumer");
        assert_eq!(
            complaints(|e| StorageClassStrategy.validate_update(&new, &old, Part::Main, e)),
            [
                "parameters: Forbidden: updates to parameters are forbidden.",
                "provisioner: Forbidden: updates to provisioner are forbidden.",
                "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable",
            ]
        );
    }

    #[test]
    fn a_topology_has_keys_and_values() {
        let class = |expressions: Value| {
            let mut class =
                json!({"provisioner": "a/b", "allowedTopologies": [{"matchLabelExpressions": expressions}]});
            StorageClassStrategy.default(&mut class);
            complaints(|errors| StorageClassStrategy.validate(&class, errors))
        };
        assert!(class(json!([{"key": "zone", "values": ["a", "b"]}])).is_empty());
        assert_eq!(
            class(json!([{"key": "zone", "values": ["a", "a"]}, {"key": "zone"}])),
            [
                "allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: \"a\"",
                "allowedTopologies[0].matchLabelExpressions[1].values: Required value",
                "allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: \"zone\"",
            ]
        );
    }

    #[test]
    fn the_default_class_is_marked_by_either_annotation() {
        let columns = descriptor().columns;
        let Some(Cell::Of(cell)) = columns.first().map(|column| &column.cell) else { panic!("no cell") };
        let named = |note: &str, value: &str| {
            let mut class = json!({"metadata": {"name": "fast", "annotations": {}}});
            class["metadata"]["annotations"][note] = json!(value);
            cell(&class, jiff::Timestamp::UNIX_EPOCH)
        };
        for note in DEFAULT {
            assert_eq!((named(note, "true"), named(note, "yes")), (json!("fast (default)"), json!("fast")), "{note}");
        }
    }
}

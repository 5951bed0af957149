//! CSIStorageCapacity: how much of a class a part of the cluster can still have.

use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::apps::template::validate_selector;
use crate::kinds::cells::{self, column};
use crate::kinds::check::subdomain;
use crate::kinds::deprecated;
use crate::kinds::tree::{some, text};
use crate::meta;
use crate::quantity::Quantity;
use crate::resource::{Descriptor, Idle};
use crate::strategy::{Part, Strategy};

pub fn descriptor() -> Descriptor {
    Descriptor::of::<CSIStorageCapacity>()
        .idle(Idle::Yet)
        .columns(vec![
            cells::name(),
            column("StorageClassName", "string", "The name of the StorageClass that this is about.", |o, _| {
                json!(text(o, "/storageClassName"))
            }),
            column("Capacity", "string", "How much is left.", |o, _| {
                let capacity = text(o, "/capacity");
                json!(if capacity.is_empty() { "<unset>" } else { capacity })
            }),
        ])
        .no_generation()
        .conditional()
        .strategy(CsiStorageCapacityStrategy)
}

#[derive(Debug)]
struct CsiStorageCapacityStrategy;

impl Strategy for CsiStorageCapacityStrategy {
    fn warnings(&self, object: &Value) -> Vec<String> {
        deprecated::of_storage_capacity(object)
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        if let Some(selector) = some(object, "/nodeTopology") {
            validate_selector(selector, &Path::new("nodeTopology"), errors);
        }
        subdomain(object, "storageClassName", &Path::default(), errors);
        for field in ["capacity", "maximumVolumeSize"] {
            let Some(amount) = some(object, &format!("/{field}")) else { continue };
            let negative = amount.as_str().and_then(|t| t.parse::<Quantity>().ok()).is_some_and(Quantity::is_negative);
            if negative {
                errors.invalid(&Path::new(field), amount, "must be greater than or equal to 0");
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part, errors: &mut ErrorList) {
        self.validate(new, errors);
        for field in ["nodeTopology", "storageClassName"] {
            meta::immutable(new.get(field), old.get(field), &Path::new(field), errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    #[test]
    fn a_capacity_is_of_one_class_and_not_negative() {
        let judge = |object: Value| complaints(|errors| CsiStorageCapacityStrategy.validate(&object, errors));
        assert!(judge(json!({"storageClassName": "a", "capacity": "1Gi", "nodeTopology": {}})).is_empty());
        assert_eq!(
            judge(json!({"capacity": "-1"})),
            ["storageClassName: Required value", "capacity: Invalid value: \"-1\": must be greater than or equal to 0"]
        );
        let (old, new) = (json!({"storageClassName": "a"}), json!({"storageClassName": "b"}));
        assert_eq!(
            complaints(|e| CsiStorageCapacityStrategy.validate_update(&new, &old, Part::Main, e)),
            ["storageClassName: Invalid value: \"b\": field is immutable"]
        );
    }
}

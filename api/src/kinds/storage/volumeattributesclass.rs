//! VolumeAttributesClass: attributes of a volume that a driver can change while it is used.

use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use serde_json::{Value, json};

use super::names;
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::tree::{map, text};
use crate::meta::same;
use crate::resource::{Descriptor, Idle};
use crate::strategy::{Part, Strategy};

pub fn descriptor() -> Descriptor {
    Descriptor::of::<VolumeAttributesClass>()
        .idle(Idle::Yet)
        .short(&["vac"])
        .columns(vec![
            cells::name(),
            column("DriverName", "string", "Name of the CSI driver", |o, _| json!(text(o, "/driverName"))),
            cells::age(),
        ])
        .no_generation()
        .strategy(VolumeAttributesClassStrategy)
}

#[derive(Debug)]
struct VolumeAttributesClassStrategy;

impl Strategy for VolumeAttributesClassStrategy {
    fn validate(&self, class: &Value, errors: &mut ErrorList) {
        names::provisioner(text(class, "/driverName"), &Path::new("driverName"), errors);
        if map(class, "/parameters").next().is_none() {
            errors.required(&Path::new("parameters"), "must contain at least one key/value pair");
        }
        names::parameters(class, &Path::new("parameters"), errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part, errors: &mut ErrorList) {
        for field in ["driverName", "parameters"] {
            if !same(new.get(field), old.get(field)) {
                errors.forbidden(&Path::new(field), &format!("updates to {field} are forbidden."));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    #[test]
    fn a_class_is_written_once() {
        let class = json!({"driverName": "csi.example.com", "parameters": {"iops": "500"}});
        assert!(complaints(|errors| VolumeAttributesClassStrategy.validate(&class, errors)).is_empty());
        let other = json!({"driverName": "csi.example.com", "parameters": {"iops": "600"}});
        assert_eq!(
            complaints(|e| VolumeAttributesClassStrategy.validate_update(&other, &class, Part::Main, e)),
            ["parameters: Forbidden: updates to parameters are forbidden."]
        );
        let empty = json!({"driverName": "csi.example.com"});
        assert_eq!(
            complaints(|errors| VolumeAttributesClassStrategy.validate(&empty, errors)),
            ["parameters: Required value: must contain at least one key/value pair"]
        );
    }
}

//! DeviceClass: devices of one sort, and how their driver is configured.

use k8s_openapi::api::resource::v1::DeviceClass;
use serde_json::Value;

use super::config;
use crate::field::{ErrorList, Path};
use crate::kinds::cells;
use crate::kinds::tree::{list, some};
use crate::meta::names;
use crate::resource::{Descriptor, Idle};
use crate::strategy::Strategy;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<DeviceClass>()
        .idle(Idle::Yet)
        .columns(vec![cells::name(), cells::age()])
        .strategy(DeviceClassStrategy)
}

#[derive(Debug)]
struct DeviceClassStrategy;

impl Strategy for DeviceClassStrategy {
    fn validate(&self, class: &Value, errors: &mut ErrorList) {
        let (spec, path) = (class.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
        config::selectors(spec, &path, errors);
        let configs = list(spec, "/config");
        config::each(configs, config::MAX_CONFIGS, &path.child("config"), errors, config::opaque);
        if let Some(name) = some(spec, "/extendedResourceName") {
            let text = name.as_str().unwrap_or_default();
            let own =
                text.starts_with("kubernetes.io/") || text.contains(".kubernetes.io/") || text.starts_with("requests.");
            if !text.contains('/') || own || !names::qualified_name(text).is_empty() {
                errors.invalid(&path.child("extendedResourceName"), name, "must be a valid extended resource name");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::check::complaints;

    #[test]
    fn an_extended_resource_is_somebody_elses() {
        for (name, count) in [("example.com/gpu", 0), ("gpu", 1), ("a.kubernetes.io/gpu", 1), ("requests.a/gpu", 1)] {
            let class = json!({"spec": {"extendedResourceName": name}});
            assert_eq!(complaints(|errors| DeviceClassStrategy.validate(&class, errors)).len(), count, "{name}");
        }
    }
}

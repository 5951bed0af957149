//! APIService: who serves a group and version: this server, or another one behind a Service.

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::check;
use crate::kinds::tree::{fill, int, is_true, list, some, split_status, text};
use crate::meta::{names, push_all};
use crate::resource::{Descriptor, WRITABLE_METADATA};
use crate::strategy::{NameRule, Part, Strategy};

pub fn descriptor() -> Descriptor {
    Descriptor::of::<APIService>()
        .categories(&["api-extensions"])
        .status()
        .status_keeps(WRITABLE_METADATA)
        .columns(vec![
            cells::name(),
            column("Service", "string", "The reference to the service that hosts this API endpoint.", |o, _| {
                json!(service(o))
            }),
            column("Available", "string", "Whether this service is available.", |o, _| json!(available(o))),
            cells::age(),
        ])
        .no_generation()
        .conditional()
        .strategy(ApiServiceStrategy)
}

fn service(object: &Value) -> String {
    some(object, "/spec/service")
        .map_or("Local".to_owned(), |service| format!("{}/{}", text(service, "/namespace"), text(service, "/name")))
}

fn available(object: &Value) -> String {
    let condition = list(object, "/status/conditions").iter().find(|c| text(c, "/type") == "Available");
    match condition {
        None => "Unknown".to_owned(),
        Some(condition) if text(condition, "/status") == "True" => "True".to_owned(),
        Some(condition) => format!("{} ({})", text(condition, "/status"), text(condition, "/reason")),
    }
}

#[derive(Debug)]
struct ApiServiceStrategy;

impl Strategy for ApiServiceStrategy {
    fn default(&self, object: &mut Value) {
        if let Some(service) = object.pointer_mut("/spec/service").filter(|s| s.is_object()) {
            fill(service, "port", 443);
        }
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        let (spec, path) = (object.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
        let (group, version) = (text(spec, "/group"), text(spec, "/version"));
        let (name, required) = (text(object, "/metadata/name"), format!("{version}.{group}"));
        if name != required {
            let why = format!("must be `spec.version+\".\"+spec.group`: {required:?}");
            errors.invalid(&Path::new("metadata").child("name"), &json!(name), &why);
        }
        if group.is_empty() {
            if version != "v1" {
                errors.required(&path.child("group"), "only v1 may have an empty group and it better be legacy kube");
            }
        } else {
            push_all(errors, &path.child("group"), group, names::dns1123_subdomain(group));
        }
        push_all(errors, &path.child("version"), version, names::dns1035_label(version));
        for (field, max, why) in [
            ("groupPriorityMinimum", 20_000, "must be positive and less than 20000"),
            ("versionPriority", 1000, "must be positive and less than 1000"),
        ] {
            let priority = int(spec, &format!("/{field}")).unwrap_or_default();
            if !(1..=max).contains(&priority) {
                errors.invalid(&path.child(field), &json!(priority), why);
            }
        }
        validate_server(spec, &path, errors);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
    }

    fn validate_update(&self, new: &Value, _old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Main {
            return self.validate(new, errors);
        }
        for (index, condition) in list(new, "/status/conditions").iter().enumerate() {
            let path = Path::new("status").child("conditions").index(index);
            check::required_one_of(condition, "status", &path, &["False", "True", "Unknown"], errors);
        }
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }
}

fn validate_server(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let bundle = !text(spec, "/caBundle").is_empty();
    let insecure = is_true(spec, "/insecureSkipTLSVerify");
    match some(spec, "/service") {
        None => {
            if bundle {
                let value = json!(format!("{} bytes", text(spec, "/caBundle").len()));
                errors.invalid(&path.child("caBundle"), &value, "local APIServices may not have a caBundle");
            }
            if insecure {
                let why = "local APIServices may not have insecureSkipTLSVerify";
                errors.invalid(&path.child("insecureSkipTLSVerify"), &json!(true), why);
            }
        }
        Some(service) => {
            let path = path.child("service");
            for field in ["namespace", "name"] {
                if text(service, &format!("/{field}")).is_empty() {
                    errors.required(&path.child(field), "");
                }
            }
            let port = int(service, "/port").unwrap_or_default();
            if let Some(why) = names::port_number(port) {
                errors.invalid(&path.child("port"), &json!(port), &format!("port is not valid: {why}"));
            }
            if insecure && bundle {
                let path = Path::new("spec").child("insecureSkipTLSVerify");
                errors.invalid(&path, &json!(true), "may not be true if caBundle is present");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    fn judge(name: &str, change: &Value) -> Vec<String> {
        let spec = json!({"group": "a.example", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
            "service": {"name": "s", "namespace": "n"}});
        let mut object = json!({"metadata": {"name": name}, "spec": crate::patch::merge::apply(&spec, change)});
        ApiServiceStrategy.default(&mut object);
        complaints(|errors| ApiServiceStrategy.validate(&object, errors))
    }

    #[test]
    fn its_name_is_what_it_serves() {
        assert!(judge("v1.a.example", &json!({})).is_empty());
        assert_eq!(
            judge("a", &json!({})),
            ["metadata.name: Invalid value: \"a\": must be `spec.version+\".\"+spec.group`: \"v1.a.example\""]
        );
        assert!(judge("v1.", &json!({"group": null})).is_empty());
        assert_eq!(judge("v2.", &json!({"group": null, "version": "v2"})).len(), 1);
    }

    #[test]
    fn another_server_is_trusted_by_its_certificate_or_not_at_all() {
        assert!(judge("v1.a.example", &json!({"insecureSkipTLSVerify": true})).is_empty());
        assert_eq!(
            judge("v1.a.example", &json!({"insecureSkipTLSVerify": true, "caBundle": "eA=="})),
            ["spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present"]
        );
        assert_eq!(
            judge("v1.a.example", &json!({"service": null, "caBundle": "eA=="})),
            ["spec.caBundle: Invalid value: \"4 bytes\": local APIServices may not have a caBundle"]
        );
        assert_eq!(judge("v1.a.example", &json!({"versionPriority": 0, "groupPriorityMinimum": 20_001})).len(), 2);
    }
}
